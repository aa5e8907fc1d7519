"""The tasks ``suspend`` and ``terminate``: deciding, once more and for good, that a service goes.

They wait in the lane ``destructive``, perhaps for long: state, payment and notices are looked at
again when they run. What follows is the infrastructure's, through the provisioning queues.
"""

import uuid
from collections.abc import Collection

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
from workers.billing.payment_requests import requests

_WANT = text("""
    UPDATE services SET desired = :desired, generation = generation + 1
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
        due = {s.id for s in services if s.is_due(Step.SUSPEND, now)}
        _want(tx, due, "suspended")
        next_steps.decide_again(tx, claim.subjects, catalogue, now, charges=True)
        history.record(
            tx,
            (
                by_task(task, SUSPEND, task.subject, "service.suspending", {"reason": "unpaid"})
                for task in claim.tasks
                if task.subject in due
            ),
        )
        return Outcome(done=claim.subjects)


class TerminateHandler:
    name = TERMINATE

    def __init__(self, catalogue: CatalogueCache, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        now, catalogue = self._clock.now(), self._catalogue.current(tx)
        held = requests.lock(tx, claim.subjects, catalogue)
        due = {
            subject: lifecycle.ends_because(held[subject].view)
            for subject in claim.subjects
            if subject in held and held[subject].is_due(Step.TERMINATE, now)
        }
        # From here on a renewal is refused: nothing of them can be charged any more.
        moved = requests.take_off(tx, due, held)
        _want(tx, due, "absent")
        next_steps.decide_again(tx, {*moved, *claim.subjects}, catalogue, now, charges=True)
        history.record(
            tx,
            (
                by_task(task, TERMINATE, task.subject, "service.ending",
                        {"reason": due[task.subject]})
                for task in claim.tasks
                if task.subject in due
            ),
        )  # fmt: skip
        return Outcome(done=claim.subjects)


def _want(tx: Connection, ids: Collection[uuid.UUID], desired: str) -> None:
    if ids:
        rows = tx.execute(_WANT, {"ids": sorted(ids), "desired": desired})
        places = [(row.id, driver_place(row.universe, row.driver)) for row in rows]
        ledger.enqueue(tx, CONVERGE, places)
