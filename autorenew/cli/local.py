"""Everything in one process: the demo, and a fleet that stays up."""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autorenew.cli.common import on_stop, say
from autorenew.local import end_on_sigterm
from monitoring import metrics

if TYPE_CHECKING:
    from autorenew.local.embedded import Embedded

_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where PostgreSQL keeps its data.",
)


@click.command()
@_folder
@click.option("--orders", "count", type=click.IntRange(1, 100_000), default=250, show_default=True)
@click.option(
    "--months",
    type=click.IntRange(0, 120),
    default=13,
    show_default=True,
    help="Months of renewals after the orders.",
)
@click.option("--seed", type=int, default=1, show_default=True)
def demo(folder: Path, count: int, months: int, seed: int) -> None:
    """Place orders and let months of renewals pass, with a simulated outside world that misbehaves.

    Exit code 0 if every order ended and the books agree.
    """
    from autorenew.demo import run

    end_on_sigterm()
    sys.exit(run(folder, count, seed, months))


_OF_EVENTS = ("event_source", "webhook_allowed_networks", "webhook_disable_days")


@click.command()
@_folder
@click.option("--api-port", type=click.IntRange(0, 65535), default=8080, show_default=True)
def up(folder: Path, api_port: int) -> None:
    """Run everything in this process until stopped; other terminals can place orders."""
    from autorenew.catalogues import bundled
    from autorenew.local.embedded import Embedded
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
    metrics.serve(settings)
    with Embedded(folder, store=str(folder / "simulator.sqlite"), **mail) as fleet:
        with fleet.owner.begin() as tx:
            save(tx, bundled())
        api = fleet.serve_api(port=api_port)
        key = _first_key(fleet)
        say("up; stop with Ctrl-C. In another terminal:")
        say(f"  export AUTORENEW_DATABASE_URL={fleet.database_url}")
        say(f"  export AUTORENEW_SIMULATOR_URL={fleet.simulator.url}")
        say("  .venv/bin/autorenew order place docs/examples/orders.ndjson")
        say("  .venv/bin/autorenew order show example-1")
        say(f"  curl {api.url}/v1/catalogue -H 'Authorization: Bearer {key or '…'}'")
        if key is None:
            say("  (its key was shown when this folder was new; `autorenew keys create` makes one)")
        stopping.wait()
        say("draining")


def _first_key(fleet: "Embedded") -> str | None:
    """A key for all that an upstream named ``file`` does; None: there are keys already."""
    from producers import history
    from producers.api import keys

    scopes = set(keys.KeyScope) - keys.WHOLE_FLEET
    with history.acting(history.Operator("up")), fleet.engine("api").begin() as tx:
        if keys.list_keys(tx):
            return None
        return keys.create(tx, "up", scopes, upstream="file", per_second=1_000_000)[1]
