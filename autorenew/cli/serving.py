"""The processes of the fleet that are reached over HTTP."""

import sys
from pathlib import Path

import click

from autorenew.cli.common import on_stop, present, read_database, realms, say
from autorenew.cli.processes import start
from monitoring import metrics
from schemas.settings import Settings, load_settings
from workers.web_group import Membership, WebGroup

API_PORT = 8080
BUCKETS = "buckets"
"""The file in the folder of a group that holds the limits of keys."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=API_PORT,
    show_default=True,
    help="0: any that is free.",
)
@click.option(
    "--processes",
    "-p",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="That share the port; one that ends is started again.",
)
def api(host: str, port: int, processes: int) -> None:
    """Serve the HTTP API under `/v1` until stopped; see `autorenew keys`.

    It takes no TLS: put a proxy that does in front of it.
    """
    settings = load_settings()
    settings.need("read_database_url")
    membership = Membership.of_environment()
    if processes > 1 and membership is None:
        sys.exit(_supervise(settings, host, port, processes))
    _serve(settings, host, port, membership)


def _supervise(settings: Settings, host: str, port: int, processes: int) -> int:
    """Have several processes serve; an exit code."""
    from producers.api.buckets import Buckets
    from producers.web.serving import GRACE_SECONDS, listen, url_of

    # What is wrong is said once, here.
    engine, _ = start(settings, "autorenew api", "api")
    reading = read_database(settings, application="autorenew api")
    for checked in (engine, reading):
        checked.dispose()
    listening = listen(host, port)
    url = url_of(host, listening)
    group = WebGroup(
        settings,
        [sys.executable, "-m", "autorenew", "api", "--host", host],
        listening=listening,
        processes=processes,
        grace=GRACE_SECONDS,
        prepare=lambda folder: Buckets.make(folder / BUCKETS),
        on_ready=lambda: say(f"API {url}"),
    )
    on_stop(group.stop)
    return group.run()


def _serve(settings: Settings, host: str, port: int, membership: Membership | None) -> None:
    from producers import counters
    from producers.api.app import build, refusal
    from producers.api.buckets import Buckets
    from producers.api.doors import Doors
    from producers.web.serving import WebServer
    from workers.garbage import collect_seldom

    engine, fleet_clock = start(settings, "autorenew api", "api")
    reading = read_database(settings, application="autorenew api")
    shared: Path | None = None if membership is None else membership.folder / BUCKETS
    doors = Doors(
        engine,
        reading,
        fleet_clock,
        realms(settings),
        Buckets(shared),
        keep_days=settings.rejected_days,
    )

    def beat() -> None:
        if membership is not None:
            try:
                membership.beat()
            except BrokenPipeError:
                stop()

    server = WebServer(
        build(doors),
        host=host,
        port=port,
        name="api",
        listening=None if membership is None else membership.listening,
        beat=beat,
        answer=refusal,
    )

    def stop() -> None:
        doors.waiters.release()
        server.stop()

    on_stop(stop)
    with server:
        counters.of_intake("api")
        if membership is None:
            metrics.serve(settings)
        present(engine, "api")
        collect_seldom()
        if membership is None:
            say(f"API {server.url}")
        server.wait()
    doors.stop()
