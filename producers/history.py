"""Writing history: one line for what happened to a subject, in the transaction that did it."""

import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from producers.ledger import ClaimedTask
from schemas.tables import events, rows_from_json
from schemas.tables.bulk import rows_as_json


class Event(NamedTuple):
    subject: uuid.UUID
    name: str
    detail: dict[str, Any] | None = None
    task: str | None = None
    waited: float | None = None
    attempt: int | None = None


def by_task(
    task: ClaimedTask,
    task_name: str,
    subject: uuid.UUID,
    name: str,
    detail: dict[str, Any] | None = None,
) -> Event:
    """An event that says which task did it, how long that had waited, on which attempt."""
    return Event(subject, name, detail, task_name, round(task.waited, 4), task.attempts + 1)


_RECORD = text(
    "INSERT INTO events (subject, name, detail, task, waited, attempt)"
    " SELECT subject, name, detail, task, waited, attempt FROM "
    + rows_from_json(events, "subject", "name", "detail", "task", "waited", "attempt")
)


def record(tx: Connection, happened: Iterable[Event]) -> None:
    """Append to the history; order is kept per subject."""
    rows = [event._asdict() for event in happened]
    if rows:
        tx.execute(_RECORD, {"rows": rows_as_json(rows)})
