"""The task ``price``: an accepted order gets its services and its payment request."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import by_task
from producers.ledger import Claim, Outcome
from producers.steps import CHARGE, GATEWAY, PRICE
from schemas.catalogue.models import Price
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date
from schemas.tables import services
from schemas.tables.bulk import insert
from schemas.values import CustomerId, Money, OrderId, Period, ServiceId, Universe
from workers.billing.payment_requests import store
from workers.billing.payment_requests.store import LineRow, RequestRow
from workers.orders.pricing import Order, OrderLine, PricedOrder, price

_READ = text("""
    SELECT o.id, o.customer_id, o.subsidiary, o.country, o.vat_number, o.payment_method_id,
           l.number, l.plan, l.period_months, l.quantity, l.configuration,
           l.setup, l.renewal, l.currency
    FROM (
        SELECT id, customer_id, subsidiary, country, vat_number, payment_method_id
        FROM orders WHERE id = ANY(:ids) AND state = 'accepted'
        ORDER BY id FOR NO KEY UPDATE
    ) AS o
    JOIN order_lines AS l ON l.order_id = o.id
    ORDER BY o.id, l.number
""")


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service that is not delivered yet."""

    id: ServiceId
    order_id: OrderId
    line: int
    unit: int
    customer_id: CustomerId
    subsidiary: str
    plan: str
    universe: Universe
    brand: str
    driver: str
    configuration: dict[str, Any]
    period_months: int
    payment_method_id: uuid.UUID | None


_insert_services = insert(ServiceRow, services)

_PRICED = text("UPDATE orders SET state = 'priced' WHERE id = ANY(:ids)")


class PriceHandler:
    name = PRICE

    def __init__(self, catalogue: CatalogueCache, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        """Price every order that is still to be priced; the others were, long ago."""
        catalogue = self._catalogue.current(tx)
        now = self._clock.now()
        priced = [
            price(
                order, catalogue, local_date(now, catalogue.subsidiary(order.subsidiary).timezone)
            )
            for order in _read(tx, claim)
        ]
        if priced:
            _write(tx, priced)
            tasks = {task.subject: task for task in claim.tasks}
            history.record(
                tx,
                (
                    by_task(
                        tasks[p.order.id],
                        PRICE,
                        p.order.id,
                        "order.priced",
                        {
                            "total": str(Money(p.net + p.tax, p.currency)),
                            "tax": str(Money(p.tax, p.currency)),
                            "services": len(p.services),
                        },
                    )
                    for p in priced
                ),
            )
            ledger.enqueue(tx, CHARGE, [(p.request_id, GATEWAY) for p in priced])
        return Outcome(done=claim.subjects)


def _read(tx: Connection, claim: Claim) -> list[Order]:
    rows = tx.execute(_READ, {"ids": claim.subjects}).all()
    read = []
    for _, group in groupby(rows, key=lambda row: row.id):
        lines = list(group)
        first = lines[0]
        read.append(
            Order(
                id=first.id,
                customer_id=first.customer_id,
                subsidiary=first.subsidiary,
                country=first.country,
                vat_number=first.vat_number,
                payment_method_id=first.payment_method_id,
                lines=[
                    OrderLine(
                        number=line.number,
                        plan=line.plan,
                        period=Period(line.period_months),
                        quantity=line.quantity,
                        configuration=line.configuration,
                        price=accepted_price(line),
                    )
                    for line in lines
                ],
            )
        )
    return read


def accepted_price(line: Any) -> Price | None:
    """Of each unit of a row of ``order_lines``; None: the release before accepted it."""
    if line.currency is None:
        return None
    return Price(Money(line.setup, line.currency), Money(line.renewal, line.currency))


def _write(tx: Connection, priced: list[PricedOrder]) -> None:
    _insert_services(tx, [row for p in priced for row in _services(p)])
    store.open_requests(tx, map(_request, priced), [row for p in priced for row in _lines(p)])
    tx.execute(_PRICED, {"ids": [p.order.id for p in priced]})


def _services(priced: PricedOrder) -> Iterator[ServiceRow]:
    order = priced.order
    for service in priced.services:
        yield ServiceRow(
            id=service.id,
            order_id=order.id,
            line=service.line.number,
            unit=service.unit,
            customer_id=order.customer_id,
            subsidiary=order.subsidiary,
            plan=service.plan.code,
            universe=service.plan.universe,
            brand=service.plan.brand,
            driver=service.plan.driver,
            configuration=service.line.configuration,
            period_months=service.line.period.months,
            payment_method_id=order.payment_method_id,
        )


def _request(priced: PricedOrder) -> RequestRow:
    order, net, tax = priced.order, priced.net, priced.tax
    return RequestRow(
        id=priced.request_id,
        order_id=order.id,
        payment_method_id=order.payment_method_id,
        customer_id=order.customer_id,
        subsidiary=order.subsidiary,
        country=order.country,
        vat_number=order.vat_number,
        currency=priced.currency,
        tax_mention=priced.treatment.mention,
        net=Money(net, priced.currency),
        tax=Money(tax, priced.currency),
        total=Money(net + tax, priced.currency),
        stands_until=priced.stands_until,
    )


def _lines(priced: PricedOrder) -> Iterator[LineRow]:
    for number, line in enumerate(priced.lines, 1):
        yield LineRow(
            request_id=priced.request_id,
            number=number,
            service_id=line.service_id,
            period_number=line.period_number,
            description=line.description,
            net=line.net,
            tax_rate=priced.treatment.rate,
            tax=line.tax,
        )
