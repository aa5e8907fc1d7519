"""The tasks ``suspend`` and ``terminate``: deciding, once more and for good, that a service goes.

They wait in the lane ``destructive``, perhaps for long: state, payment and notices are looked at
again when they run. What follows is the infrastructure's, through the provisioning queues.
"""

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import by_task
from producers.ledger import Claim, Outcome
from producers.renewals import next_steps
from producers.steps import CONVERGE, SUSPEND, TERMINATE, driver_place
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.rules import lifecycle
from schemas.rules.lifecycle import Step
from schemas.values import ResourceState, ServiceId
from workers.billing.payment_requests import store

_WANT = text("""
    UPDATE services SET desired = :desired, generation = generation + 1,
        -- Else it is when the infrastructure has confirmed it.
        suspended_at = CASE WHEN held_at IS NOT NULL AND :desired = 'suspended'
            THEN CAST(:now AS timestamptz) ELSE suspended_at END
    WHERE id = ANY(:ids) RETURNING id, universe, driver
""")


class SuspendHandler:
    name = SUSPEND

    def __init__(self, catalogue: CatalogueCache, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        now, catalogue = self._clock.now(), self._catalogue.current(tx)
        next_steps.lock(tx, claim.subjects)
        services = next_steps.load(tx, claim.subjects, catalogue, charges=True)
        due = {s.id: "unpaid" for s in services if s.is_due(Step.SUSPEND, now)}
        _want(tx, due, ResourceState.SUSPENDED, now)
        next_steps.decide_again(tx, claim.subjects, catalogue, now, charges=True)
        _tell(tx, claim, SUSPEND, "service.suspending", due)
        return Outcome(done=claim.subjects)


class TerminateHandler:
    name = TERMINATE

    def __init__(self, catalogue: CatalogueCache, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        now, catalogue = self._clock.now(), self._catalogue.current(tx)
        held = store.lock(tx, claim.subjects, catalogue)
        due = {
            service.id: lifecycle.ends_because(service.view)
            for service in held.values()
            if service.id in claim.subjects and service.is_due(Step.TERMINATE, now)
        }
        # From here on a renewal is refused: nothing of them can be charged any more.
        moved = store.take_off(tx, due, held, now)
        _want(tx, due, ResourceState.ABSENT, now)
        next_steps.decide_again(tx, {*moved, *claim.subjects}, catalogue, now, charges=True)
        _tell(tx, claim, TERMINATE, "service.ending", due)
        return Outcome(done=claim.subjects)


def _tell(
    tx: Connection, claim: Claim, name: str, event: str, reasons: Mapping[ServiceId, str]
) -> None:
    """Write down why each of these goes."""
    tasks = {ServiceId(task.subject): task for task in claim.tasks}
    history.record(
        tx,
        (
            by_task(tasks[service], name, service, event, {"reason": reason})
            for service, reason in reasons.items()
        ),
    )


def _want(
    tx: Connection, ids: Collection[uuid.UUID], desired: ResourceState, now: datetime
) -> None:
    if ids:
        rows = tx.execute(_WANT, {"ids": sorted(ids), "desired": desired, "now": now})
        places = [(row.id, driver_place(row.universe, row.driver)) for row in rows]
        ledger.enqueue(tx, CONVERGE, places)
