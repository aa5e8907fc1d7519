"""Bulk operations: what an operator wants done to many failed tasks, and how that goes.

An operation is a row, and which tasks it means is written down when it is asked for: whatever fails
later is not swept in. Schedulers carry it out (``bulk_running``), whatever becomes of who asked.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from producers import history
from producers.control import naming
from producers.control.selection import FITS, Filters, resolve
from producers.control.stating import OneByOne
from producers.history import Event
from schemas.errors import AutorenewError
from schemas.values import BulkKind, BulkState, BulkTaskState


class NoBulkOperation(AutorenewError):
    """There is none with this id, or it is not running."""

    code = "no_bulk_operation"


@dataclass(frozen=True, slots=True)
class BulkOperation:
    """An operation and how far it is.

    Attributes:
        asked_by, note: who, and why.
        filters: what was asked for, by the names of the options.
        rate: tasks a second; None: as fast as it goes.
        all_at_once: it does not begin with one task, and is not halted by those that fail again.
        batch: how many tasks are sent before all of them have been tried.
        total: how many tasks it is about.
        sent: of them, that were made ready, or given up.
        done, failed: of those sent, how they ended; failed: again.
        skipped: had not failed any more, or in another way, when it was their turn.
        reason: why it was halted or stopped.
        waits_for: what holds its tasks back now.
        ended_at: nothing is sent any more, and what was sent has ended.
        detail: of an edit, option -> value, None: without it; of what a person settled, its
            ``reference``, ``not_taken``, ``in_doubt``.
    """

    id: uuid.UUID
    kind: BulkKind
    state: BulkState
    asked_by: str
    note: str | None
    filters: dict[str, Any]
    rate: float | None
    all_at_once: bool
    batch: int
    total: int
    sent: int
    done: int
    failed: int
    skipped: int
    reason: str | None
    waits_for: str | None
    created_at: datetime
    ended_at: datetime | None
    detail: dict[str, Any] | None = None

    @property
    def waiting(self) -> int:
        """Tasks whose turn has not come, or never will."""
        return self.total - self.sent - self.skipped

    @property
    def under_way(self) -> int:
        """Tasks that were sent and have not ended."""
        return self.sent - self.done - self.failed

    @property
    def is_over(self) -> bool:
        return self.ended_at is not None


@dataclass(frozen=True, slots=True)
class BulkTask:
    """A task of an operation that was not done.

    Attributes:
        reason, code: what it had failed for when the operation was asked for.
        outcome: why it was skipped, or what it failed for again.
    """

    name: str
    subject: uuid.UUID
    lane: str
    reason: str | None
    code: str | None
    state: BulkTaskState
    outcome: str | None


_INSERT = text("""
    INSERT INTO bulk_operations (kind, asked_by, note, filters, rate, all_at_once, total, detail)
    VALUES (:kind, :by, :note, CAST(:filters AS jsonb), :rate, :all_at_once, 0,
        CAST(:detail AS jsonb))
    RETURNING id
""")
# What failed last comes last, so that what was just retried in vain is not the first again.
# A task in 17 minutes; a slower one looks as if nothing happened.
LEAST_RATE = 0.001

_SNAPSHOT = text(f"""
    WITH taken AS (
        INSERT INTO bulk_tasks (bulk_id, number, name, subject, lane, reason, code,
            first_failed_at, total_attempts)
        SELECT :id, row_number() OVER (ORDER BY t.run_at, t.name, t.subject), t.name, t.subject,
            t.lane, t.reason, t.code, t.first_failed_at, t.total_attempts
        FROM tasks AS t WHERE t.state = 'failed' AND {FITS}
          AND (CAST(:until AS timestamptz) IS NULL OR t.run_at <= :until)
        ORDER BY t.run_at, t.name, t.subject LIMIT :limit
        RETURNING subject
    )
    SELECT count(*) AS total,
        CASE WHEN :named THEN array_agg(subject) END AS subjects FROM taken
