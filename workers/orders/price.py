"""The task ``price``: an accepted order gets its services and its payment request."""

import json
from itertools import groupby

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import by_task
from producers.ledger import Claim, Outcome
from producers.steps import CHARGE, GATEWAY, PRICE
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date
from schemas.tables import payment_requests, request_lines, rows_from_json, services
from schemas.values import Money, Period
from workers.orders.pricing import Order, OrderLine, PricedOrder, price

_READ = text("""
    SELECT o.id, o.customer_id, o.subsidiary, o.country, o.vat_number, o.payment_method_id,
           l.number, l.plan, l.period_months, l.quantity, l.configuration
    FROM (
        SELECT * FROM orders WHERE id = ANY(:ids) AND state = 'accepted'
        ORDER BY id FOR NO KEY UPDATE
    ) AS o
    JOIN order_lines AS l ON l.order_id = o.id
    ORDER BY o.id, l.number
""")

_SERVICE = (
    "id", "order_id", "line", "unit", "customer_id", "subsidiary", "plan", "universe", "brand",
    "driver", "configuration", "period_months", "payment_method_id",
)  # fmt: skip
_REQUEST = (
    "id", "order_id", "payment_method_id", "customer_id", "subsidiary", "country", "vat_number",
    "currency", "tax_mention", "net", "tax", "total",
)  # fmt: skip
_LINE = (
    "request_id", "number", "service_id", "period_number", "description", "net", "tax_rate", "tax",
)  # fmt: skip

_WRITE = [
    text(
        f"INSERT INTO {table.name} ({', '.join(columns)})"
        f" SELECT * FROM {rows_from_json(table, *columns)}"
    )
    for table, columns in (
        (services, _SERVICE),
        (payment_requests, _REQUEST),
        (request_lines, _LINE),
    )
]

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
    rows = tx.execute(_READ, {"ids": claim.subjects})
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
                    )
                    for line in lines
                ],
            )
        )
    return read


def _write(tx: Connection, priced: list[PricedOrder]) -> None:
    service_rows, request_rows, line_rows = [], [], []
    for p in priced:
        order = p.order
        order_id, request_id = str(order.id), str(p.request_id)
        service_rows += [
            {
                "id": str(s.id),
                "order_id": order_id,
                "line": s.line.number,
                "unit": s.unit,
                "customer_id": order.customer_id,
                "subsidiary": order.subsidiary,
                "plan": s.plan.code,
                "universe": s.plan.universe,
                "brand": s.plan.brand,
                "driver": s.plan.driver,
                "configuration": s.line.configuration,
                "period_months": s.line.period.months,
                "payment_method_id": str(order.payment_method_id),
            }
            for s in p.services
        ]
        request_rows.append(
            {
                "id": request_id,
                "order_id": order_id,
                "payment_method_id": str(order.payment_method_id),
                "customer_id": order.customer_id,
                "subsidiary": order.subsidiary,
                "country": order.country,
                "vat_number": order.vat_number,
                "currency": p.currency,
                "tax_mention": p.treatment.mention,
                "net": p.net,
                "tax": p.tax,
                "total": p.net + p.tax,
            }
        )
        rate = str(p.treatment.rate)
        line_rows += [
            {
                "request_id": request_id,
                "number": number,
                "service_id": str(line.service_id),
                "period_number": line.period_number,
                "description": line.description,
                "net": line.net,
                "tax_rate": rate,
                "tax": line.tax,
            }
            for number, line in enumerate(p.lines, 1)
        ]
    for statement, rows in zip(_WRITE, (service_rows, request_rows, line_rows), strict=True):
        tx.execute(statement, {"rows": json.dumps(rows)})
    tx.execute(_PRICED, {"ids": [p.order.id for p in priced]})
