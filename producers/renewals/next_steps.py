"""Between services in the database and the rule that decides about them.

Whoever changes anything that the rule looks at locks the service, changes it, and has its next
step decided again, in one transaction.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from schemas.catalogue import Catalogue, Plan, Subsidiary
from schemas.clock import local_date, local_midnight
from schemas.rules import facts, lifecycle, sellable
from schemas.rules.facts import Cycle
from schemas.rules.lifecycle import NextStep, Step
from schemas.rules.notices import Notice
from schemas.rules.quote import Quote, quote
from schemas.tables.bulk import Bulk
from schemas.values import (
    CustomerId,
    Money,
    OrderId,
    Period,
    RenewalMode,
    RequestId,
    ResourceState,
    ServiceId,
    ServiceState,
    derived_id,
)


@dataclass(frozen=True, slots=True)
class Renewable:
    """A service with all that decides about its renewal.

    Attributes:
        noticed_under: the expiry that its notices name. While a change of its subsidiary's time
            zone is carried over to it, that is another moment than the one at which it expires.
        fixed: net of one period, as its first reminder fixed it; None: not fixed yet, or in another
            currency than its subsidiary's by now: such a price is given up.
        announced: what its customer was last told to pay, with tax; None: nothing yet.
        request_id: the open payment request its renewal is on.
        requests: how many payment requests its renewal has been on.
        is_held: an operator has suspended it; nothing of that is in the view.
    """

    id: ServiceId
    order_id: OrderId | None
    customer_id: CustomerId
    subsidiary: Subsidiary
    plan: Plan
    universe: str
    driver: str
    detail: str
    period: Period
    anchor: date
    paid_periods: int
    payment_method_id: uuid.UUID | None
    noticed_under: datetime
    fixed: Money | None
    announced: Money | None
    request_id: RequestId | None
    requests: int
    generation: int
    next_subject: uuid.UUID | None
    view: facts.Service
    is_held: bool

    def next_step(self, now: datetime) -> NextStep | None:
        return lifecycle.next_step(self.view, self.plan.policy, now)

    def is_due(self, step: Step, now: datetime) -> bool:
        """Whether that is to be done now: facts may have changed since it was scheduled."""
        next_ = lifecycle.next_step(self.view, self.plan.policy, now, reminders=False)
        return next_ is not None and next_.step is step and next_.at <= now

    def with_cycle(self, **changes: Any) -> "Renewable":
        cycle = replace(self.view.cycle, **changes)
        return replace(self, view=replace(self.view, cycle=cycle))

    def end(self, periods: int) -> date:
        """The local date on which it expires with so many paid periods."""
        return self.period.end(self.anchor, periods)

    def periods_to_reach(self, now: datetime) -> int:
        return lifecycle.periods_to_reach(
            self.anchor, self.period, self.paid_periods, self.subsidiary.timezone, now
        )

    @property
    def price(self) -> Money | None:
        """Net of one more period: as it was fixed, or by the catalogue; None: it has none."""
        return self.fixed or self.plan.renewal(self.subsidiary.code, self.period)

    @property
    def currency(self) -> str:
        """What it is paid in."""
        return self.price.currency if self.price else self.subsidiary.currency

    def quote(self, country: str, vat_number: str | None, now: datetime) -> Quote | None:
        """What renewing it now costs its customer; None: it has no price any more.

        Args:
            country, vat_number: the customer's.

        Raises:
            DataError: the tax table has no rate.
        """
        if self.price is None:
            return None
        return quote(
            anchor=self.anchor,
            period=self.period,
            paid_periods=self.paid_periods,
            price=self.price,
            subsidiary=self.subsidiary,
            country=country,
            vat_number=vat_number,
            now=now,
        )


_LOCK = text("SELECT id FROM services WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")


def lock(tx: Connection, ids: Collection[uuid.UUID]) -> None:
    """Hold services until the transaction ends; read them in a later statement only."""
    tx.execute(_LOCK, {"ids": list(ids)})


_LOAD = text("""
    SELECT s.id, s.order_id, s.customer_id, s.subsidiary, s.plan, s.brand, s.universe, s.driver,
           s.configuration, s.resource_id, s.period_months, s.anchor, s.paid_periods, s.expires_at,
           s.state, s.desired, s.mode, s.mode_changed_at, s.suspended_at, s.held_at,
           s.taken_over_at, s.agreed_version,
           s.payment_method_id, s.generation, s.next_subject,
           r.net, r.currency, r.announced, r.announced_currency, r.announced_at, r.raised_at,
           r.stands_until,
           coalesce(r.dearer, 0) AS dearer, r.dearer_at, r.request_id,
           coalesce(r.requests, 0) AS requests, r.asked_at,
           coalesce(r.declines, 0) AS declines, r.declined_at, r.last_declined_at, n.notices,
           n.refused
    FROM services AS s
    LEFT JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
    LEFT JOIN LATERAL (
        SELECT json_object_agg(n.kind, e.sent_at) AS notices,
               json_object_agg(n.kind, e.refused_at) FILTER (WHERE e.refused_at IS NOT NULL)
                   AS refused
        FROM notices AS n JOIN emails AS e ON e.id = n.email_id
        WHERE n.service_id = s.id AND n.expires_at = s.expires_at
    ) AS n ON true
    WHERE s.id = ANY(:ids) AND s.anchor IS NOT NULL
    ORDER BY s.id
