"""A service: its plan and state, until when it is paid, what is next and why; and lists of them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from producers.views import timelines
from producers.views.outlooks import (
    NextView,
    Payer,
    QuoteView,
    decision_of,
    next_before_delivery,
    next_of,
    quote_now,
    try_quote,
)
from producers.views.scope import EVERYTHING, Page, Scope, after, cursor_of
from producers.views.timelines import Happening
from schemas.catalogue import Catalogue
from schemas.rules.outlook import Decision
from schemas.rules.payable import PaymentMethod
from schemas.values import DELIVERED, RenewalMode, ResourceState, ServiceState, Universe

SCANNED = 5000
"""Services that one part of a list looks at, at most."""


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service as lists show it.

    Attributes:
        name: what it is known by to its customer: its domain, or what its driver calls it.
        next_step, next_step_at: as they were decided last.
        suspended_because: why an operator has it suspended.
    """

    id: uuid.UUID
    customer: str
    plan: str
    universe: str
    brand: str
    subsidiary: str
    name: str | None
    period: str
    state: str
    mode: str
    expires_at: datetime | None
    next_step: str | None
    next_step_at: datetime | None
    resource_id: str | None
    suspended_because: str | None


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service, and what becomes of it.

    Attributes:
        plan_name: as customers read it.
        expires_on: the subsidiary's local day on which it expires; None: it is not delivered.
        contract_to_accept: the version of its plan's contract that its customer has to accept.
        declined_charges: of its next renewal, so far.
        decision: what becomes of it at its expiry, if nobody changes anything.
        renewal: what its renewal costs, as of the day on which it is charged.
        renewal_problem: the code of why that cannot be said.
    """

    id: uuid.UUID
    customer: str
    order_key: str | None
    upstream: str | None
    plan: str
    plan_name: str
    universe: str
    brand: str
    subsidiary: str
    period: str
    state: str
    mode: str
    configuration: dict[str, str]
    resource_id: str | None
    details: dict[str, str] | None
    anchor: date | None
    paid_periods: int
    expires_on: date | None
    expires_at: datetime | None
    suspended_at: datetime | None
    suspended_by_operator: datetime | None
    suspended_because: str | None
    renewal_switched_on: datetime | None
    contract_to_accept: int | None
    declined_charges: int
    decision: Decision | None
    next: NextView
    renewal: QuoteView | None
    renewal_problem: str | None
    timeline: Sequence[Happening] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which services a list has; None: whichever.

    Attributes:
        held: only those that an operator has suspended.
        expires_from, expires_before: bounds of when they expire.
    """

    customer: str | None = None
    plan: str | None = None
    universe: Universe | None = None
    brand: str | None = None
    subsidiary: str | None = None
    state: ServiceState | None = None
    mode: RenewalMode | None = None
    held: bool = False
    expires_from: datetime | None = None
    expires_before: datetime | None = None


