"""A step of a bulk operation: see what became of the tasks that were sent, and send the next.

Tasks go out in batches of 1, 10, 100, … : the next one once all of a batch have been tried. If one
fails again with the same fingerprint (step, lane, reason, code), the cause is not removed, and the
operation halts. A step is one short transaction, in which the operation's row is locked; whoever
finds it locked leaves it alone. So any number of schedulers may take steps, and one that dies in
the middle of a step has done nothing.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, IntegrityError

from monitoring import metrics
from producers import history
from producers.control import editing, failed, giving_up, stating
from producers.control.selection import TaskId
from producers.history import Event, Operator
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError, first_line
from schemas.values import BulkKind, BulkState

# Tasks that are sent in one step. To give one up takes several statements.
CHUNK = {
    BulkKind.RETRY: 2000, BulkKind.CANCEL: 50, BulkKind.EDIT: 50, BulkKind.DONE: 200,
    BulkKind.SETTLE: 1,
}  # fmt: skip
# Tasks that are looked at in one step.
LOOK = 5000
GROWTH = 10
OUTCOMES = ("sent", "skipped", "done", "failed")

_OPEN = text("SELECT id FROM bulk_operations WHERE ended_at IS NULL ORDER BY created_at, id")
_HOLD = text("""
    SELECT *, clock_timestamp() AS now FROM bulk_operations
    WHERE id = :id AND ended_at IS NULL FOR UPDATE SKIP LOCKED
""")
# A task that was done is gone, or was asked for anew since: then it has failed at another time, or
# never.
_LOOK = text("""
    WITH seen AS MATERIALIZED (
        SELECT b.number, b.name, b.subject, b.lane, b.state AS was, t.subject IS NULL AS is_gone,
            t.state, t.attempts, t.reason, t.code,
            (t.reason, t.code) IS NOT DISTINCT FROM (b.reason, b.code) AS is_same
        FROM (
            SELECT * FROM bulk_tasks
            WHERE bulk_id = :id AND state IN ('sent', 'retrying') AND number > :after
            ORDER BY number LIMIT :limit
        ) AS b
        LEFT JOIN tasks AS t ON t.name = b.name AND t.subject = b.subject
            AND t.first_failed_at = b.first_failed_at
    ), judged AS (
        SELECT *, CASE WHEN is_gone THEN 'done' WHEN state = 'failed' THEN 'failed'
            WHEN attempts > 0 THEN 'retrying' ELSE was END AS becomes
        FROM seen
    ), changed AS (
        UPDATE bulk_tasks AS b SET state = j.becomes,
            outcome = CASE WHEN NOT j.is_gone THEN concat_ws(' ', j.reason, j.code) END
        FROM judged AS j
        WHERE b.bulk_id = :id AND b.number = j.number AND j.becomes <> j.was
    )
    SELECT count(*) AS seen, coalesce(max(number), 0) AS last,
        count(*) FILTER (WHERE becomes <> was) AS changed,
        count(*) FILTER (WHERE becomes = 'done') AS done,
        count(*) FILTER (WHERE becomes = 'failed') AS failed,
        min(number) FILTER (WHERE is_same AND becomes IN ('failed', 'retrying')
            AND becomes <> was) AS same
    FROM judged
""")
_PAUSED = text("SELECT DISTINCT lane FROM lane_pauses ORDER BY lane")
_OPEN_LANES = text("SELECT lane FROM lane_breakers ORDER BY lane")
# An open lane gets no more of them while some of them wait there for its probes.
_PROBED = text("""
    SELECT DISTINCT lane FROM bulk_tasks
    WHERE bulk_id = :id AND state = 'sent' AND lane = ANY(:open)
""")
# Of the batch, that can be tried and have not been.
_UNTRIED = text("""
    SELECT count(*) FROM bulk_tasks
    WHERE bulk_id = :id AND state = 'sent' AND lane <> ALL(:paused)
""")
_NEXT = text("""
    SELECT number, name, subject FROM bulk_tasks
    WHERE bulk_id = :id AND state = 'waiting' AND lane <> ALL(:paused)
    ORDER BY number LIMIT :limit
