"""The tasks ``request`` and ``withdraw``: what is due to be renewed gets its payment request, and
what is not to be renewed any more comes off it."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import by_task
from producers.ledger import Claim, Outcome
from producers.renewals import next_steps, traces
from producers.renewals.next_steps import Renewable
from producers.steps import CHARGE, GATEWAY, RENEWAL, REQUEST, WITHDRAW
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.errors import DataError
from schemas.rules.lifecycle import Step
from schemas.rules.quote import Quote
from schemas.tables.bulk import Bulk
from schemas.values import RequestId, ResourceState, ServiceId
from workers.billing.payment_requests import store
from workers.billing.payment_requests.draft import Customer, Draft, Line, draft, parts_of, quote_of

# Everything of a group that is due, whether or not a scheduler has come by it already: so no two
# schedulers and no end of a chunk can make two halves of it.
_GROUP = text("""
    SELECT id FROM services
    WHERE next_subject = ANY(:subjects) AND next_step = 'request'
      AND next_step_at <= :now
""")


@dataclass(frozen=True, slots=True)
class ChargedNext:
    id: ServiceId
    request_id: RequestId


# Its task is there already: what is next after it is decided with it.
_charged_next = Bulk(
    ChargedNext,
    """
    UPDATE services AS s SET next_step = 'charge', next_subject = r.request_id
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, request_id uuid) WHERE s.id = r.id
    """,
)


@dataclass(frozen=True, slots=True)
class PaidWith:
    id: RequestId
    method: uuid.UUID | None


_pay_with = Bulk(
    PaidWith,
    """
    UPDATE payment_requests AS p SET payment_method_id = r.method
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, method uuid)
    WHERE p.id = r.id AND p.state = 'open'
    """,
)

_DEARER = text("""
    UPDATE renewals AS r SET dearer = r.dearer + 1, dearer_at = :now FROM services AS s
    WHERE s.id = ANY(:ids) AND r.service_id = s.id AND r.period_number = s.paid_periods + 1
""")


class RequestHandler:
    """Subject: what of one customer, subsidiary, currency and payment method falls due on one
    local day, or was asked for together.

    What costs more by now than its customer was told is not asked for: the customer is told first.
    """

    name = REQUEST

    def __init__(self, catalogue: CatalogueCache, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        now = self._clock.now()
        parameters = {"subjects": claim.subjects, "now": now}
        ids = tx.execute(_GROUP, parameters).scalars().all()
        held = store.lock(tx, ids, self._catalogue.current(tx))
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
        customers = store.customers(tx, (group[0] for group in groups.values()))
        quotes, unquoted = _quotes(groups, customers, now)
        dearer = {id_ for id_, q in quotes.items() if q.is_dearer_than(held[id_].announced)}
        left = dearer | unquoted
        payable = [
            part
            for services in groups.values()
            for part in parts_of((s for s in services if s.id not in left), quotes)
        ]
        on_open = {s.request_id for s in held.values() if s.request_id is not None}
        on_it = store.lines_on(tx, on_open) if on_open else {}
        again: dict[RequestId, list[Renewable]] = {}
        anew: list[list[Renewable]] = []
        for services in payable:
            request_id = services[0].request_id
            asked_for = on_it.get(request_id) if request_id is not None else None
            customer = customers[services[0].customer_id]
            if request_id and asked_for and _is_as_asked_for(services, asked_for, customer, now):
                again[request_id] = services  # it is charged once more
            else:
                anew.append(services)
        off = {s.id for group in anew for s in group} | dearer
        moved = store.take_off(tx, off, held, now)
        drafts = [draft(group, customers[group[0].customer_id], now) for group in anew]
        if drafts:
            store.write(tx, drafts)
            traces.begin(tx, [s.id for drawn in drafts for s in drawn.services], "request")
            self._tell(tx, claim, drafts)
        if again:
            _pay_with(tx, [PaidWith(i, group[0].payment_method_id) for i, group in again.items()])
        charged = again | {drawn.id: list(drawn.services) for drawn in drafts}
        if charged:
            _charged_next(tx, [ChargedNext(s.id, i) for i, group in charged.items() for s in group])
            ledger.enqueue(tx, CHARGE, [(request_id, GATEWAY) for request_id in charged])
        if dearer:
            _set_aside(tx, claim, dearer, held, quotes, now)
        rest = {*moved, *dearer} - {s.id for group in anew for s in group}
        next_steps.decide_again(tx, rest, self._catalogue.current(tx), now, charges=True)
        _set_apart(tx, unquoted)

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


def _quotes(
    groups: Mapping[uuid.UUID, Sequence[Renewable]],
    customers: Mapping[str, Customer],
    now: datetime,
) -> tuple[dict[ServiceId, Quote], set[ServiceId]]:
    """What services cost now, and those of which that is not known: they hold up no other.

    Raises:
        DataError: of a service that is asked for alone already: its task fails.
    """
    quotes, unquoted = {}, set()
    for subject, services in groups.items():
        for service in services:
            try:
                quotes[service.id] = quote_of(service, customers[service.customer_id], now)
            except DataError:
                if subject == service.id:
                    raise
                unquoted.add(service.id)
    return quotes, unquoted


_ALONE = text(
    "UPDATE services SET next_subject = id WHERE id = ANY(:ids) AND next_step = 'request'"
)


def _set_apart(tx: Connection, services: Collection[ServiceId]) -> None:
    """Have each of these asked for alone: what fails then is its own task, by its own id."""
    if services:
        tx.execute(_ALONE, {"ids": sorted(services)})
        ledger.enqueue(tx, REQUEST, [(service, RENEWAL) for service in services])


def _is_as_asked_for(
    services: Sequence[Renewable], on_it: Sequence[Line], customer: Customer, now: datetime
) -> bool:
    """Whether just these are on a request, for the periods and the amounts of now."""
    stands = all(service.view.cycle.stands_at(now) for service in services)
    lines = draft(services, customer, now).lines
    return stands and {x.asks_for for x in on_it} == {x.asks_for for x in lines}


def _set_aside(
    tx: Connection,
    claim: Claim,
    dearer: Collection[ServiceId],
    held: Mapping[uuid.UUID, Renewable],
    quotes: Mapping[ServiceId, Quote],
    now: datetime,
) -> None:
    """Their customers are to be told first what they cost by now."""
    tx.execute(_DEARER, {"ids": sorted(dearer), "now": now})
    tasks = {task.subject: task for task in claim.tasks}
    history.record(
        tx,
        (
            by_task(
                tasks[subject], REQUEST, service, "renewal.dearer",
                {"announced": str(held[service].announced), "amount": str(quotes[service].gross)},
            )
            for service in sorted(dearer)
            if (subject := held[service].next_subject) in tasks and subject is not None
        ),
    )  # fmt: skip


class WithdrawHandler:
    """Subject: a service on an open request, that was stopped or ended, misses a contract, is taxed
    otherwise by now, or was asked for before its subsidiary was changed."""

    name = WITHDRAW

    def __init__(self, catalogue: CatalogueCache, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        now, catalogue = self._clock.now(), self._catalogue.current(tx)
        held = store.lock(tx, claim.subjects, catalogue)
        due = {s.id for s in held.values() if s.is_due(Step.WITHDRAW, now) or _has_ended(s)}
        moved = store.take_off(tx, due, held, now)
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


def _has_ended(service: Renewable) -> bool:
    """And its renewal can be taken off. A charge that is under way is decided first: what it took
    is given back, and after a decline it comes off."""
    return service.view.desired is ResourceState.ABSENT and not service.view.cycle.charging
