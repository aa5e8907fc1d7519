"""An order with its lines, its services, what is paid for it, and its timeline."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from producers.views import timelines
from producers.views.documents import number_of
from producers.views.scope import EVERYTHING, Scope
from producers.views.timelines import Happening
from schemas.errors import AutorenewError
from schemas.json_bodies import Problem
from schemas.values import Money, OrderState

__all__ = ["ENDED", "OrderRow", "OrderView", "SeveralOrders", "find", "get", "list_of_customer"]

ENDED = frozenset(
    {
        OrderState.REFUSED,
        OrderState.DELIVERED,
        OrderState.PARTLY_DELIVERED,
        OrderState.CANCELLED,
    }
)
"""An order in one of these changes no more."""


class SeveralOrders(AutorenewError):
    """Several upstreams use a key."""

    code = "several_orders"


@dataclass(frozen=True, slots=True)
class LineView:
    """What was ordered.

    Attributes:
        setup, renewal: net of each unit, as it was accepted; None: the order is older than that.
    """

    number: int
    plan: str
    period: str
    quantity: int
    configuration: dict[str, str]
    setup: Money | None
    renewal: Money | None


@dataclass(frozen=True, slots=True)
class OrderedService:
    """A service of an order; ``details`` is what its driver says of it, such as an address."""

    id: uuid.UUID
    line: int
    unit: int
    plan: str
    state: str
    resource_id: str | None
    details: dict[str, str] | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class PaymentView:
    """What is asked for an order.

    Attributes:
        invoice: its number, once it is paid.
        charges: each attempt to take the money.
    """

    state: str
    net: Money
    tax: Money
    total: Money
    tax_mention: str
    invoice: str | None
    charges: Sequence["ChargeView"]


@dataclass(frozen=True, slots=True)
class ChargeView:
    """One attempt to take money; ``reason`` is why it was declined."""

    attempt: int
    state: str
    amount: Money
    reason: str | None
    started_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order as lists show it."""

    id: uuid.UUID
    upstream: str
    key: str
    state: OrderState
    reason: str | None
    customer: str | None
    subsidiary: str | None
    accepted_at: datetime
    ended_at: datetime | None

    @property
    def is_ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class OrderView:
    """An order and what became of it.

    Attributes:
        reason: why it was cancelled.
        problems: why it was refused.
        payment: None: it is not priced yet, or was refused.
    """

    id: uuid.UUID
    upstream: str
    key: str
    state: OrderState
    is_ended: bool
    reason: str | None
    customer: str | None
    subsidiary: str | None
    accepted_at: datetime
    ended_at: datetime | None
    problems: Sequence[Problem] = ()
    lines: Sequence[LineView] = ()
    services: Sequence[OrderedService] = ()
    payment: PaymentView | None = None
    timeline: Sequence[Happening] = field(default=())


