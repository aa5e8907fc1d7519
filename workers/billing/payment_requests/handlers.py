"""The tasks ``request`` and ``withdraw``: what is due to be renewed gets its payment request, and
what is not to be renewed any more comes off it."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import by_task
from producers.ledger import Claim, Outcome
from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from producers.steps import CHARGE, GATEWAY, REQUEST, WITHDRAW
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.rules.lifecycle import Step
from schemas.tables.bulk import rows_as_json
from workers.billing.payment_requests import requests
from workers.billing.payment_requests.requests import Draft

# Everything of a group that is due, whether or not a scheduler has come by it already: so no two
# schedulers and no end of a chunk can make two halves of it.
_GROUP = text("""
    SELECT id FROM services
    WHERE next_subject = ANY(:subjects) AND next_step = 'request'
      AND next_step_at <= :now
""")

# Its task is there already: what is next after it is decided with it.
_CHARGED_NEXT = text("""
    UPDATE services AS s SET next_step = 'charge', next_subject = r.request_id
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, request_id uuid) WHERE s.id = r.id
""")

_PAY_WITH = text("""
    UPDATE payment_requests AS p SET payment_method_id = r.method
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, method uuid)
    WHERE p.id = r.id AND p.state = 'open'
""")


class RequestHandler:
    """Subject: what of one customer, subsidiary, currency and payment method falls due on one
    local day, or was asked for together."""

    name = REQUEST

    def __init__(self, catalogue: CatalogueCache, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        now = self._clock.now()
        parameters = {"subjects": claim.subjects, "now": now}
        ids = tx.execute(_GROUP, parameters).scalars().all()
        held = requests.lock(tx, ids, self._catalogue.current(tx))
        # Who moved to another group meanwhile is asked for with that one.
        wanted = set(claim.subjects)
        groups: dict[uuid.UUID, list[Renewable]] = {}
        others = []
        for service_id in sorted(ids):
            service = held[service_id]
            subject = service.next_subject
            if subject is not None and subject in wanted and service.is_due(Step.REQUEST, now):
                groups.setdefault(subject, []).append(service)
            else:
                others.append(service)
        next_steps.decide(tx, others, now)
        if groups:
            self._request(tx, claim, groups, held, now)
        return Outcome(done=claim.subjects)

    def _request(
        self,
        tx: Connection,
        claim: Claim,
        groups: dict[uuid.UUID, list[Renewable]],
        held: dict[uuid.UUID, Renewable],
        now: datetime,
    ) -> None:
        open_requests = {s.request_id for s in held.values() if s.request_id is not None}
        on_it = requests.periods_on(tx, open_requests) if open_requests else {}
        again: dict[uuid.UUID, list[Renewable]] = {}
        anew: list[list[Renewable]] = []
        for services in groups.values():
            request_id = services[0].request_id
            wanted = {s.id: s.periods_to_reach(now) for s in services}
            if request_id is not None and on_it[request_id] == wanted:
                again[request_id] = services  # just these are on it: it is charged once more
            else:
                anew.append(services)
        moved = requests.take_off(tx, {s.id for group in anew for s in group}, held)
        customers = requests.customers(tx, (group[0] for group in anew))
        drafts = [requests.draft(group, customers[group[0].customer_id], now) for group in anew]
        if drafts:
            requests.write(tx, drafts)
            self._tell(tx, claim, drafts)
        if again:
            methods = [{"id": str(i), "method": _method(services)} for i, services in again.items()]
            tx.execute(_PAY_WITH, {"rows": rows_as_json(methods)})
        charged = again | {drawn.id: list(drawn.services) for drawn in drafts}
        rows = [
            {"id": str(s.id), "request_id": str(i)} for i, group in charged.items() for s in group
        ]
        tx.execute(_CHARGED_NEXT, {"rows": rows_as_json(rows)})
        ledger.enqueue(tx, CHARGE, [(request_id, GATEWAY) for request_id in charged])
        rest = set(moved) - {s.id for group in anew for s in group}
        next_steps.decide_again(tx, rest, self._catalogue.current(tx), now, charges=True)

    @staticmethod
    def _tell(tx: Connection, claim: Claim, drafts: Sequence[Draft]) -> None:
        tasks = {task.subject: task for task in claim.tasks}
        history.record(
            tx,
            (
                by_task(
                    tasks[s.next_subject], REQUEST, s.id, "renewal.requested",
                    {"request": str(drawn.id)},
                )
                for drawn in drafts
                for s in drawn.services
                if s.next_subject in tasks
            ),
        )  # fmt: skip


def _method(services: Sequence[Renewable]) -> str | None:
    method = services[0].payment_method_id
    return str(method) if method else None


class WithdrawHandler:
    """Subject: a service on an open request, that was stopped or misses a contract by now."""

    name = WITHDRAW

    def __init__(self, catalogue: CatalogueCache, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        now, catalogue = self._clock.now(), self._catalogue.current(tx)
        held = requests.lock(tx, claim.subjects, catalogue)
        due = {s.id for s in held.values() if s.is_due(Step.WITHDRAW, now)}
        moved = requests.take_off(tx, due, held)
        next_steps.decide_again(tx, {*moved, *claim.subjects}, catalogue, now, charges=True)
        tasks = {task.subject: task for task in claim.tasks}
        history.record(
            tx,
            (
                by_task(task, WITHDRAW, subject, "renewal.withdrawn")
                for subject, task in tasks.items()
                if subject in due
            ),
        )
        return Outcome(done=claim.subjects)