""")
# The columns of an open payment request that the next step depends on; only billing may read them.
_LOAD_REQUESTS = text("""
    SELECT p.id, p.payment_method_id,
           (p.country, p.vat_number) IS DISTINCT FROM (c.country, c.vat_number)
               OR coalesce(p.created_at < u.changed_at, false) AS basis_changed,
           EXISTS (
               SELECT FROM charges AS g
               WHERE g.request_id = p.id AND g.state IN ('started', 'unknown')
           ) AS charging
    FROM payment_requests AS p JOIN customers AS c ON c.id = p.customer_id
    JOIN subsidiaries AS u ON u.code = p.subsidiary
    WHERE p.id = ANY(:ids)
""")
# Without what has happened about a renewal: for those whose next one is all new.
_LOAD_BARE = text("""
    SELECT s.id, s.order_id, s.customer_id, s.subsidiary, s.plan, s.brand, s.universe, s.driver,
           s.configuration, s.resource_id, s.period_months, s.anchor, s.paid_periods, s.expires_at,
           s.state, s.desired, s.mode, s.mode_changed_at, s.suspended_at, s.held_at,
           s.taken_over_at,
           s.agreed_version, s.payment_method_id, s.generation, s.next_subject,
           NULL AS net, NULL AS currency, NULL AS announced, NULL AS announced_currency,
           NULL AS announced_at, NULL AS raised_at, NULL AS stands_until, 0 AS dearer,
           NULL AS dearer_at, NULL AS request_id, 0 AS requests, NULL AS asked_at, 0 AS declines,
           NULL AS declined_at, NULL AS last_declined_at, NULL AS notices, NULL AS refused
    FROM services AS s WHERE s.id = ANY(:ids) AND s.anchor IS NOT NULL ORDER BY s.id