# For the command line too, which may be the role api: no column that this role may not read.
_FIND = text("""
    SELECT id, upstream, key, state, reason, problems FROM orders
    WHERE key = CAST(:key AS text)
      AND (CAST(:upstream AS text) IS NULL OR upstream = CAST(:upstream AS text))
      AND (CAST(:upstreams AS text[]) IS NULL OR upstream = ANY(CAST(:upstreams AS text[])))
    ORDER BY upstream LIMIT 10
""")
_GET = text("""
    SELECT o.id, o.upstream, o.key, o.state, o.reason, o.customer_id AS customer, o.subsidiary,
           o.accepted_at, o.ended_at, o.problems
    FROM orders AS o
    WHERE o.id = :id
      AND (CAST(:upstreams AS text[]) IS NULL OR o.upstream = ANY(CAST(:upstreams AS text[])))
      AND (CAST(:subsidiaries AS text[]) IS NULL OR o.state = 'refused'
           OR o.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM order_lines AS l JOIN plans AS p ON p.code = l.plan
          WHERE l.order_id = o.id AND p.brand <> ALL(CAST(:brands AS text[]))))
""")
_LINES = text("""
    SELECT number, plan, period_months, quantity, configuration, setup, renewal, currency
    FROM order_lines WHERE order_id = :id ORDER BY number
""")
_SERVICES = text("""
    SELECT id, line, unit, plan, state, resource_id, details, expires_at
    FROM services WHERE order_id = :id ORDER BY line, unit
""")
_PAYMENT = text("""
    SELECT r.id, r.state, r.net, r.tax, r.total, r.currency, r.tax_mention, i.series,
           i.number AS invoice
    FROM payment_requests AS r LEFT JOIN invoices AS i ON i.request_id = r.id
    WHERE r.order_id = :id
""")
_CHARGES = text("""
    SELECT attempt, state, amount, currency, reason, started_at, decided_at
    FROM charges WHERE request_id = :id ORDER BY attempt LIMIT 100
""")
_OF_CUSTOMER = text("""
    SELECT o.id, o.upstream, o.key, o.state, o.reason, o.customer_id AS customer, o.subsidiary,
           o.accepted_at, o.ended_at
    FROM orders AS o
    WHERE o.customer_id = :customer
      AND (CAST(:upstreams AS text[]) IS NULL OR o.upstream = ANY(CAST(:upstreams AS text[])))
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR o.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM order_lines AS l JOIN plans AS p ON p.code = l.plan
          WHERE l.order_id = o.id AND p.brand <> ALL(CAST(:brands AS text[]))))
    ORDER BY o.accepted_at DESC, o.id LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class Found:
    """An order found by its key."""

    id: uuid.UUID
    upstream: str
    key: str
    state: str
    reason: str | None
    problems: Sequence[Problem]


def find(
    tx: Connection, key: str, *, upstream: str | None = None, scope: Scope = EVERYTHING
) -> Found | None:
    """The order with a key; None: there is none that may be seen.

    Args:
        upstream: needed where several upstreams use the same key.

    Raises:
        SeveralOrders: several do, and it was not said which.
    """
    parameters = {"key": key, "upstream": upstream, "upstreams": scope.parameters["upstreams"]}
    rows = tx.execute(_FIND, parameters).all()
    if len(rows) > 1:
        names = ", ".join(row.upstream for row in rows)
        raise SeveralOrders(f"several upstreams use key {key!r} ({names})")
    if not rows:
        return None
    row = rows[0]
    return Found(row.id, row.upstream, row.key, row.state, row.reason, _problems(row.problems))


def get(
    tx: Connection, id: uuid.UUID, *, scope: Scope = EVERYTHING, timeline: bool = True
) -> OrderView | None:
    """An order with all that belongs to it; None: there is none that may be seen.

    Args:
        timeline: False: leave it out.
    """
    row = tx.execute(_GET, {"id": id, **_of(scope)}).first()
    if row is None:
        return None
    return OrderView(
        id=row.id,
        upstream=row.upstream,
        key=row.key,
        state=OrderState(row.state),
        is_ended=row.state in ENDED,
        reason=row.reason,
        customer=row.customer,
        subsidiary=row.subsidiary,
        accepted_at=row.accepted_at,
        ended_at=row.ended_at,
        problems=_problems(row.problems),
        lines=[_line(line) for line in tx.execute(_LINES, {"id": id})],
        services=[OrderedService(*service) for service in tx.execute(_SERVICES, {"id": id})],
        payment=_payment(tx, id),
        timeline=timelines.of_order(tx, id, scope=scope) if timeline else (),
    )


def list_of_customer(
    tx: Connection, customer: str, *, scope: Scope = EVERYTHING, limit: int = 50
) -> list[OrderRow]:
    """A customer's orders, the newest first."""
    parameters = {"customer": customer, "limit": limit, **_of(scope)}
    return [
        OrderRow(r.id, r.upstream, r.key, OrderState(r.state), *r[4:])
        for r in tx.execute(_OF_CUSTOMER, parameters)
    ]


def _of(scope: Scope) -> dict[str, Any]:
    return {n: v for n, v in scope.parameters.items() if n != "realm"}


def _problems(stored: Sequence[dict[str, Any]] | None) -> list[Problem]:
    return [Problem(**problem) for problem in stored or ()]


def _line(row: Any) -> LineView:
    return LineView(
        number=row.number,
        plan=row.plan,
        period=f"P{row.period_months}M",
        quantity=row.quantity,
        configuration=row.configuration,
        setup=None if row.setup is None else Money(row.setup, row.currency),
        renewal=None if row.renewal is None else Money(row.renewal, row.currency),
    )


def _payment(tx: Connection, order: uuid.UUID) -> PaymentView | None:
    row = tx.execute(_PAYMENT, {"id": order}).first()
    if row is None:
        return None
    return PaymentView(
        state=row.state,
        net=Money(row.net, row.currency),
        tax=Money(row.tax, row.currency),
        total=Money(row.total, row.currency),
        tax_mention=row.tax_mention,
        invoice=None if row.series is None else number_of(row.series, row.invoice),
        charges=[
            ChargeView(
                c.attempt, c.state, Money(c.amount, c.currency), c.reason, c.started_at,
                c.decided_at,
            )
            for c in tx.execute(_CHARGES, {"id": row.id})
        ],
    )  # fmt: skip