""")
# Only the failures that were asked about.
_FAILED = """
    SELECT b.number FROM bulk_tasks AS b JOIN tasks AS t
        ON t.name = b.name AND t.subject = b.subject AND t.state = 'failed'
        AND (t.reason, t.code, t.first_failed_at, t.total_attempts)
            IS NOT DISTINCT FROM (b.reason, b.code, b.first_failed_at, b.total_attempts)
    WHERE b.bulk_id = :id AND b.number = ANY(:numbers)
    ORDER BY t.name, t.subject
"""
# A retry locks them in this order, too; who gives one up locks its subject first.
_STILL = {
    BulkKind.RETRY: text(f"{_FAILED} FOR UPDATE OF t"),
    BulkKind.CANCEL: text(_FAILED),
    BulkKind.EDIT: text(_FAILED),
    BulkKind.DONE: text(_FAILED),
    BulkKind.SETTLE: text(_FAILED),
}
_SENT = text("""
    UPDATE bulk_tasks AS b SET state = 'sent', first_failed_at = (
        SELECT t.first_failed_at FROM tasks AS t WHERE t.name = b.name AND t.subject = b.subject)
    WHERE b.bulk_id = :id AND b.number = ANY(:numbers)
""")
_SKIPPED = text("""
    UPDATE bulk_tasks AS b SET state = 'skipped', outcome = coalesce(
        CAST(CAST(:why AS jsonb)->>CAST(b.number AS text) AS text),
        (SELECT CASE WHEN t.state = 'failed' THEN concat_ws(' ', 'failed since:', t.reason, t.code)
            ELSE 'it is tried again by now' END
         FROM tasks AS t WHERE t.name = b.name AND t.subject = b.subject),
        'it was done or given up meanwhile')
    WHERE b.bulk_id = :id AND b.number = ANY(:numbers)
""")
_HELD = text("""
    SELECT DISTINCT lane FROM bulk_tasks
    WHERE bulk_id = :id AND state IN ('waiting', 'sent') AND lane = ANY(:paused) ORDER BY lane
""")
_SAME = text("""
    SELECT name, subject, lane, reason, code FROM bulk_tasks
    WHERE bulk_id = :id AND number = :number
""")
_SAVE = text("""
    UPDATE bulk_operations SET state = :state, batch = :batch, batch_left = :batch_left,
        paced_at = :paced_at, looked_at = :looked_at, sent = :sent, done = :done,
        failed = :failed, skipped = :skipped, reason = :reason, waits_for = :waits_for,
        ended_at = CASE WHEN :ended THEN clock_timestamp() END
    WHERE id = :id
""")


_FORGET = text("""
    DELETE FROM bulk_tasks WHERE (bulk_id, number) IN (
        SELECT t.bulk_id, t.number FROM bulk_operations AS o
        JOIN bulk_tasks AS t ON t.bulk_id = o.id
        WHERE o.ended_at < clock_timestamp() - make_interval(days => :days) LIMIT :limit)
