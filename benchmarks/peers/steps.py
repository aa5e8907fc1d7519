"""The business steps, one order at a time; the peers differ only in how they queue them.

Each function is called in a transaction of its own and is safe to call again: a message that is
delivered twice changes nothing, and still returns what has to be queued next.
"""

import uuid
from datetime import date
from typing import Any

from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock, local_date, local_midnight
from schemas.tables import (
    agreements,
    charges,
    events,
    invoice_lines,
    invoice_series,
    invoices,
    operations,
    order_lines,
    orders,
    payment_methods,
    payment_requests,
    plans,
    request_lines,
    services,
)
from schemas.values import (
    ChargeState,
    Money,
    OperationState,
    OrderState,
    Period,
    RequestState,
    ResourceState,
    ServiceState,
    derived_id,
)
from workers.billing.charges.numbering import Number, series_code
from workers.billing.gateways.instant import InstantGateway
from workers.billing.gateways.port import Charge, GatewayState
from workers.orders.price import accepted_price
from workers.orders.pricing import Order, OrderLine, price
from workers.outside.calls import run_now
from workers.provisioning.drivers.instant import InstantDriver
from workers.provisioning.drivers.port import DriverState, Operation, OperationKind

# One of each per process, shared by its threads.
_catalogue = CatalogueCache()
_clock = SystemClock()
_gateway = InstantGateway()
_driver = InstantDriver()

# Statements are built once, not once per order.
_ORDER = select(orders).where(orders.c.id == bindparam("order_id")).with_for_update()
_ORDER_LINES = (
    select(order_lines)
    .where(order_lines.c.order_id == bindparam("order_id"))
    .order_by(order_lines.c.number)
)
_PRICED = update(orders).where(orders.c.id == bindparam("order_id")).values(state=OrderState.PRICED)
_REQUEST = (
    select(payment_requests, payment_methods.c.token)
    .join(payment_methods, payment_methods.c.id == payment_requests.c.payment_method_id)
    .where(payment_requests.c.id == bindparam("request_id"))
    .with_for_update(of=payment_requests)
)
_REQUEST_LINES = (
    select(request_lines)
    .where(request_lines.c.request_id == bindparam("request_id"))
    .order_by(request_lines.c.number)
)
_CHARGE = insert(charges).values(decided_at=func.now())
_REQUEST_PAID = (
    update(payment_requests)
    .where(payment_requests.c.id == bindparam("request_id"))
    .values(state=RequestState.PAID, closed_at=func.now())
)
_ORDER_PAID = (
    update(orders).where(orders.c.id == bindparam("order_id")).values(state=OrderState.PAID)
)
_SERVICES_PAID = (
    update(services)
    .where(services.c.id.in_(bindparam("service_ids", expanding=True)))
    .values(
        state=ServiceState.DELIVERING,
        desired=ResourceState.ACTIVE,
        paid_periods=services.c.paid_periods + 1,
        agreed_version=select(func.max(agreements.c.version))
        .join(plans, plans.c.contract == agreements.c.contract)
        .where(agreements.c.customer_id == services.c.customer_id, plans.c.code == services.c.plan)
        .scalar_subquery(),
    )
)
_COUNTER = (
    select(invoice_series).where(invoice_series.c.code == bindparam("series")).with_for_update()
)
_OPEN_SERIES = postgresql.insert(invoice_series).on_conflict_do_nothing()
_COUNT = (
    update(invoice_series)
    .where(invoice_series.c.code == bindparam("series"))
    .values(last_number=bindparam("number"), last_date=bindparam("day"))
)
# What the law asks for besides: each invoice is chained to the one before it in its series.
_HASH = text("""
    WITH hashed AS (
        SELECT s.code, sha256(s.last_hash || invoice_digest(s.code, :number, :issued_on, p.id,
            p.customer_id, p.subsidiary, p.country, p.vat_number, p.currency, p.tax_mention, p.net,
            p.tax, p.total, l.lines)) AS hash
        FROM payment_requests AS p
        JOIN invoice_series AS s ON s.code = :series
        CROSS JOIN LATERAL (
            SELECT json_agg(document_line(l.number, l.service_id, l.period_number, l.description,
                l.net, l.tax_rate, l.tax) ORDER BY l.number) AS lines
            FROM request_lines AS l WHERE l.request_id = p.id) AS l
        WHERE p.id = :request_id
    )
    UPDATE invoice_series AS s SET last_hash = h.hash FROM hashed AS h WHERE s.code = h.code
    RETURNING h.hash
""")
_SERVICE = select(services).where(services.c.id == bindparam("service_id")).with_for_update()
_OPERATION = insert(operations).values(ended_at=func.now())
_DELIVERED = (
    update(services)
    .where(services.c.id == bindparam("service_id"))
    .values(
        state=ServiceState.ACTIVE,
        confirmed=ResourceState.ACTIVE,
        anchor=bindparam("delivered_on"),
        expires_at=bindparam("expires"),
        confirmed_until=bindparam("until"),
        resource_id=bindparam("resource"),
    )
)
_OPEN_SERVICES = (
    select(func.count())
    .select_from(services)
    .where(services.c.order_id == bindparam("order_id"), services.c.state != ServiceState.ACTIVE)
)
_ORDER_DELIVERED = (
    update(orders)
    .where(orders.c.id == bindparam("order_id"))
    .values(state=OrderState.DELIVERED, ended_at=func.now())
)


