"""An operator suspends a service, for abuse or a dispute, and lifts that again.

It stands beside a suspension for want of payment: a payment does not lift it, and lifting it does
not forgive what is unpaid. Paid time, reminders, charges and ends go on as if it was not there.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import Event
from producers.renewals import next_steps
from producers.steps import CONVERGE, driver_place
from schemas.catalogue import Catalogue
from schemas.values import ResourceState, ServiceState


class Verdict(StrEnum):
    """What became of one service."""

    CHANGED = "changed"
    SUSPENDED_ALREADY = "suspended_already"  # by an operator, who keeps their reason
    NOT_SUSPENDED = "not_suspended"  # by an operator
    NOT_DELIVERED = "service_not_delivered"
    ENDED = "service_ended"
    UNKNOWN = "service_unknown"


# What is desired suspended and not held is unpaid, whether or not that is confirmed by now; what is
# being resumed was paid.
_SUSPEND = text("""
    UPDATE services SET held_at = :now, held_because = :reason, desired = 'suspended',
        generation = generation + CASE WHEN desired = 'suspended' THEN 0 ELSE 1 END,
        suspended_at = CASE WHEN desired = 'suspended' THEN coalesce(suspended_at, :now) END
    WHERE id = ANY(:ids) AND state IN ('active', 'suspended') AND desired <> 'absent'
      AND held_at IS NULL
    RETURNING id, universe, driver, suspended_at
""")
_UNSUSPEND = text("""
    UPDATE services SET held_at = NULL, held_because = NULL,
        desired = CASE WHEN suspended_at IS NULL THEN 'active' ELSE 'suspended' END,
        generation = generation + CASE WHEN suspended_at IS NULL THEN 1 ELSE 0 END
    WHERE id = ANY(:ids) AND state IN ('active', 'suspended') AND desired <> 'absent'
      AND held_at IS NOT NULL
    RETURNING id, universe, driver, suspended_at
""")
_FOUND = text("SELECT id, state, desired FROM services WHERE id = ANY(:ids)")


def suspend(
    tx: Connection, services: Sequence[uuid.UUID], reason: str, catalogue: Catalogue, now: datetime
) -> dict[uuid.UUID, Verdict]:
    """Have services suspended until :func:`unsuspend`, whatever is paid meanwhile.

    Args:
        reason: shown with the service, and kept in the history.
    """
    next_steps.lock(tx, services)
    parameters = {"ids": list(services), "reason": reason, "now": now}
    changed = tx.execute(_SUSPEND, parameters).all()
    _follow(tx, changed, "service.suspending", {"reason": "operator", "because": reason})
    next_steps.decide_again(tx, [row.id for row in changed], catalogue, now)
    return _verdicts(tx, services, changed, Verdict.SUSPENDED_ALREADY)


def unsuspend(
    tx: Connection, services: Sequence[uuid.UUID], catalogue: Catalogue, now: datetime
) -> dict[uuid.UUID, Verdict]:
    """Lift what :func:`suspend` did. What is unpaid stays suspended until it is paid."""
    next_steps.lock(tx, services)
    changed = tx.execute(_UNSUSPEND, {"ids": list(services)}).all()
    _follow(tx, changed, "service.unsuspending", {"reason": "operator"})
    next_steps.decide_again(tx, [row.id for row in changed], catalogue, now)
    return _verdicts(tx, services, changed, Verdict.NOT_SUSPENDED)


def _follow(tx: Connection, changed: Sequence[Any], event: str, detail: dict[str, Any]) -> None:
    """The infrastructure follows what should be, and the history keeps it."""
    places = [(row.id, driver_place(row.universe, row.driver)) for row in changed]
    ledger.enqueue(tx, CONVERGE, places)
    history.record(
        tx,
        (
            Event(row.id, event, detail | {"is_unpaid": row.suspended_at is not None})
            for row in changed
        ),
    )


def _verdicts(
    tx: Connection, services: Sequence[uuid.UUID], changed: Sequence[Any], otherwise: Verdict
) -> dict[uuid.UUID, Verdict]:
    """Service -> what became of it, in the order asked for.

    Args:
        otherwise: what is said of one that is there and did not change.
    """
    done = {row.id for row in changed}
    found = {row.id: row for row in tx.execute(_FOUND, {"ids": list(services)})}
    return {
        service: Verdict.CHANGED if service in done else _why_not(found.get(service), otherwise)
        for service in services
    }


def _why_not(row: Any, otherwise: Verdict) -> Verdict:
    if row is None:
        return Verdict.UNKNOWN
    if row.state in (ServiceState.PENDING, ServiceState.DELIVERING):
        return Verdict.NOT_DELIVERED
    if row.desired == ResourceState.ABSENT:
        return Verdict.ENDED
    return otherwise