""")
_COUNT = text("UPDATE bulk_operations SET total = :total WHERE id = :id")


@dataclass(frozen=True, slots=True)
class Started:
    """A new operation; ``unmatched``: names that are known and have no failed task."""

    id: uuid.UUID
    total: int
    unmatched: tuple[str, ...]


def start(
    tx: Connection,
    kind: BulkKind,
    filters: Filters,
    *,
    rate: float | None = None,
    all_at_once: bool = False,
    limit: int | None = None,
    until: datetime | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Started:
    """Have something done to all failed tasks that fit, on behalf of the operator who acts.

    Args:
        detail: see :class:`BulkOperation`.
        rate: tasks a second at most; None: as fast as it goes.
        all_at_once: do not begin with one task, nor halt if it fails again.
        limit: so many of them at most, those that have waited for longest.
        until: only what had failed by then.

    Raises:
        UnknownName: a filter names nothing that is known.
        UnknownLane: it names no lane.
        OneByOne: what one task has ended with is not said of several.
        ValueError: the rate is below :data:`LEAST_RATE`, or nobody acts.
    """
    who = history.operator()
    if who is None:
        raise ValueError("a bulk operation is somebody's")
    if rate is not None and not rate >= LEAST_RATE:
        raise ValueError(f"a rate is at least {LEAST_RATE} a second")
    named, parameters = resolve(tx, filters)
    described = describe(filters)
    id_: uuid.UUID = tx.execute(
        _INSERT,
        {
            "kind": kind,
            "by": who.by,
            "note": who.because,
            "filters": json.dumps(described),
            "rate": rate,
            "all_at_once": all_at_once or kind.is_statement,
            "detail": None if detail is None else json.dumps(dict(detail)),
        },
    ).scalar_one()
    taken = tx.execute(
        _SNAPSHOT, {**parameters, "id": id_, "limit": limit, "named": bool(named), "until": until}
    ).one()
    if kind is BulkKind.SETTLE and taken.total != 1:
        raise OneByOne(
            f"{taken.total} failed tasks fit: each payment ends in its own way, so one is settled"
            " at a time"
        )
    tx.execute(_COUNT, {"id": id_, "total": taken.total})
    said = {"kind": kind, "filters": described, "tasks": taken.total}
    history.record(tx, [Event(id_, "bulk.started", said | ({"detail": detail} if detail else {}))])
    matched = set(taken.subjects or ())
    unmatched = tuple(name for name, subjects in named.items() if not subjects & matched)
    return Started(id_, taken.total, () if limit else unmatched)


def describe(filters: Filters) -> dict[str, Any]:
    """What is filtered by, by the names of the options."""
    said: dict[str, Any] = {}
    for name in (field.name for field in fields(filters)):
        value = getattr(filters, name)
        if not value:
            continue
        if isinstance(value, timedelta):
            value = f"{value.total_seconds():g}s"
        elif isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, frozenset | tuple):
            value = sorted(map(str, value))
        said[name] = value
    return said


_COLUMNS = ", ".join(field.name for field in fields(BulkOperation))
_ONE = text(f"SELECT {_COLUMNS} FROM bulk_operations WHERE id = :id")
_BY_BEGINNING = text("""
    SELECT id FROM bulk_operations WHERE id BETWEEN :first AND :last ORDER BY id LIMIT 5
""")
_LIST = text(f"""
    SELECT {_COLUMNS}, count(*) OVER () AS number FROM bulk_operations
    WHERE NOT :open OR ended_at IS NULL
    ORDER BY created_at DESC, id LIMIT :limit OFFSET :skip
