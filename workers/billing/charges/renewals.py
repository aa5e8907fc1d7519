"""What a decided charge means for the services on a renewal's payment request."""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, text

from producers import ledger
from producers.history import Event, by_task
from producers.ledger import ClaimedTask
from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from producers.steps import CHARGE, CONVERGE, GATEWAY, REFUND, driver_place
from schemas.catalogue import Catalogue
from schemas.clock import local_midnight
from schemas.rules.facts import Cycle
from schemas.rules.lifecycle import Step
from schemas.tables.bulk import Bulk
from schemas.values import RequestId, ResourceState, ServiceId
from workers.billing.payment_requests import store

# As they were left when it was handed over: any change since would have decided anew. But whoever
# changes a customer or a subsidiary holds no service, and whoever changes a payment method sees no
# request, so that is looked at here.
# The services are held: nobody decides that one goes while its charge begins.
_UNDISTURBED = text("""
    WITH held AS MATERIALIZED (
        SELECT l.request_id, s.next_step = 'charge' AND s.next_step_at <= :now
            AND s.next_subject = l.request_id
            AND (r.stands_until IS NULL OR r.stands_until > :now)
            AND (p.country, p.vat_number, p.payment_method_id) IS NOT DISTINCT FROM
                (c.country, c.vat_number, s.payment_method_id)
            AND (u.changed_at IS NULL OR u.changed_at <= p.created_at) AS as_left
        FROM request_lines AS l JOIN services AS s ON s.id = l.service_id
        JOIN payment_requests AS p ON p.id = l.request_id
        JOIN customers AS c ON c.id = p.customer_id
        JOIN subsidiaries AS u ON u.code = p.subsidiary
        LEFT JOIN renewals AS r ON r.service_id = l.service_id AND r.period_number = l.period_number
            AND r.request_id = l.request_id
        WHERE l.request_id = ANY(:ids) AND l.released_at IS NULL
        ORDER BY s.id FOR NO KEY UPDATE OF s
    )
    SELECT request_id FROM held
    GROUP BY request_id
    HAVING bool_and(as_left)
       AND NOT EXISTS (SELECT FROM recomputations)
""")


_ASK = text("""
    UPDATE renewals AS r SET asked_at = :now FROM services AS s
    WHERE s.id = ANY(:ids) AND r.service_id = s.id AND r.period_number = s.paid_periods + 1
""")


def still_wanted(
    tx: Connection, request_ids: Collection[uuid.UUID], catalogue: Catalogue, now: datetime
) -> set[uuid.UUID]:
    """Which locked requests may be charged now: asked for, or due by their services' next step,
    and still for the right amount.

    What is not is left to that step, which is decided again.
    """
    parameters = {"ids": list(request_ids), "now": now}
    wanted = set(tx.execute(_UNDISTURBED, parameters).scalars())
    on = store.periods_on(tx, set(request_ids) - wanted)
    ids = {service for services in on.values() for service in services}
    if not ids:
        return wanted
    next_steps.lock(tx, ids)
    held: dict[uuid.UUID, Renewable] = {
        s.id: s for s in next_steps.load(tx, ids, catalogue, charges=True)
    }
    for request_id, services in on.items():
        if all(
            _is_payable(held[service], now) and held[service].view.cycle.stands_at(now)
            for service in services
        ):
            wanted.add(request_id)
    left = [held[s] for request_id in on if request_id not in wanted for s in on[request_id]]
    # What is due beside what is not gets a request of its own, as if it was asked for.
    due = [service.id for service in left if _is_payable(service, now)]
    if due:
        tx.execute(_ASK, {"ids": due, "now": now})
    next_steps.decide_again(tx, [service.id for service in left], catalogue, now, charges=True)
    return wanted


def _is_payable(service: Renewable, now: datetime) -> bool:
    """Whether its renewal is to be charged now, whatever else is next for it."""
    return service.is_due(Step.CHARGE, now) or (
        service.view.is_asked and service.is_due(Step.REQUEST, now)
    )


_DECLINED = text("""
    UPDATE renewals AS r SET declines = r.declines + 1, last_declined_at = :now, asked_at = NULL,
        declined_at = coalesce(r.declined_at, :now)
    FROM (SELECT DISTINCT request_id, service_id FROM request_lines
          WHERE request_id = ANY(:ids) AND released_at IS NULL) AS l
    WHERE r.service_id = l.service_id AND r.request_id = l.request_id
""")


# What a person gave up was one attempt: the next one is charged again.
_NEXT_ATTEMPT = text("""
    UPDATE payment_requests SET given_up_at = NULL
    WHERE id = ANY(:ids) AND given_up_at IS NOT NULL
""")


_ENDED = text("SELECT id FROM services WHERE id = ANY(:ids) AND desired = 'absent'")


