"""The processes of the fleet that are reached over HTTP."""

import click

from autorenew.cli.common import on_stop, present, read_database, realms, say
from autorenew.cli.processes import start
from monitoring import metrics
from schemas.settings import load_settings

API_PORT = 8080


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=API_PORT,
    show_default=True,
    help="0: any that is free.",
)
def api(host: str, port: int) -> None:
    """Serve the HTTP API under `/v1` until stopped; see `autorenew keys`.

    It takes no TLS: put a proxy that does in front of it.
    """
    from producers import counters
    from producers.api.app import build
    from producers.api.doors import Doors
    from producers.web.serving import WebServer
    from workers.garbage import collect_seldom

    settings = load_settings()
    settings.need("read_database_url")
    engine, fleet_clock = start(settings, "autorenew api", "api")
    reading = read_database(settings, application="autorenew api")
    doors = Doors(engine, reading, fleet_clock, realms(settings), keep_days=settings.rejected_days)
    with WebServer(build(doors), host=host, port=port, name="api") as server:
        counters.of_intake("api")
        metrics.serve(settings)
        present(engine, "api")
        collect_seldom()

        def stop() -> None:
            doors.waiters.release()
            server.stop()

        on_stop(stop)
        say(f"API {server.url}")
        server.wait()
    doors.stop()