# The customer's few are found by their index, those an operator has suspended by another; else it
# goes through the services by their ids, a bounded part at a time.
_LIST_OF_CUSTOMER = text("""
    SELECT s.id, s.customer_id AS customer, s.plan, s.universe, s.brand, s.subsidiary,
           coalesce(s.configuration->>'domain', s.resource_id) AS name,
           'P' || s.period_months || 'M' AS period, s.state, s.mode, s.expires_at, s.next_step,
           s.next_step_at, s.resource_id, s.held_because
    FROM services AS s JOIN customers AS c ON c.id = s.customer_id
    WHERE s.customer_id = :customer AND (CAST(:after AS uuid) IS NULL OR s.id > :after)
      AND (CAST(:realm AS text) IS NULL OR c.realm = :realm)
      AND (CAST(:brands AS text[]) IS NULL OR s.brand = ANY(CAST(:brands AS text[])))
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR s.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:plan AS text) IS NULL OR s.plan = :plan)
      AND (CAST(:universe AS text) IS NULL OR s.universe = :universe)
      AND (CAST(:brand AS text) IS NULL OR s.brand = :brand)
      AND (CAST(:subsidiary AS text) IS NULL OR s.subsidiary = :subsidiary)
      AND (CAST(:state AS text) IS NULL OR s.state = :state)
      AND (CAST(:mode AS text) IS NULL OR s.mode = :mode)
      AND (NOT :held OR s.held_at IS NOT NULL)
      AND (CAST(:expires_from AS timestamptz) IS NULL OR s.expires_at >= :expires_from)
      AND (CAST(:expires_before AS timestamptz) IS NULL OR s.expires_at < :expires_before)
    ORDER BY s.id LIMIT :limit
""")
_LIST_HELD = text("""
    SELECT s.id, s.customer_id AS customer, s.plan, s.universe, s.brand, s.subsidiary,
           coalesce(s.configuration->>'domain', s.resource_id) AS name,
           'P' || s.period_months || 'M' AS period, s.state, s.mode, s.expires_at, s.next_step,
           s.next_step_at, s.resource_id, s.held_because
    FROM services AS s JOIN customers AS c ON c.id = s.customer_id
    WHERE s.held_at IS NOT NULL AND (CAST(:after AS uuid) IS NULL OR s.id > :after)
      AND (CAST(:realm AS text) IS NULL OR c.realm = :realm)
      AND (CAST(:brands AS text[]) IS NULL OR s.brand = ANY(CAST(:brands AS text[])))
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR s.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:plan AS text) IS NULL OR s.plan = :plan)
      AND (CAST(:universe AS text) IS NULL OR s.universe = :universe)
      AND (CAST(:brand AS text) IS NULL OR s.brand = :brand)
      AND (CAST(:subsidiary AS text) IS NULL OR s.subsidiary = :subsidiary)
      AND (CAST(:state AS text) IS NULL OR s.state = :state)
      AND (CAST(:mode AS text) IS NULL OR s.mode = :mode)
      AND (CAST(:expires_from AS timestamptz) IS NULL OR s.expires_at >= :expires_from)
      AND (CAST(:expires_before AS timestamptz) IS NULL OR s.expires_at < :expires_before)
    ORDER BY s.id LIMIT :limit
""")
_LIST = text("""
    WITH looked AS MATERIALIZED (
        SELECT * FROM services
        WHERE CAST(:after AS uuid) IS NULL OR id > :after ORDER BY id LIMIT :scanned
    ), fitting AS (
        SELECT s.id, s.customer_id AS customer, s.plan, s.universe, s.brand, s.subsidiary,
               coalesce(s.configuration->>'domain', s.resource_id) AS name,
               'P' || s.period_months || 'M' AS period, s.state, s.mode, s.expires_at, s.next_step,
               s.next_step_at, s.resource_id, s.held_because
        FROM looked AS s JOIN customers AS c ON c.id = s.customer_id
        WHERE (CAST(:realm AS text) IS NULL OR c.realm = :realm)
          AND (CAST(:brands AS text[]) IS NULL OR s.brand = ANY(CAST(:brands AS text[])))
          AND (CAST(:subsidiaries AS text[]) IS NULL
               OR s.subsidiary = ANY(CAST(:subsidiaries AS text[])))
          AND (CAST(:plan AS text) IS NULL OR s.plan = :plan)
          AND (CAST(:universe AS text) IS NULL OR s.universe = :universe)
          AND (CAST(:brand AS text) IS NULL OR s.brand = :brand)
          AND (CAST(:subsidiary AS text) IS NULL OR s.subsidiary = :subsidiary)
          AND (CAST(:state AS text) IS NULL OR s.state = :state)
          AND (CAST(:mode AS text) IS NULL OR s.mode = :mode)
          AND (CAST(:expires_from AS timestamptz) IS NULL OR s.expires_at >= :expires_from)
          AND (CAST(:expires_before AS timestamptz) IS NULL OR s.expires_at < :expires_before)
        ORDER BY s.id LIMIT :limit
    )
    SELECT (SELECT count(*) FROM looked) AS looked_at,
           (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last_looked_at, f.*
    FROM (SELECT) AS one LEFT JOIN fitting AS f ON true ORDER BY f.id
""")
_FACTS = text("""
    SELECT s.id, s.customer_id, s.plan, s.universe, s.brand, s.subsidiary, s.period_months,
           s.state, s.mode, s.configuration, s.resource_id, s.details, s.anchor, s.paid_periods,
           s.expires_at, s.suspended_at, s.held_at, s.held_because, o.key, o.upstream, c.country,
           c.vat_number, m.id AS method, m.expires_on AS method_expires_on
    FROM services AS s JOIN customers AS c ON c.id = s.customer_id
    LEFT JOIN orders AS o ON o.id = s.order_id
    LEFT JOIN payment_methods AS m ON m.id = s.payment_method_id
    WHERE s.id = ANY(:ids)
      AND (CAST(:realm AS text) IS NULL OR c.realm = :realm)
      AND (CAST(:brands AS text[]) IS NULL OR s.brand = ANY(CAST(:brands AS text[])))
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR s.subsidiary = ANY(CAST(:subsidiaries AS text[])))
    ORDER BY s.id
""")