def decline(
    tx: Connection, request_ids: Collection[uuid.UUID], catalogue: Catalogue, now: datetime
) -> None:
    """A charge was declined: the services on it go on from there. Those that have ended since it
    began come off the request."""
    ids = {
        service for services in store.periods_on(tx, request_ids).values() for service in services
    }
    next_steps.lock(tx, ids)
    tx.execute(_DECLINED, {"ids": list(request_ids), "now": now})
    tx.execute(_NEXT_ATTEMPT, {"ids": list(request_ids)})
    ended = set(tx.execute(_ENDED, {"ids": list(ids)}).scalars())
    moved = store.take_off(tx, ended, store.lock(tx, ended, catalogue), now) if ended else ()
    next_steps.decide_again(tx, {*ids, *moved}, catalogue, now, charges=True)


@dataclass(frozen=True, slots=True)
class ExtendedRow:
    """A service that lasts longer.

    Attributes:
        resumes: generations to go up: 1, if it was suspended for want of payment. What an operator
            suspended stays so.
    """

    id: ServiceId
    paid_periods: int
    expires_at: datetime
    resumes: int
    next_step: Step | None
    next_step_at: datetime | None
    next_subject: uuid.UUID | None


_extend = Bulk(
    ExtendedRow,
    """
    UPDATE services AS s
    SET paid_periods = r.paid_periods, expires_at = r.expires_at,
        desired = CASE WHEN s.held_at IS NULL THEN 'active' ELSE 'suspended' END,
        generation = s.generation + CASE WHEN s.held_at IS NULL THEN r.resumes ELSE 0 END,
        suspended_at = CASE WHEN s.held_at IS NULL THEN s.suspended_at END, next_step = r.next_step,
        next_step_at = r.next_step_at, next_subject = r.next_subject
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, paid_periods integer,
        expires_at timestamptz, resumes integer, next_step text, next_step_at timestamptz,
        next_subject uuid)
    WHERE s.id = r.id
    """,
)


@dataclass(frozen=True, slots=True)
class RefusedRow:
    request_id: RequestId
    service_id: ServiceId


_refuse = Bulk(
    RefusedRow,
    """
    UPDATE request_lines AS l SET refused_at = now()
    FROM json_to_recordset(CAST(:rows AS json)) AS r(request_id uuid, service_id uuid)
    WHERE l.request_id = r.request_id AND l.service_id = r.service_id
    """,
)


def settle(
    tx: Connection,
    paid: Mapping[uuid.UUID, ClaimedTask],
    catalogue: Catalogue,
    now: datetime,
) -> list[tuple[uuid.UUID, Event]]:
    """Requests were paid: each service lasts longer, from its old expiry on, and one that was
    suspended is resumed. What has begun to end by then gets its money back.

    Returns:
        What happened, by request: to be written down with the number of its invoice.
    """
    on = store.periods_on(tx, paid)
    ids = {service for services in on.values() for service in services}
    next_steps.lock(tx, ids)
    held: dict[uuid.UUID, Renewable] = {s.id: s for s in next_steps.load_bare(tx, ids, catalogue)}
    rows, refused, happened = [], [], []
    extended = []
    for request_id, services in on.items():
        for service_id, periods in services.items():
            service = held[service_id]
            if service.view.desired is ResourceState.ABSENT:
                refused.append(RefusedRow(RequestId(request_id), service.id))
                event = Event(service_id, "renewal.refused", {"reason": "ended"})
                happened.append((request_id, event))
                continue
            longer = _longer(service, periods)
            rows.append(_row(service, longer, now))
            extended.append(longer)
            event = by_task(
                paid[request_id], CHARGE, service_id, "service.renewed",
                {"paid_until": longer.view.expires_on.isoformat(), "periods": periods},
            )  # fmt: skip
            happened.append((request_id, event))
    _extend(tx, rows)
    ledger.enqueue(tx, CONVERGE, [(s.id, driver_place(s.universe, s.driver)) for s in extended])
    if refused:
        _refuse(tx, refused)
        owed = {row.request_id for row in refused}
        ledger.enqueue(tx, REFUND, [(request_id, GATEWAY) for request_id in owed])
    return happened


def _longer(service: Renewable, periods: int) -> Renewable:
    """The service as it is once so many more periods are paid."""
    paid_periods = service.paid_periods + periods
    timezone = service.subsidiary.timezone
    expires_at = local_midnight(service.end(paid_periods), timezone)
    price = service.plan.renewal(service.subsidiary.code, service.period)
    view = replace(
        service.view,
        desired=ResourceState.ACTIVE,
        began_at=local_midnight(service.end(paid_periods - 1), timezone),
        expires_at=expires_at,
        is_free=price is not None and price.amount == 0,
        cycle=Cycle(),
    )
    return replace(
        service,
        paid_periods=paid_periods,
        noticed_under=expires_at,
        fixed=None,
        announced=None,
        request_id=None,
        requests=0,
        view=view,
    )


def _row(service: Renewable, longer: Renewable, now: datetime) -> ExtendedRow:
    step = next_steps.step_of(longer, now)
    return ExtendedRow(
        id=service.id,
        paid_periods=longer.paid_periods,
        expires_at=longer.view.expires_at,
        resumes=int(service.view.desired is ResourceState.SUSPENDED),
        next_step=step.next_step,
        next_step_at=step.next_step_at,
        next_subject=step.next_subject,
    )