class StepFailed(Exception):
    """The gateway or the driver did not do as it was asked; here neither ever does that."""


def price_order(session: Session, order_id: uuid.UUID) -> uuid.UUID:
    """Give an accepted order its services and its payment request; returns the request's id."""
    row = session.execute(_ORDER, {"order_id": order_id}).one()
    if row.state != OrderState.ACCEPTED:
        return derived_id("request", order_id)
    lines = session.execute(_ORDER_LINES, {"order_id": order_id}).all()
    catalogue = _catalogue.current(session.connection())
    order = Order(
        id=row.id,
        customer_id=row.customer_id,
        subsidiary=row.subsidiary,
        country=row.country,
        vat_number=row.vat_number,
        payment_method_id=row.payment_method_id,
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
    priced = price(order, catalogue, _today(catalogue, order.subsidiary))
    session.execute(
        insert(services),
        [
            {
                "id": service.id,
                "order_id": order.id,
                "line": service.line.number,
                "unit": service.unit,
                "customer_id": order.customer_id,
                "subsidiary": order.subsidiary,
                "plan": service.plan.code,
                "universe": service.plan.universe,
                "brand": service.plan.brand,
                "driver": service.plan.driver,
                "configuration": service.line.configuration,
                "period_months": service.line.period.months,
                "payment_method_id": order.payment_method_id,
            }
            for service in priced.services
        ],
    )
    session.execute(
        insert(payment_requests),
        {
            "id": priced.request_id,
            "order_id": order.id,
            "payment_method_id": order.payment_method_id,
            "customer_id": order.customer_id,
            "subsidiary": order.subsidiary,
            "country": order.country,
            "vat_number": order.vat_number,
            "currency": priced.currency,
            "tax_mention": priced.treatment.mention,
            "net": priced.net,
            "tax": priced.tax,
            "total": priced.net + priced.tax,
        },
    )
    session.execute(
        insert(request_lines),
        [
            {
                "request_id": priced.request_id,
                "number": number,
                "service_id": line.service_id,
                "period_number": line.period_number,
                "description": line.description,
                "net": line.net,
                "tax_rate": priced.treatment.rate,
                "tax": line.tax,
            }
            for number, line in enumerate(priced.lines, 1)
        ],
    )
    session.execute(_PRICED, {"order_id": order_id})
    detail = {
        "total": str(Money(priced.net + priced.tax, priced.currency)),
        "tax": str(Money(priced.tax, priced.currency)),
        "services": len(priced.services),
    }
    _record(session, _event(order.id, "order.priced", "price", detail))
    return priced.request_id


def charge_order(session: Session, request_id: uuid.UUID) -> list[uuid.UUID]:
    """Take the money of a payment request and issue its invoice; returns what to provision."""
    request = session.execute(_REQUEST, {"request_id": request_id}).one()
    lines = session.execute(_REQUEST_LINES, {"request_id": request_id}).all()
    paid = [line.service_id for line in lines if line.period_number > 0]
    if request.state != RequestState.OPEN:
        return paid
    amount = Money(request.total, request.currency)
    key = derived_id("charge", request_id, amount, 1)
    charge = Charge(str(key), amount, request.token, request.customer_id)
    answer = run_now(_gateway.perform(charge))
    if answer.state is not GatewayState.SUCCEEDED:
        raise StepFailed(f"charge {key}: {answer.state}")
    session.execute(
        _CHARGE,
        {
            "key": key,
            "request_id": request_id,
            "attempt": 1,
            "amount": amount.amount,
            "currency": amount.currency,
            "state": ChargeState.SUCCEEDED,
            "reference": answer.reference,
        },
    )
    session.execute(_REQUEST_PAID, {"request_id": request_id})
    session.execute(_ORDER_PAID, {"order_id": request.order_id})
    session.execute(_SERVICES_PAID, {"service_ids": paid})
    number = _issue_invoice(session, request, lines)
    detail = {"amount": str(amount), "charge": 1, "invoice": str(number)}
    _record(session, _event(request.order_id, "order.paid", "charge", detail))
    return paid


def provision_service(session: Session, service_id: uuid.UUID) -> None:
    """Deliver a paid service; whoever delivers the last one ends the order."""
    service = session.execute(_SERVICE, {"service_id": service_id}).one()
    if service.state != ServiceState.DELIVERING:
        return
    timezone = _catalogue.current(session.connection()).subsidiary(service.subsidiary).timezone
    anchor = local_date(_clock.now(), timezone)
    until = Period(service.period_months).end(anchor, service.paid_periods)
    kind = OperationKind.CREATE
    key = derived_id("operation", service.id, service.generation, kind, until)
    operation = Operation(
        kind=kind,
        key=str(key),
        generation=service.generation,
        service_id=service.id,
        customer=service.customer_id,
        plan=service.plan,
        configuration=service.configuration,
        paid_until=until,
    )
    answer = run_now(_driver.perform(operation))
    if answer.state is not DriverState.DONE or answer.resource is None:
        raise StepFailed(f"operation {key}: {answer.state}")
    session.execute(
        _OPERATION,
        {
            "key": key,
            "service_id": service.id,
            "kind": kind,
            "generation": service.generation,
            "state": OperationState.DONE,
            "paid_until": until,
        },
    )
    session.execute(
        _DELIVERED,
        {
            "service_id": service.id,
            "delivered_on": anchor,
            "expires": local_midnight(until, timezone),
            "until": until,
            "resource": answer.resource.resource_id,
        },
    )
    detail = {"resource": answer.resource.resource_id, "paid_until": until.isoformat()}
    happened = [
        _event(service.id, "operation.done", "converge", {"operation": kind}),
        _event(service.id, "service.delivered", "converge", detail),
    ]
    if _end_order(session, service.order_id):
        happened.append(_event(service.order_id, "order.delivered", "converge"))
    _record(session, *happened)


def _end_order(session: Session, order_id: uuid.UUID) -> bool:
    # Locks the whole before it counts what is left: two that complete the last two parts at
    # once see each other.
    session.execute(_ORDER, {"order_id": order_id})
    if session.execute(_OPEN_SERVICES, {"order_id": order_id}).scalar_one():
        return False
    session.execute(_ORDER_DELIVERED, {"order_id": order_id})
    return True


def _issue_invoice(session: Session, request: Any, lines: Any) -> Number:
    catalogue = _catalogue.current(session.connection())
    number = _next_number(session, request.subsidiary, _today(catalogue, request.subsidiary))
    invoice_id = derived_id("invoice", request.id)
    named = {"series": number.series, "number": number.number, "issued_on": number.issued_on}
    digest = session.execute(_HASH, named | {"request_id": request.id}).scalar_one()
    session.execute(
        insert(invoices),
        {
            "id": invoice_id,
            "hash": digest,
            "series": number.series,
            "number": number.number,
            "issued_on": number.issued_on,
            "request_id": request.id,
            "customer_id": request.customer_id,
            "subsidiary": request.subsidiary,
            "country": request.country,
            "vat_number": request.vat_number,
            "currency": request.currency,
            "tax_mention": request.tax_mention,
            "net": request.net,
            "tax": request.tax,
            "total": request.total,
        },
    )
    session.execute(
        insert(invoice_lines),
        [
            {
                "invoice_id": invoice_id,
                "number": line.number,
                "service_id": line.service_id,
                "period_number": line.period_number,
                "description": line.description,
                "net": line.net,
                "tax_rate": line.tax_rate,
                "tax": line.tax,
            }
            for line in lines
        ],
    )
    return number


def _next_number(session: Session, subsidiary: str, today: date) -> Number:
    """The next number of a series. Its counter stays locked until the transaction ends: that is
    what leaves no gap when one is rolled back."""
    code = series_code(subsidiary, today)
    counter = session.execute(_COUNTER, {"series": code}).one_or_none()
    if counter is None:
        session.execute(
            _OPEN_SERIES.values(
                code=code, last_number=0, last_date=today, last_hash=func.chain_start(code)
            )
        )
        counter = session.execute(_COUNTER, {"series": code}).one()
    number = Number(code, counter.last_number + 1, max(counter.last_date, today))
    session.execute(_COUNT, {"series": code, "number": number.number, "day": number.issued_on})
    return number


def _today(catalogue: Catalogue, subsidiary: str) -> date:
    return local_date(_clock.now(), catalogue.subsidiary(subsidiary).timezone)


def _event(
    subject: uuid.UUID, name: str, task: str, detail: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"subject": subject, "name": name, "task": task, "detail": detail}


def _record(session: Session, *happened: dict[str, Any]) -> None:
    session.execute(insert(events), list(happened))