""")
# For so long it is known which tasks an operation was about; its counts and its history stay.
KEPT_DAYS = 30


def forget(tx: Connection) -> int:
    """Drop some of the snapshots of operations that ended long ago; returns how many tasks of them,
    at most :data:`LOOK`."""
    return tx.execute(_FORGET, {"days": KEPT_DAYS, "limit": LOOK}).rowcount


def open_operations(tx: Connection) -> list[uuid.UUID]:
    """Those that have not ended, the oldest first."""
    return list(tx.execute(_OPEN).scalars())


@dataclass(slots=True)
class Step:
    """What a step did.

    Attributes:
        sent, skipped, done, failed: how many tasks.
        changed: how many were found to be in another state; those that ended among them.
        more: there are more to look at, or to send, than one step does.
        ended: how the operation stands now, if it did not before.
    """

    sent: int = 0
    skipped: int = 0
    done: int = 0
    failed: int = 0
    changed: int = 0
    more: bool = False
    ended: BulkState | None = None

    @property
    def did_something(self) -> bool:
        return bool(self.sent or self.skipped or self.changed or self.ended)


def advance(tx: Connection, id: uuid.UUID, catalogue: CatalogueCache) -> Step | None:
    """Take one step of an operation; what it does is recorded as its operator's.

    Args:
        catalogue: against which a configuration is checked.

    Returns:
        None: it has ended, or somebody else takes a step of it.
    """
    row = tx.execute(_HOLD, {"id": id}).mappings().first()
    if row is None:
        return None
    who = Operator(row["asked_by"], row["note"], id)
    with history.acting(who):
        return _Advance(tx, dict(row), catalogue).step()


def count(kind: BulkKind, step: Step) -> None:
    """Add a step that was committed to the metrics."""
    for outcome in OUTCOMES:
        metrics.bulk_tasks.labels(kind, outcome).inc(getattr(step, outcome))
    if step.ended is not None:
        metrics.bulk_operations.labels(kind, step.ended).inc()


class _Advance:
    """One step of one operation, whose row is locked."""

    def __init__(self, tx: Connection, row: dict[str, Any], catalogue: CatalogueCache) -> None:
        self._tx = tx
        self._catalogue = catalogue
        self._row = row
        self._id: uuid.UUID = row["id"]
        self._kind = BulkKind(row["kind"])
        self._done = Step()
        # Nothing is called to write down what a person did: no lane holds that back.
        calls = not self._kind.is_statement
        self._paused: list[str] = list(tx.execute(_PAUSED).scalars()) if calls else []
        self._open: list[str] = list(tx.execute(_OPEN_LANES).scalars()) if calls else []

    def step(self) -> Step:
        row, was = self._row, BulkState(self._row["state"])
        row["waits_for"] = None
        self._look()
        if row["state"] == BulkState.RUNNING:
            self._send()
        under_way = row["sent"] - row["done"] - row["failed"]
        if row["state"] == BulkState.RUNNING and row["sent"] + row["skipped"] == row["total"]:
            if not under_way:
                row["state"] = BulkState.DONE
            elif not self._done.did_something:
                row["waits_for"] = self._held()
        if row["state"] != was:
            self._done.ended = BulkState(row["state"])
            counts = {name: row[name] for name in ("total", "sent", "done", "failed", "skipped")}
            because = {"reason": row["reason"]} if row["reason"] else {}
            history.record(
                self._tx, [Event(self._id, f"bulk.{row['state']}", {**counts, **because})]
            )
        ended = row["state"] != BulkState.RUNNING and not under_way
        self._tx.execute(_SAVE, {**row, "ended": ended})
        return self._done

    def _look(self) -> None:
        """See what became of those that were sent."""
        row = self._row
        if row["sent"] == row["done"] + row["failed"]:
            return
        parameters = {"id": self._id, "after": row["looked_at"], "limit": LOOK}
        look = stating.LOOK if self._kind.is_statement else _LOOK
        seen = self._tx.execute(look, parameters).one()
        row["looked_at"] = seen.last if seen.seen == LOOK else 0
        row["done"] += seen.done
        row["failed"] += seen.failed
        self._done.done, self._done.failed = seen.done, seen.failed
        self._done.changed = seen.changed
        self._done.more = seen.seen == LOOK
        if seen.same is not None and self._halts:
            row["state"] = BulkState.HALTED
            row["reason"] = self._same_again(seen.same)

    @property
    def _halts(self) -> bool:
        is_running = self._row["state"] == BulkState.RUNNING
        return is_running and self._kind.tries_again and not self._row["all_at_once"]

    def _same_again(self, number: int) -> str:
        task = self._tx.execute(_SAME, {"id": self._id, "number": number}).one()
        why = ": ".join(filter(None, (task.reason, task.code)))
        return f"the same again: {task.name} of {task.subject} in lane {task.lane}: {why}"

    def _send(self) -> None:
        row = self._row
        limit, paced = self._allowed_by_batch(), self._allowed_by_rate()
        if limit > 0 >= paced and not self._done.did_something:
            row["waits_for"] = f"its rate of {row['rate']:g}/s"
        limit = min(limit, paced)
        if limit <= 0:
            return
        parameters = {"id": self._id, "paused": self._paused + self._probed(), "limit": limit}
        chosen = self._tx.execute(_NEXT, parameters).all()
        if not chosen:
            row["waits_for"] = self._held()
            return
        sent, why = self._do(chosen)
        skipped = [task.number for task in chosen if task.number not in sent]
        if sent:
            self._tx.execute(_SENT, {"id": self._id, "numbers": sorted(sent)})
        if skipped:
            told = json.dumps({str(number): text for number, text in why.items()})
            self._tx.execute(_SKIPPED, {"id": self._id, "numbers": skipped, "why": told})
        row["sent"] += len(sent)
        row["skipped"] += len(skipped)
        row["batch_left"] -= len(sent)
        if row["rate"]:
            row["paced_at"] += timedelta(seconds=len(sent) / row["rate"])
        self._done.sent, self._done.skipped = len(sent), len(skipped)
        self._done.more |= row["sent"] + row["skipped"] < row["total"]

    def _allowed_by_batch(self) -> int:
        """How many may be sent now: what is left of the batch, or of the next one once all of this
        one have been tried. What is in a lane that is paused or open is not waited for."""
        row, chunk = self._row, CHUNK[self._kind]
        if row["all_at_once"]:
            return chunk
        if row["batch_left"] <= 0:
            parameters = {"id": self._id, "paused": self._paused + self._open}
            untried: int = self._tx.execute(_UNTRIED, parameters).scalar_one()
            if untried:
                if not self._done.did_something:
                    tasks = "task is" if untried == 1 else "tasks are"
                    row["waits_for"] = f"{untried} {tasks} being tried"
                return 0
            row["batch"] = min(row["batch"] * GROWTH, max(row["total"], 1))
            row["batch_left"] = row["batch"]
        return min(chunk, int(row["batch_left"]))

    def _allowed_by_rate(self) -> int:
        row = self._row
        if not row["rate"]:
            return CHUNK[self._kind]
        # What was not sent while it could be is not made up for.
        most = max(row["rate"], 1.0)
        elapsed = min((row["now"] - row["paced_at"]).total_seconds(), most / row["rate"])
        row["paced_at"] = row["now"] - timedelta(seconds=elapsed)
        return int(elapsed * row["rate"] + 1e-6)

    def _probed(self) -> list[str]:
        """Open lanes that have one of its tasks to probe with, and are to get no more."""
        if not self._open or self._row["all_at_once"]:
            return []
        return list(self._tx.execute(_PROBED, {"id": self._id, "open": self._open}).scalars())

    def _held(self) -> str | None:
        """The lanes that hold its tasks back: ``paused: a, b; open: c``."""
        said = []
        for what, lanes in (("paused", self._paused), ("open", self._open)):
            if lanes:
                parameters = {"id": self._id, "paused": lanes}
                if held := list(self._tx.execute(_HELD, parameters).scalars()):
                    said.append(f"{what}: {', '.join(held)}")
        return "; ".join(said) or None

    def _do(self, chosen: Sequence[Any]) -> tuple[set[int], dict[int, str]]:
        """Do it to those of the tasks whose failure is still the one that was asked about.

        Returns:
            The numbers of those it was done to; and why not, of others where that can be said.
        """
        numbers = [task.number for task in chosen]
        parameters = {"id": self._id, "numbers": numbers}
        still = set(self._tx.execute(_STILL[self._kind], parameters).scalars())
        tasks = {TaskId(t.name, t.subject): t.number for t in chosen if t.number in still}
        if self._kind is BulkKind.RETRY:
            return {tasks[tried] for tried in failed.retry(self._tx, tasks)}, {}
        if self._kind.is_statement:
            return stating.hand_over(self._tx, self._id, self._kind, tasks)
        catalogue = self._catalogue.current(self._tx) if self._kind is BulkKind.EDIT else None
        done: set[int] = set()
        why: dict[int, str] = {}
        for task, number in sorted(tasks.items(), key=lambda item: item[0].subject):
            try:
                with self._tx.begin_nested():
                    if catalogue is not None:
                        editing.edit_in_bulk(self._tx, self._id, number, task, catalogue)
                    else:
                        giving_up.give_up(self._tx, self._id, number, task)
                done.add(number)
            except (AutorenewError, IntegrityError, DataError) as error:
                why[number] = first_line(error)
        return done, why
