"""Payment requests in the database: written, locked, and taken apart.

Whoever changes a request locks it first, then the services on it, each in order.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from schemas.catalogue import Catalogue
from schemas.tables import payment_requests, renewals, request_lines
from schemas.tables.bulk import Bulk, insert
from schemas.values import CustomerId, Money, OrderId, RequestId, RequestState, ServiceId
from workers.billing.payment_requests.draft import Customer, Draft, Line, id_of, taxed

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


_LINES = text("""
    SELECT request_id, service_id, period_number, description, net, tax_rate, tax
    FROM request_lines WHERE request_id = ANY(:ids) AND released_at IS NULL
    ORDER BY request_id, number
""")


def lines_on(tx: Connection, request_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, list[Line]]:
    """Request -> its lines."""
    on: dict[uuid.UUID, list[Line]] = {i: [] for i in request_ids}
    for request_id, *values in tx.execute(_LINES, {"ids": list(request_ids)}):
        on[request_id].append(Line(*values))
    return on


_CUSTOMERS = text("SELECT id, country, vat_number FROM customers WHERE id = ANY(:ids)")


def customers(tx: Connection, services: Iterable[Renewable]) -> dict[str, Customer]:
    ids = sorted({service.customer_id for service in services})
    rows = tx.execute(_CUSTOMERS, {"ids": ids})
    return {row.id: Customer(row.id, row.country, row.vat_number) for row in rows}


@dataclass(frozen=True, slots=True)
class RequestRow:
    """
    Attributes:
        order_id: None: it is of renewals.
        stands_until: of an order: from when on its tax may be another one; of renewals each of
            its services knows.
    """

    id: RequestId
    order_id: OrderId | None
    payment_method_id: uuid.UUID | None
    customer_id: CustomerId
    subsidiary: str
    country: str
    vat_number: str | None
    currency: str
    tax_mention: str
    net: Money
    tax: Money
    total: Money
    stands_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class LineRow:
    """Amounts in minor units of the request's currency."""

    request_id: RequestId
    number: int
    service_id: ServiceId
    period_number: int
    description: str
    net: int
    tax_rate: Decimal
    tax: int


_insert_requests = insert(RequestRow, payment_requests)
_insert_lines = insert(LineRow, request_lines)


def open_requests(tx: Connection, requests: Iterable[RequestRow], lines: Iterable[LineRow]) -> None:
    """Write open payment requests, of orders or of renewals, with their lines."""
    _insert_requests(tx, requests)
    _insert_lines(tx, lines)


@dataclass(frozen=True, slots=True)
class RequestedRow:
    """A renewal that is on a payment request from now on."""

    service_id: ServiceId
    period_number: int
    expires_on: date
    net: Money
    currency: str
    request_id: RequestId
    requests: int
    stands_until: datetime | None


_on_request = insert(
    RequestedRow,
    renewals,
    "ON CONFLICT (service_id, period_number) DO UPDATE SET request_id = excluded.request_id,"
    " requests = excluded.requests, stands_until = excluded.stands_until",
)


def write(tx: Connection, drafts: Sequence[Draft]) -> None:
    """Open payment requests of renewals, each with its lines."""
    open_requests(
        tx,
        [
            RequestRow(
                id=drawn.id,
                order_id=None,
                payment_method_id=drawn.payment_method_id,
                customer_id=drawn.customer.id,
                subsidiary=drawn.subsidiary,
                country=drawn.customer.country,
                vat_number=drawn.customer.vat_number,
                currency=drawn.currency,
                tax_mention=drawn.mention,
                net=drawn.net,
                tax=drawn.tax,
                total=drawn.net + drawn.tax,
            )
            for drawn in drafts
        ],
        [
            LineRow(
                request_id=drawn.id,
                number=number,
                service_id=line.service_id,
                period_number=line.period_number,
                description=line.description,
                net=line.net,
                tax_rate=line.tax_rate,
                tax=line.tax,
            )
            for drawn in drafts
            for number, line in enumerate(drawn.lines, 1)
        ],
    )
    _on_request(
        tx,
        [
            RequestedRow(
                service_id=service.id,
                period_number=service.paid_periods + 1,
                expires_on=service.view.expires_on,
                net=service.price,
                currency=drawn.currency,
                request_id=drawn.id,
                requests=service.requests + 1,
                stands_until=drawn.stands_until,
            )
            for drawn in drafts
            for service in drawn.services
            if service.price is not None
        ],
    )


