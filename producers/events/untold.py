"""Events that could not be composed: kept, so that somebody sees them, until they are told."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from producers.events.composing import Outgoing, Untold
from schemas.tables import untold_events
from schemas.tables.bulk import insert

_KEEP = insert(
    Untold,
    untold_events,
    "ON CONFLICT (event_id) DO UPDATE SET kind = excluded.kind, error = excluded.error",
)
_TOLD = text("DELETE FROM untold_events WHERE event_id = ANY(:events_told) RETURNING event_id")


def keep(tx: Connection, untold: Sequence[Untold]) -> None:
    """Note what was left out."""
    if untold:
        _KEEP(tx, untold)


def told(tx: Connection, events: Sequence[Outgoing]) -> list[Outgoing]:
    """Of events that were just told: those that had been left out. They are so no more."""
    ids = [event.history_id for event in events if event.history_id is not None]
    if not ids:
        return []
    found = set(tx.execute(_TOLD, {"events_told": ids}).scalars())
    return [event for event in events if event.history_id in found]