""")


def get(tx: Connection, id: uuid.UUID) -> BulkOperation:
    """
    Raises:
        NoBulkOperation: there is none.
    """
    row = tx.execute(_ONE, {"id": id}).first()
    if row is None:
        raise NoBulkOperation(f"there is no bulk operation {id}; see `autorenew bulk list`")
    return _operation(row)


def find_id(tx: Connection, name: str) -> uuid.UUID:
    """The operation whose id this is, or begins so.

    Raises:
        NoBulkOperation: there is none, or several.
    """
    bounds = naming.bounds_of(name)
    found: list[uuid.UUID] = (
        list(tx.execute(_BY_BEGINNING, {"first": bounds[0], "last": bounds[1]}).scalars())
        if bounds
        else []
    )
    if len(found) > 1:
        raise NoBulkOperation(f"several begin with {name}: {', '.join(map(str, found))}")
    if not found:
        raise NoBulkOperation(f"there is no bulk operation {name!r}; see `autorenew bulk list`")
    return found[0]


def list_operations(
    tx: Connection, *, open_only: bool = False, limit: int = 50, skip: int = 0
) -> tuple[list[BulkOperation], int]:
    """Operations, the newest first, and how many there are in all.

    Args:
        open_only: those that have not ended.
    """
    rows = tx.execute(_LIST, {"open": open_only, "limit": limit, "skip": skip}).all()
    if not rows and skip:  # after the last of them
        return [], list_operations(tx, open_only=open_only, limit=1)[1]
    return [_operation(row) for row in rows], rows[0].number if rows else 0


def _operation(row: Any) -> BulkOperation:
    values = {field.name: getattr(row, field.name) for field in fields(BulkOperation)}
    return BulkOperation(**{**values, "kind": BulkKind(row.kind), "state": BulkState(row.state)})


_NOT_DONE = text("""
    SELECT name, subject, lane, reason, code, state, outcome FROM bulk_tasks
    WHERE bulk_id = :id AND state IN ('failed', 'skipped') ORDER BY number LIMIT :limit
""")


def not_done(tx: Connection, id: uuid.UUID, *, limit: int = 20) -> list[BulkTask]:
    """The first of its tasks that failed again, or were skipped."""
    return [
        BulkTask(
            row.name, row.subject, row.lane, row.reason, row.code, BulkTaskState(row.state),
            row.outcome,
        )
        for row in tx.execute(_NOT_DONE, {"id": id, "limit": limit})
    ]  # fmt: skip


_WHY_NOT = text("""
    SELECT state, outcome, count(*) AS tasks, min(lane) AS lane, count(DISTINCT lane) AS lanes,
        (array_agg(subject ORDER BY number))[1:3] AS examples
    FROM bulk_tasks WHERE bulk_id = :id AND state IN ('failed', 'skipped')
    GROUP BY state, outcome ORDER BY tasks DESC, state, outcome LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why tasks of an operation were not done.

    Attributes:
        outcome: why, in words.
        lane: in which all of them are; None: in several.
        examples: the first of them, three at most.
    """

    state: BulkTaskState
    outcome: str | None
    tasks: int
    lane: str | None
    examples: tuple[uuid.UUID, ...]


def why_not_done(tx: Connection, id: uuid.UUID, *, limit: int = 20) -> list[WhyNot]:
    """Why its tasks failed again, or were skipped; the most frequent reason first."""
    return [
        WhyNot(
            BulkTaskState(row.state), row.outcome, row.tasks,
            row.lane if row.lanes == 1 else None, tuple(row.examples),
        )
        for row in tx.execute(_WHY_NOT, {"id": id, "limit": limit})
    ]  # fmt: skip


_STOP = text("""
    UPDATE bulk_operations SET state = 'stopped', reason = :reason, waits_for = NULL,
        ended_at = CASE WHEN sent = done + failed THEN clock_timestamp() END
    WHERE id = :id AND state = 'running' RETURNING id
""")


def stop(tx: Connection, id: uuid.UUID) -> BulkOperation:
    """Send no more of it. What was sent goes on; what was not stays failed.

    Raises:
        NoBulkOperation: there is none, or it is not running.
    """
    who = history.operator()
    by = f"stopped by {who.by}" if who else "stopped"
    reason = f"{by}: {who.because}" if who and who.because else by
    stopped = tx.execute(_STOP, {"id": id, "reason": reason}).first()
    operation = get(tx, id)
    if stopped is None:
        raise NoBulkOperation(f"bulk operation {id} is not running: {operation.state}")
    history.record(tx, [Event(id, "bulk.stopped", {"sent": operation.sent})])
    return operation
