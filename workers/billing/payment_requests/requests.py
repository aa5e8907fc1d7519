"""Payment requests of renewals: made of the services that are paid together, and taken apart.

Whoever changes a request locks it first, then the services on it, each in order.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from schemas.catalogue import Catalogue
from schemas.clock import local_date
from schemas.errors import DataError
from schemas.rules import tax
from schemas.tables import payment_requests, renewals, request_lines, rows_from_json
from schemas.tables.bulk import rows_as_json
from schemas.values import derived_id


@dataclass(frozen=True, slots=True)
class Customer:
    """What of a customer decides about tax."""

    id: str
    country: str
    vat_number: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """One period of one service."""

    service_id: uuid.UUID
    period_number: int
    description: str
    net: int
    tax_rate: str
    tax: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A payment request to be: its lines, and who is to pay them."""

    id: uuid.UUID
    payment_method_id: uuid.UUID | None
    customer: Customer
    subsidiary: str
    currency: str
    mention: str
    lines: Sequence[Line]
    services: Sequence[Renewable]


_REQUESTS = text("""
    SELECT r.request_id FROM services AS s
    JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
    WHERE s.id = ANY(:ids) AND r.request_id IS NOT NULL
""")
_LOCK = text("""
    SELECT id FROM payment_requests WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
""")
_BESIDE = text("""
    SELECT DISTINCT service_id FROM request_lines
    WHERE request_id = ANY(:ids) AND released_at IS NULL
""")


def lock(
    tx: Connection, ids: Collection[uuid.UUID], catalogue: Catalogue
) -> dict[uuid.UUID, Renewable]:
    """Hold services, the open requests they are on, and what else is on those; read them all."""
    found = set(tx.execute(_REQUESTS, {"ids": list(ids)}).scalars())
    locked: set[uuid.UUID] = set()
    everybody = set(ids)
    while True:
        if found - locked:
            tx.execute(_LOCK, {"ids": list(found - locked)})
            locked |= found
            everybody |= set(tx.execute(_BESIDE, {"ids": list(locked)}).scalars())
        next_steps.lock(tx, everybody)
        services = next_steps.load(tx, everybody, catalogue, charges=True)
        found = {s.request_id for s in services if s.request_id is not None}
        if found <= locked:  # else one was put on another request before it was held
            return {service.id: service for service in services}


_ON = text("""
    SELECT request_id, service_id FROM request_lines
    WHERE request_id = ANY(:ids) AND released_at IS NULL
    ORDER BY request_id, number
""")


def periods_on(
    tx: Connection, request_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, Counter[uuid.UUID]]:
    """Request -> service -> its periods on it."""
    on: dict[uuid.UUID, Counter[uuid.UUID]] = {i: Counter() for i in request_ids}
    for row in tx.execute(_ON, {"ids": list(request_ids)}):
        on[row.request_id][row.service_id] += 1
    return on


_CUSTOMERS = text("SELECT id, country, vat_number FROM customers WHERE id = ANY(:ids)")


def customers(tx: Connection, services: Iterable[Renewable]) -> dict[str, Customer]:
    ids = sorted({service.customer_id for service in services})
    rows = tx.execute(_CUSTOMERS, {"ids": ids})
    return {row.id: Customer(row.id, row.country, row.vat_number) for row in rows}


def draft(services: Sequence[Renewable], customer: Customer, now: datetime) -> Draft:
    """Ask for the renewal of services of one customer, subsidiary and payment method.

    Each is renewed from its old expiry on, for as many periods as it takes to reach the future.
    Tax is that of today, rounded per line.

    Raises:
        DataError: one has no price any more, or the tax table has no rate.
    """
    first = services[0]
    treatment = tax.determine(
        subsidiary=first.subsidiary,
        customer_country=customer.country,
        vat_number=customer.vat_number,
        on=local_date(now, first.subsidiary.timezone),
    )
    lines = []
    for service in services:
        net = service.price
        if net is None:
            code = service.subsidiary.code
            raise DataError(
                f"{service.plan.code} has no price in {code} for {service.period}",
                code="price_gone",
            )
        due = tax.tax_on(net, treatment.rate)
        description = f"{service.plan.name}, {service.period}"
        for number in range(1, service.periods_to_reach(now) + 1):
            period = service.paid_periods + number
            lines.append(
                Line(service.id, period, description, net, str(treatment.rate), due)
            )  # fmt: skip
    return Draft(
        id=_id(services),
        payment_method_id=first.payment_method_id,
        customer=customer,
        subsidiary=first.subsidiary.code,
        currency=first.subsidiary.currency,
        mention=treatment.mention,
        lines=lines,
        services=services,
    )


def _id(services: Sequence[Renewable]) -> uuid.UUID:
    """From business facts alone: a restored database asks for the same under the same name."""
    facts = sorted(f"{s.id}:{s.paid_periods}:{s.requests}" for s in services)
    return derived_id("renewal request", *facts)


_REQUEST = (
    "id", "payment_method_id", "customer_id", "subsidiary", "country", "vat_number", "currency",
    "tax_mention", "net", "tax", "total",
)  # fmt: skip
_LINE = (
    "request_id", "number", "service_id", "period_number", "description", "net", "tax_rate", "tax",
)  # fmt: skip
_RENEWAL = ("service_id", "period_number", "expires_on", "net", "request_id", "requests")


