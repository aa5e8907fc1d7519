"""What waits for a person: failed tasks, and the two things to do about them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import Event
from producers.steps import PRICE, STEPS, Cancellation
from schemas.errors import AutorenewError


class CannotCancel(AutorenewError):
    code = "cannot_cancel"


@dataclass(frozen=True, slots=True)
class FailedTask:
    name: str
    subject: uuid.UUID
    queue: str
    reason: str
    error: str
    attempts: int
    since: datetime
    order_key: str | None
    plan: str | None


_LIST = text("""
    SELECT t.name, t.subject, t.queue, t.reason, coalesce(t.error, ''), t.attempts, t.run_at,
           coalesce(o.key, so.key, ro.key) AS order_key, s.plan
    FROM tasks AS t
    LEFT JOIN services AS s ON s.id = t.subject
    LEFT JOIN orders AS so ON so.id = s.order_id
    LEFT JOIN orders AS o ON o.id = t.subject
    LEFT JOIN payment_requests AS r ON r.id = t.subject
    LEFT JOIN orders AS ro ON ro.id = r.order_id
    WHERE t.state = 'failed'
      AND (CAST(:queue AS text) IS NULL OR t.queue = :queue)
      AND (CAST(:reason AS text) IS NULL OR t.reason = :reason)
    ORDER BY t.queue, t.name, t.reason, t.run_at
    LIMIT :limit
""")


def list_failed(
    tx: Connection, *, queue: str | None = None, reason: str | None = None, limit: int = 1000
) -> list[FailedTask]:
    rows = tx.execute(_LIST, {"queue": queue, "reason": reason, "limit": limit})
    return [FailedTask(*row) for row in rows]


_FAILED = text("""
    SELECT name, subject FROM tasks
    WHERE state = 'failed' AND subject = ANY(:subjects)
    ORDER BY name, subject
""")


def retry(tx: Connection, subjects: Sequence[uuid.UUID]) -> int:
    """Try failed tasks again, from their first attempt; returns how many there were."""
    by_name: dict[str, list[uuid.UUID]] = {}
    for name, subject in tx.execute(_FAILED, {"subjects": list(subjects)}):
        by_name.setdefault(name, []).append(subject)
    for name, failed in by_name.items():
        ledger.retry(tx, name, failed)
        history.record(tx, (Event(subject, "task.retried", {"task": name}) for subject in failed))
    return sum(len(failed) for failed in by_name.values())


_GIVE_UP_SERVICE = text("""
    UPDATE services SET desired = 'absent', generation = generation + 1
    WHERE id = :id AND state = 'delivering' AND desired <> 'absent'
    RETURNING id
""")

_CANCEL_ORDER = text("""
    UPDATE orders SET state = 'cancelled', reason = 'given_up', ended_at = now()
    WHERE id = :id AND state = 'accepted' RETURNING id
""")

# The charge decides: what may have been taken is asked about before the request is voided.
_GIVE_UP_ORDER = text("""
    UPDATE orders AS o SET reason = 'given_up' FROM payment_requests AS r
    WHERE r.id = :id AND o.id = r.order_id AND o.state = 'priced' RETURNING o.id
""")

_STILL_FAILED = text("""
    SELECT 1 FROM tasks WHERE name = :name AND subject = :id AND state = 'failed' FOR UPDATE
""")

_DROP = text("DELETE FROM tasks WHERE name = :name AND subject = :id")

# What to change first, and why it may not be possible. Subjects are locked before their tasks.
_CANCELLING = {
    Cancellation.SERVICE: (_GIVE_UP_SERVICE, "is not a service that waits for its delivery"),
    Cancellation.ORDER: (_CANCEL_ORDER, "is not an order that waits for its price"),
    Cancellation.PAYMENT: (
        _GIVE_UP_ORDER,
        "is not a payment request of an order that waits to be paid",
    ),
}


def cancel(tx: Connection, subject: uuid.UUID) -> None:
    """Give a failed subject up; what was paid for it is credited and refunded.

    Raises:
        CannotCancel: it has not failed, it goes on by now, or the customer is owed it.
    """
    tasks = tx.execute(_FAILED, {"subjects": [subject]}).all()
    if not tasks:
        raise CannotCancel(f"{subject} has no failed task; see `autorenew failed list`")
    for name, _ in tasks:
        gives_up = STEPS[name].cancels if name in STEPS else None
        if gives_up is None:
            raise CannotCancel(f"the customer is owed the {name} of {subject}: retry it")
        change, otherwise = _CANCELLING[gives_up]
        if tx.execute(change, {"id": subject}).first() is None:
            raise CannotCancel(f"{subject} {otherwise}")
        if tx.execute(_STILL_FAILED, {"name": name, "id": subject}).first() is None:
            raise CannotCancel(f"{subject} was tried again meanwhile")
        if name == PRICE:
            tx.execute(_DROP, {"name": name, "id": subject})
            history.record(tx, [Event(subject, "order.cancelled", {"reason": "given_up"})])
        else:
            ledger.retry(tx, name, [subject])
    history.record(tx, [Event(subject, "task.cancelled", {"task": task.name}) for task in tasks])