def list_services(
    tx: Connection,
    wanted: Wanted,
    *,
    scope: Scope = EVERYTHING,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[ServiceRow]:
    """A part of the services that fit, in the order of their ids.

    Args:
        cursor: of the part before.

    Raises:
        CursorInvalid: it is none.
    """
    parameters = {
        "after": after(cursor),
        "limit": limit + 1,
        "scanned": SCANNED,
        **{n: v for n, v in scope.parameters.items() if n != "upstreams"},
        **{name: getattr(wanted, name) for name in Wanted.__dataclass_fields__},
    }
    if wanted.customer is None and not wanted.held:
        page = _scan(tx, parameters, limit)
    else:
        query = _LIST_OF_CUSTOMER if wanted.customer is not None else _LIST_HELD
        rows = tx.execute(query, parameters).all()
        page = _page([ServiceRow(*row) for row in rows], limit)
    if scope.realm is None:
        return page
    # The note of an operator is internal.
    return Page([replace(row, suspended_because=None) for row in page.items], page.next)


def _scan(tx: Connection, parameters: dict[str, Any], limit: int) -> Page[ServiceRow]:
    rows = tx.execute(_LIST, parameters).all()
    found = [ServiceRow(*row[2:]) for row in rows if row.id is not None]
    page = _page(found, limit)
    if page.next is None and rows[0].looked_at == SCANNED:
        return Page(page.items, cursor_of(rows[0].last_looked_at))
    return page


def _page(found: list[ServiceRow], limit: int) -> Page[ServiceRow]:
    shown = found[:limit]
    return Page(shown, cursor_of(shown[-1].id) if len(found) > limit else None)


@dataclass(frozen=True, slots=True)
class Known:
    """A service with all that a door needs to act on it.

    Attributes:
        renewable: None: it was never delivered.
    """

    facts: Any
    renewable: Renewable | None

    @property
    def is_alive(self) -> bool:
        """It is delivered and has not ended, nor is its end under way."""
        alive = self.facts.state in DELIVERED
        held = self.renewable
        return alive and held is not None and held.view.desired is not ResourceState.ABSENT

    @property
    def payer(self) -> Payer:
        return Payer(self.facts.country, self.facts.vat_number)

    @property
    def method(self) -> PaymentMethod | None:
        if self.facts.method is None:
            return None
        return PaymentMethod(self.facts.method, self.facts.method_expires_on)


def known(
    tx: Connection, ids: Sequence[uuid.UUID], catalogue: Catalogue, *, scope: Scope = EVERYTHING
) -> list[Known]:
    """Services that may be seen, in the order of their ids."""
    parameters = {n: v for n, v in scope.parameters.items() if n != "upstreams"}
    rows = tx.execute(_FACTS, {"ids": list(ids), **parameters}).all()
    seen = [row.id for row in rows]
    renewables: dict[uuid.UUID, Renewable] = {
        service.id: service for service in next_steps.load(tx, seen, catalogue, charges=True)
    }
    return [Known(row, renewables.get(row.id)) for row in rows]


def get(
    tx: Connection,
    id: uuid.UUID,
    catalogue: Catalogue,
    now: datetime,
    *,
    scope: Scope = EVERYTHING,
    timeline: bool = True,
) -> ServiceView | None:
    """A service with its next step and its price; None: there is none that may be seen."""
    found = known(tx, [id], catalogue, scope=scope)
    if not found:
        return None
    happened = timelines.of_service(tx, id, scope=scope) if timeline else ()
    view = view_of(found[0], catalogue, now, happened)
    return view if scope.realm is None else replace(view, suspended_because=None)


def quote(
    tx: Connection,
    id: uuid.UUID,
    catalogue: Catalogue,
    now: datetime,
    *,
    scope: Scope = EVERYTHING,
) -> QuoteView | None:
    """What renewing a service now costs; None: it may not be seen, was never delivered, or has no
    price any more.

    Raises:
        DataError: the tax table has no rate for its customer.
    """
    for one in known(tx, [id], catalogue, scope=scope):
        if one.renewable is not None:
            return quote_now(one.renewable, one.payer, now)
    return None


def view_of(
    one: Known, catalogue: Catalogue, now: datetime, timeline: Sequence[Happening] = ()
) -> ServiceView:
    """What is shown of a service that was read before."""
    row, held = one.facts, one.renewable
    plan = catalogue.find_plan(row.plan)
    renewal, problem = (None, "not_delivered")
    if held is not None and one.is_alive:
        renewal, problem = try_quote(held, one.payer, now)
    elif held is not None:
        problem = "ended"
    view = held.view if held is not None else None
    return ServiceView(
        id=row.id,
        customer=row.customer_id,
        order_key=row.key,
        upstream=row.upstream,
        plan=row.plan,
        plan_name=plan.name if plan is not None else row.plan,
        universe=row.universe,
        brand=row.brand,
        subsidiary=row.subsidiary,
        period=f"P{row.period_months}M",
        state=row.state,
        mode=row.mode,
        configuration=row.configuration,
        resource_id=row.resource_id,
        details=row.details,
        anchor=row.anchor,
        paid_periods=row.paid_periods,
        expires_on=view.expires_on if view is not None else None,
        expires_at=row.expires_at,
        suspended_at=row.suspended_at,
        suspended_by_operator=row.held_at,
        suspended_because=row.held_because,
        renewal_switched_on=view.starts_at if view is not None else None,
        contract_to_accept=view.missing_contract if view is not None else None,
        declined_charges=view.cycle.declines if view is not None else 0,
        decision=decision_of(held, one.method, now) if held is not None else None,
        next=next_of(held, now)
        if held is not None
        else next_before_delivery(ServiceState(row.state)),
        renewal=renewal,
        renewal_problem=problem or None,
        timeline=timeline,
    )