def _insert(table: Any, columns: tuple[str, ...], conflict: str = "") -> Any:
    return text(
        f"INSERT INTO {table.name} ({', '.join(columns)})"
        f" SELECT * FROM {rows_from_json(table, *columns)} ORDER BY 1 {conflict}"
    )


_INSERT_REQUESTS = _insert(payment_requests, _REQUEST)
_INSERT_LINES = _insert(request_lines, _LINE)
_ON_REQUEST = _insert(
    renewals,
    _RENEWAL,
    "ON CONFLICT (service_id, period_number) DO UPDATE"
    " SET request_id = excluded.request_id, requests = excluded.requests",
)


def write(tx: Connection, drafts: Sequence[Draft]) -> None:
    """Open payment requests, each with its lines."""
    request_rows, line_rows, renewal_rows = [], [], []
    for drawn in drafts:
        net, due = sum(line.net for line in drawn.lines), sum(line.tax for line in drawn.lines)
        request_rows.append(
            {
                "id": drawn.id,
                "payment_method_id": drawn.payment_method_id,
                "customer_id": drawn.customer.id,
                "subsidiary": drawn.subsidiary,
                "country": drawn.customer.country,
                "vat_number": drawn.customer.vat_number,
                "currency": drawn.currency,
                "tax_mention": drawn.mention,
                "net": net,
                "tax": due,
                "total": net + due,
            }
        )
        line_rows += [
            {
                "request_id": drawn.id,
                "number": number,
                "service_id": line.service_id,
                "period_number": line.period_number,
                "description": line.description,
                "net": line.net,
                "tax_rate": line.tax_rate,
                "tax": line.tax,
            }
            for number, line in enumerate(drawn.lines, 1)
        ]
        renewal_rows += [
            {
                "service_id": service.id,
                "period_number": service.paid_periods + 1,
                "expires_on": service.view.expires_on.isoformat(),
                "net": service.price,
                "request_id": drawn.id,
                "requests": service.requests + 1,
            }
            for service in drawn.services
        ]
    for statement, rows in (
        (_INSERT_REQUESTS, request_rows),
        (_INSERT_LINES, line_rows),
        (_ON_REQUEST, renewal_rows),
    ):
        tx.execute(statement, {"rows": rows_as_json(rows)})


_OPEN = text("SELECT * FROM payment_requests WHERE id = ANY(:ids) AND state = 'open' ORDER BY id")
_OPEN_LINES = text("""
    SELECT * FROM request_lines WHERE request_id = ANY(:ids) AND released_at IS NULL
    ORDER BY request_id, number
""")
_CLOSE = text("""
    UPDATE payment_requests AS p SET state = r.state, closed_at = now()
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, state text) WHERE p.id = r.id
""")
_RELEASE = text("UPDATE request_lines SET released_at = now() WHERE request_id = ANY(:ids)")
_OFF = text("""
    UPDATE renewals AS r SET request_id = NULL
    FROM (SELECT DISTINCT request_id, service_id FROM request_lines
          WHERE request_id = ANY(:ids)) AS l
    WHERE r.service_id = l.service_id AND r.request_id = l.request_id
""")


def take_off(
    tx: Connection, chosen: Collection[uuid.UUID], held: Mapping[uuid.UUID, Renewable]
) -> list[uuid.UUID]:
    """Take services off the open requests they are on; what is left there is asked for anew.

    A request of which nothing is left is voided, one of which something is left is split. None of
    them may have a charge under way.

    Args:
        chosen: services to take off.
        held: what :func:`lock` returned.

    Returns:
        The services whose request is another one now, or none.
    """
    touched = {held[s].request_id for s in chosen if s in held} - {None}
    requests = tx.execute(_OPEN, {"ids": list(touched)}).all() if touched else []
    if not requests:
        return []
    ids = [request.id for request in requests]
    lines: dict[uuid.UUID, list[Any]] = {request_id: [] for request_id in ids}
    for line in tx.execute(_OPEN_LINES, {"ids": ids}):
        lines[line.request_id].append(line)
    closed, drafts, moved = [], [], []
    for request in requests:
        left = [line for line in lines[request.id] if line.service_id not in chosen]
        moved += sorted({line.service_id for line in lines[request.id]})
        closed.append({"id": str(request.id), "state": "split" if left else "voided"})
        if left:
            drafts.append(_rest(request, left, held))
    tx.execute(_CLOSE, {"rows": rows_as_json(closed)})
    tx.execute(_RELEASE, {"ids": ids})
    tx.execute(_OFF, {"ids": ids})
    if drafts:
        write(tx, drafts)
    return moved


def _rest(request: Any, left: Sequence[Any], held: Mapping[uuid.UUID, Renewable]) -> Draft:
    """What is left of a request, as it was."""
    services = [held[service] for service in sorted({line.service_id for line in left})]
    return Draft(
        id=_id(services),
        payment_method_id=request.payment_method_id,
        customer=Customer(request.customer_id, request.country, request.vat_number),
        subsidiary=request.subsidiary,
        currency=request.currency,
        mention=request.tax_mention,
        lines=[
            Line(x.service_id, x.period_number, x.description, x.net, str(x.tax_rate), x.tax)
            for x in left
        ],
        services=services,
    )


def without_request(service: Renewable) -> Renewable:
    """A service that was just taken off its request."""
    return replace(service.with_cycle(requested=False), request_id=None)
