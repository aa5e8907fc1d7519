"""Everything in one process: the demo, and a fleet that stays up."""

import sys
import threading
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autorenew.cli.common import on_stop, say
from autorenew.local import end_on_sigterm
from monitoring import metrics

if TYPE_CHECKING:
    pass

_PORT = click.IntRange(0, 65535)
_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where PostgreSQL keeps its data.",
)


@click.command()
@_folder
@click.option(
    "--orders",
    "count",
    type=click.IntRange(1, 100_000),
    default=250,
    show_default=True,
    help="How many to place.",
)
@click.option(
    "--months",
    type=click.IntRange(0, 120),
    default=13,
    show_default=True,
    help="Months of renewals after the orders.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Another seed gives other orders."
)
def demo(folder: Path, count: int, months: int, seed: int) -> None:
    """Place orders and let months of renewals pass, with a simulated outside world that misbehaves.

    Exit code 0 if every order ended and the books agree.
    """
    from autorenew.demo import run

    end_on_sigterm()
    sys.exit(run(folder, count, seed, months))


_AUDIT_SECONDS = 1.0
# Whoever tries webhooks out listens on this machine.
_LOOPBACK = IPv4Network("127.0.0.0/8")
_OF_EVENTS = ("event_source", "webhook_allowed_networks", "webhook_disable_days")


@click.command()
@_folder
@click.option(
    "--api-port", type=_PORT, default=8080, show_default=True, help="Of the HTTP API; 0: any."
)
@click.option(
    "--console-port", type=_PORT, default=8070, show_default=True, help="Of the console; 0: any."
)
def up(folder: Path, api_port: int, console_port: int) -> None:
    """Run everything in this process until stopped; other terminals can place orders.

    It prints the addresses of the HTTP API, with a key, and of the console, with a link that signs
    in once.
    """
    from autorenew.catalogues import bundled
    from autorenew.cli.exporter import Running
    from autorenew.local import doors
    from autorenew.local.embedded import Embedded
    from autorenew.local.examples import say_links
    from schemas.catalogue.store import save
    from schemas.settings import load_settings

    stopping = threading.Event()
    on_stop(stopping.set)
    settings = load_settings()
    mail = {
        name: value
        for name in ("smtp_url", "mail_from", "link_base_url", "link_secret", *_OF_EVENTS)
        if (value := getattr(settings, name)) is not None
    }
    mail["webhook_allowed_networks"] = settings.webhook_allowed_networks or [_LOOPBACK]
    if "audit_seconds" not in settings.model_fields_set:  # whoever looks at it has not got hours
        settings = settings.model_copy(update={"audit_seconds": _AUDIT_SECONDS})
    metrics.serve(settings)
    store = str(folder / "simulator.sqlite")
    with Embedded(folder, store=store, pages=True, **mail) as fleet:
        with fleet.owner.begin() as tx:
            save(tx, bundled())
        with (
            doors.opened(fleet, api_port=api_port, console_port=console_port) as opened,
            Running(fleet.engine("exporter"), settings, host="127.0.0.1", port=0) as exporter,
        ):
            say("up; stop with Ctrl-C. In another terminal:")
            say(f"  export AUTORENEW_DATABASE_URL={fleet.database_url}")
            say(f"  export AUTORENEW_SIMULATOR_URL={fleet.simulator.url}")
            say("  .venv/bin/autorenew order place docs/examples/orders.ndjson")
            say("  .venv/bin/autorenew order show example-1")
            for line in opened.said:
                say(line)
            say(f"Metrics of the database: {exporter.server.url}/metrics")
            said = fleet.settings.need("link_base_url")
            elsewhere = "" if said == fleet.pages_url else f", served on {fleet.pages_url}"
            say(f"Pages of customers: {said}{elsewhere}. Links of the first three:")
            say_links(fleet, stopping, say)
            stopping.wait()
            say("draining")