@dataclass(frozen=True, slots=True)
class ClosedRow:
    id: RequestId
    state: RequestState


_close = Bulk(
    ClosedRow,
    """
    UPDATE payment_requests AS p SET state = r.state, closed_at = now()
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, state text) WHERE p.id = r.id
    """,
)
_OPEN = text("SELECT * FROM payment_requests WHERE id = ANY(:ids) AND state = 'open' ORDER BY id")
_OPEN_LINES = text("""
    SELECT * FROM request_lines WHERE request_id = ANY(:ids) AND released_at IS NULL
    ORDER BY request_id, number
""")
_RELEASE = text("UPDATE request_lines SET released_at = now() WHERE request_id = ANY(:ids)")
_OFF = text("""
    UPDATE renewals AS r SET request_id = NULL
    FROM (SELECT DISTINCT request_id, service_id FROM request_lines
          WHERE request_id = ANY(:ids)) AS l
    WHERE r.service_id = l.service_id AND r.request_id = l.request_id
""")


# Whose amount was announced in a former currency of their subsidiary: told first, once. So is who
# asked for the renewal before an e-mail named an amount, and has to ask again.
_TO_BE_TOLD = text("""
    UPDATE renewals AS r SET dearer = r.dearer + 1, dearer_at = :now,
        asked_at = CASE WHEN r.announced IS NOT NULL THEN r.asked_at END
    FROM services AS s JOIN subsidiaries AS u ON u.code = s.subsidiary
    WHERE s.id = ANY(:ids) AND r.service_id = s.id AND r.period_number = s.paid_periods + 1
      AND (r.announced_currency <> u.definition->>'currency' OR r.announced IS NULL)
      AND (r.dearer_at IS NULL OR r.dearer_at < r.announced_at)
""")


def take_off(
    tx: Connection,
    chosen: Collection[uuid.UUID],
    held: Mapping[uuid.UUID, Renewable],
    now: datetime,
) -> list[uuid.UUID]:
    """Take services off the open requests they are on; what is left there is asked for anew.

    A request of which nothing is left is voided, one of which something is left is split. One in a
    former currency of its subsidiary is voided: nothing is asked for in it any more, and customers
    who were told of an amount in it are to be told of the new one. None of them may have a charge
    under way.

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
    closed, drafts, moved, converted = [], [], [], []
    for request in requests:
        on_it = sorted({line.service_id for line in lines[request.id]})
        moved += on_it
        if any(held[service].subsidiary.currency != request.currency for service in on_it):
            closed.append(ClosedRow(request.id, RequestState.VOIDED))
            converted += on_it
            continue
        left = [line for line in lines[request.id] if line.service_id not in chosen]
        closed.append(ClosedRow(request.id, RequestState.SPLIT if left else RequestState.VOIDED))
        if left:
            drafts.append(_rest(request, left, held))
    _close(tx, closed)
    tx.execute(_RELEASE, {"ids": ids})
    tx.execute(_OFF, {"ids": ids})
    if converted:
        tx.execute(_TO_BE_TOLD, {"ids": converted, "now": now})
    if drafts:
        write(tx, drafts)
    return moved


def _rest(request: Any, left: Sequence[Any], held: Mapping[uuid.UUID, Renewable]) -> Draft:
    """What is left of a request, as it was."""
    services = [held[service] for service in sorted({line.service_id for line in left})]
    ends = [s.view.cycle.stands_until for s in services]
    return Draft(
        id=id_of(services),
        payment_method_id=request.payment_method_id,
        customer=Customer(request.customer_id, request.country, request.vat_number),
        subsidiary=request.subsidiary,
        currency=request.currency,
        mention=request.tax_mention,
        lines=taxed(
            Line(x.service_id, x.period_number, x.description, x.net, x.tax_rate, x.tax)
            for x in left
        ),
        services=services,
        stands_until=min((at for at in ends if at is not None), default=None),
    )