""")


def load(
    tx: Connection, ids: Collection[uuid.UUID], catalogue: Catalogue, *, charges: bool = False
) -> list[Renewable]:
    """Read delivered services, in the order of their ids.

    Args:
        charges: see charges that are under way and the method of an open request; for billing,
            which may read them. Steps that depend on it are checked again there.
    """
    if not ids:
        return []
    services = [_renewable(row, catalogue) for row in tx.execute(_LOAD, {"ids": list(ids)})]
    return _with_requests(tx, services) if charges else services


def _with_requests(tx: Connection, services: Sequence[Renewable]) -> list[Renewable]:
    """The same services, with what has become of the open payment requests they are on."""
    ids = {service.request_id for service in services} - {None}
    rows = tx.execute(_LOAD_REQUESTS, {"ids": list(ids)}) if ids else ()
    requests = {row.id: row for row in rows}
    return [
        service.with_cycle(
            charging=request.charging,
            method_changed=request.payment_method_id != service.payment_method_id,
            basis_changed=request.basis_changed,
        )
        if (request := requests.get(service.request_id))
        else service
        for service in services
    ]


def load_bare(tx: Connection, ids: Collection[uuid.UUID], catalogue: Catalogue) -> list[Renewable]:
    """The same without anything that has happened about their next renewal so far."""
    return [_renewable(row, catalogue) for row in tx.execute(_LOAD_BARE, {"ids": list(ids)})]


def _without_hold(row: Any) -> tuple[ServiceState, ResourceState]:
    """What a service would be, and should be, if no operator had suspended it: its life cycle goes
    on by that."""
    if row.held_at is None or row.desired == ResourceState.ABSENT:
        return ServiceState(row.state), ResourceState(row.desired)
    if row.suspended_at is None:
        return ServiceState.ACTIVE, ResourceState.ACTIVE
    return ServiceState.SUSPENDED, ResourceState.SUSPENDED


def _renewable(row: Any, catalogue: Catalogue) -> Renewable:
    plan, subsidiary = catalogue.known_plan(row.plan), catalogue.subsidiary(row.subsidiary)
    period = Period(row.period_months)
    starts_on = catalogue.rollouts.get((row.brand, row.subsidiary))
    timezone = subsidiary.timezone
    began_on = period.end(row.anchor, row.paid_periods - 1)
    fixed = Money(row.net, row.currency) if row.currency == subsidiary.currency else None
    price = fixed or plan.renewal(row.subsidiary, period)
    notices = {
        Notice.parse(kind): datetime.fromisoformat(at) if at else None
        for kind, at in (row.notices or {}).items()
    }
    refused = {
        Notice.parse(kind): datetime.fromisoformat(at) for kind, at in (row.refused or {}).items()
    }
    state, desired = _without_hold(row)
    return Renewable(
        id=row.id,
        order_id=row.order_id,
        customer_id=row.customer_id,
        subsidiary=subsidiary,
        plan=plan,
        universe=row.universe,
        driver=row.driver,
        detail=row.configuration.get("domain") or row.resource_id or "",
        period=period,
        anchor=row.anchor,
        paid_periods=row.paid_periods,
        payment_method_id=row.payment_method_id,
        noticed_under=row.expires_at,
        fixed=fixed,
        announced=Money(row.announced, row.announced_currency) if row.announced_currency else None,
        request_id=row.request_id,
        requests=row.requests,
        generation=row.generation,
        next_subject=row.next_subject,
        is_held=row.held_at is not None,
        view=facts.Service(
            state=state,
            desired=desired,
            mode=RenewalMode(row.mode),
            subsidiary=row.subsidiary,
            timezone=timezone,
            period=period,
            # Not as stored: that is carried over later when its time zone becomes another one.
            expires_at=local_midnight(period.end(row.anchor, row.paid_periods), timezone),
            began_at=local_midnight(began_on, timezone),
            starts_at=local_midnight(starts_on, timezone) if starts_on else None,
            missing_contract=sellable.missing_contract(plan, row.agreed_version, catalogue),
            mode_changed_at=row.mode_changed_at,
            suspended_at=row.suspended_at,
            taken_over_at=row.taken_over_at,
            is_free=price is not None and price.amount == 0,
            cycle=Cycle(
                notices=notices,
                refused=refused,
                asked_at=row.asked_at,
                requested=row.request_id is not None,
                declines=row.declines,
                declined_at=row.declined_at,
                last_declined_at=row.last_declined_at,
                stands_until=row.stands_until,
                announced_at=row.announced_at,
                raised_at=row.raised_at,
                dearer=row.dearer,
                dearer_at=row.dearer_at,
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class StoredStep:
    """What is stored of a service's next step."""

    id: ServiceId
    next_step: Step | None
    next_step_at: datetime | None
    next_subject: uuid.UUID | None


def step_of(service: Renewable, now: datetime) -> StoredStep:
    next_ = service.next_step(now)
    if next_ is None:
        return StoredStep(service.id, None, None, None)
    return StoredStep(service.id, next_.step, next_.at, subject_of(service, next_))


def subject_of(service: Renewable, next_: NextStep) -> uuid.UUID:
    """Whom the step's task is about: those who share it are worked on as one."""
    if next_.step is Step.CHARGE and service.request_id is not None:
        return service.request_id
    if next_.step is not Step.REQUEST:
        return service.id
    whose = (
        service.customer_id,
        service.subsidiary.code,
        service.currency,
        service.payment_method_id,
    )
    asked_at = service.view.cycle.asked_at
    if asked_at is not None:  # what is clicked together is paid together
        return derived_id("asked", *whose, asked_at.isoformat())
    return derived_id("renewal", *whose, local_date(next_.at, service.subsidiary.timezone))


store = Bulk(
    StoredStep,
    """
    UPDATE services AS s
    SET next_step = r.next_step, next_step_at = r.next_step_at, next_subject = r.next_subject
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        id uuid, next_step text, next_step_at timestamptz, next_subject uuid)
    WHERE s.id = r.id
    """,
)


def decide(tx: Connection, services: Iterable[Renewable], now: datetime) -> None:
    """Decide and store what is next, of services as they are now."""
    if steps := [step_of(service, now) for service in services]:
        store(tx, steps)


def decide_again(
    tx: Connection,
    ids: Collection[uuid.UUID],
    catalogue: Catalogue,
    now: datetime,
    *,
    charges: bool = False,
) -> None:
    """The same for services that this transaction has locked and changed."""
    decide(tx, load(tx, ids, catalogue, charges=charges), now)
