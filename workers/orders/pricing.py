"""What an order costs: setup and first period of every service, and the tax of that day."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from schemas.catalogue import Catalogue, Plan
from schemas.catalogue.models import Price
from schemas.errors import DataError
from schemas.rules import tax
from schemas.values import CustomerId, OrderId, Period, RequestId, ServiceId, derived_id


@dataclass(frozen=True, slots=True)
class OrderLine:
    """
    Attributes:
        price: of each unit, as it was accepted; None: the release before accepted it.
    """

    number: int
    plan: str
    period: Period
    quantity: int
    configuration: dict[str, Any]
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Order:
    id: OrderId
    customer_id: CustomerId
    subsidiary: str
    country: str
    vat_number: str | None
    payment_method_id: uuid.UUID | None
    lines: Sequence[OrderLine]


@dataclass(frozen=True, slots=True)
class PricedLine:
    """One line of a payment request: a setup fee (period 0) or a period of one service."""

    service_id: ServiceId
    period_number: int
    description: str
    net: int
    tax: int


@dataclass(frozen=True, slots=True)
class NewService:
    id: ServiceId
    line: OrderLine
    unit: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class PricedOrder:
    """
    Attributes:
        stands_until: from when on its tax may be another one; None: no such day is known.
    """

    order: Order
    request_id: RequestId
    currency: str
    treatment: tax.Treatment
    services: list[NewService]
    lines: list[PricedLine]
    stands_until: datetime | None

    @property
    def net(self) -> int:
        return sum(line.net for line in self.lines)

    @property
    def tax(self) -> int:
        return sum(line.tax for line in self.lines)


def price(order: Order, catalogue: Catalogue, today: date) -> PricedOrder:
    """Price an accepted order, at the prices that it was accepted at.

    A line of quantity n becomes n services, each with its own request lines, so that each can be
    delivered, cancelled and refunded alone. Tax is rounded once, for the whole (EN 16931).

    Raises:
        DataError: the catalogue no longer sells a line that has no price of its own, or the tax
            table has no rate for it.
    """
    subsidiary = catalogue.subsidiary(order.subsidiary)
    treatment = tax.determine(
        subsidiary=subsidiary,
        customer_country=order.country,
        vat_number=order.vat_number,
        on=today,
    )
    services: list[NewService] = []
    due: list[tuple[ServiceId, int, str, int]] = []
    currency = subsidiary.currency
    for line in order.lines:
        plan, offered = _offer(order, line, catalogue)
        currency = offered.renewal.currency
        fees = [(1, f"{plan.name}, {line.period}", offered.renewal.amount)]
        if offered.setup.amount:
            fees.insert(0, (0, f"{plan.name}, setup", offered.setup.amount))
        for unit in range(1, line.quantity + 1):
            service = NewService(
                ServiceId(derived_id(order.id, line.number, unit)), line, unit, plan
            )
            services.append(service)
            due += [(service.id, *fee) for fee in fees]
    taxes = tax.spread([net for *_, net in due], treatment.rate)
    return PricedOrder(
        order=order,
        request_id=RequestId(derived_id("request", order.id)),
        currency=currency,
        treatment=treatment,
        services=services,
        lines=[PricedLine(*fee, part) for fee, part in zip(due, taxes, strict=True)],
        stands_until=treatment.changes_at(subsidiary.timezone),
    )


def _offer(order: Order, line: OrderLine, catalogue: Catalogue) -> tuple[Plan, Price]:
    """The plan of a line, and what each unit of it costs."""
    if line.price is not None:
        return catalogue.known_plan(line.plan), line.price
    plan = catalogue.plan(line.plan)
    price = plan.price(order.subsidiary, line.period) if plan else None
    if plan is None or price is None:
        raise DataError(
            f"line {line.number}: {line.plan} is not sold in {order.subsidiary}"
            f" for {line.period} any more",
            code="plan_gone",
        )
    return plan, price
