"""Writing history: one line for what happened to a subject, in the transaction that did it.

What an operator does is written with who did it and why: see :func:`acting`.
"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from producers.ledger import ClaimedTask
from schemas.tables.bulk import Bulk


@dataclass(frozen=True, slots=True)
class Operator:
    """A person at the command line.

    Attributes:
        by: who they say they are.
        because: why they do it.
        bulk: the bulk operation of theirs that does it.
    """

    by: str
    because: str | None = None
    bulk: uuid.UUID | None = None

    @property
    def told(self) -> dict[str, str]:
        """What is added to the detail of each event."""
        told = {"by": self.by}
        if self.because:
            told["because"] = self.because
        if self.bulk:
            told["bulk"] = str(self.bulk)
        return told


_acting: ContextVar[Operator | None] = ContextVar("operator", default=None)


@contextmanager
def acting(operator: Operator) -> Iterator[None]:
    """Everything that is recorded meanwhile, in this thread, is told as done by ``operator``: its
    detail has ``by``, and ``because`` if they said why."""
    token = _acting.set(operator)
    try:
        yield
    finally:
        _acting.reset(token)


def operator() -> Operator | None:
    """Who acts; None: the fleet does."""
    return _acting.get()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as a row of ``events``.

    Attributes:
        subject: an order, a service or a payment request.
        name: what happened, e.g. ``order.accepted``.
        task: the task that did it.
        waited: how long that task was ready before it started, in seconds.
        attempt: on which attempt it succeeded; the first is 1.
    """

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
    """An event with the task that did it, how long that had waited, and on which attempt."""
    return Event(subject, name, detail, task_name, round(task.waited, 4), task.attempts + 1)


# No ORDER BY: the ids follow the order in which the events are given. A sort by subject would not
# keep it, since PostgreSQL's sort is not stable.
_RECORD = Bulk(
    Event,
    """
    INSERT INTO events (subject, name, detail, task, waited, attempt)
    SELECT subject, name, detail, task, waited, attempt
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        subject uuid, name text, detail jsonb, task text, waited real, attempt smallint)
    """,
)


def record(tx: Connection, happened: Iterable[Event]) -> None:
    """Append to the history; the events of one subject keep their order."""
    rows = list(happened)
    if who := _acting.get():
        rows = [replace(row, detail={**(row.detail or {}), **who.told}) for row in rows]
    if rows:
        _RECORD(tx, rows)
