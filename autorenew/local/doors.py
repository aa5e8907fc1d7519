"""What an embedded fleet is reached by: HTTP API and console, in its process."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from autorenew.console import serving
from autorenew.local.embedded import Embedded
from producers import history
from producers.api import keys
from producers.presence import Presence
from producers.steps import QUEUES


@dataclass(frozen=True, slots=True)
class Doors:
    """
    Attributes:
        said: how to use them, for the person who started the fleet.
    """

    said: list[str] = field(default_factory=list)


@contextmanager
def opened(fleet: Embedded, *, api_port: int, console_port: int) -> Iterator[Doors]:
    """Open all doors, on loopback, until the end."""
    doors = Doors()
    with ExitStack() as stack:
        presence = Presence(fleet.engine("orders"), "worker", QUEUES).keep()
        stack.callback(presence.end)
        api = fleet.serve_api(port=api_port)
        key = _first_key(fleet)
        doors.said.append(f"  curl {api.url}/v1/catalogue -H 'Authorization: Bearer {key or '…'}'")
        if key is None:
            doors.said.append("  (the first key was shown when this folder was new; another one:)")
            doors.said.append(
                "  .venv/bin/autorenew keys create --name another --upstream file"
                " --scope orders:write --scope orders:read"
            )
        console = serving.serve(
            fleet.engine("console"), fleet.engine("readonly"), fleet.clock, fleet.settings,
            host="127.0.0.1", port=console_port,
        )  # fmt: skip
        stack.enter_context(console)
        link = serving.first_link(fleet.engine("console"), console.url)
        doors.said.append(f"The console, once within 15 minutes: {link}")
        yield doors


def _first_key(fleet: Embedded) -> str | None:
    """A key for all that an upstream named ``file`` does; None: there are keys already."""
    scopes = set(keys.KeyScope) - keys.WHOLE_FLEET
    with history.acting(history.Operator("up")), fleet.engine("api").begin() as tx:
        if keys.list_keys(tx):
            return None
        return keys.create(tx, "up", scopes, upstream="file", per_second=1_000_000)[1]
