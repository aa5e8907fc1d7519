"""Reads what happened from the history, with what an event says beside it."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from schemas.events import IS_OUTGOING, Kind


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of the history that goes out.

    Attributes:
        id: in the history.
        sequence: how many events of its subject have gone out with it; the first is 1.
        digest: of the id, the kind and the sequence.
        reason: of a suspension or an end: why it was decided.
    """

    id: int
    subject: uuid.UUID
    at: datetime
    kind: Kind
    detail: Mapping[str, Any]
    sequence: int
    digest: int
    reason: str | None = None


# In the order of the ids, which is that in which things happened to one subject.
READ = text(f"""
    SELECT e.id, e.subject, e.at, k.kind, coalesce(e.detail, '{{}}') AS detail, n.sequence,
        event_digest(e.id, k.kind, n.sequence) AS digest, w.reason
    FROM events AS e
    CROSS JOIN LATERAL event_kind(e.id, e.name, e.detail) AS k(kind)
    CROSS JOIN LATERAL (
        SELECT count(*) AS sequence FROM events AS b
        WHERE b.subject = e.subject AND b.id <= e.id
          AND event_kind(b.id, b.name, b.detail) IS NOT NULL
    ) AS n
    LEFT JOIN LATERAL (
        SELECT b.detail->>'reason' AS reason FROM events AS b
        WHERE k.kind IN ('service.suspended', 'service.terminated')
          AND b.subject = e.subject AND b.id < e.id
          AND b.name IN ('service.suspending', 'service.ending')
        ORDER BY b.id DESC LIMIT 1
    ) AS w ON true
    WHERE e.id > :after AND e.id <= :upto AND e.{IS_OUTGOING} AND k.kind IS NOT NULL
    ORDER BY e.id LIMIT :most
""")


def read(tx: Connection, after: int, upto: int, most: int) -> list[Happened]:
    """What goes out of a stretch of the history, ``after`` excluded.

    Args:
        most: events.
    """
    rows = tx.execute(READ, {"after": after, "upto": upto, "most": most})
    return [
        Happened(
            row.id, row.subject, row.at, Kind(row.kind), row.detail, row.sequence, row.digest,
            row.reason,
        )
        for row in rows
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """What events say beside what the history tells, by the subject's id."""

    orders: Mapping[uuid.UUID, Any] = field(default_factory=dict)
    services: Mapping[uuid.UUID, Any] = field(default_factory=dict)
    requests: Mapping[uuid.UUID, Any] = field(default_factory=dict)
    """Payment requests, by their own id and by their order's."""
    services_of: Mapping[uuid.UUID, Sequence[Any]] = field(default_factory=dict)
    """The services of orders."""


_ORDERS = text("""
    SELECT o.id, o.key, o.upstream, o.customer_id, o.reason, o.problems, c.realm
    FROM orders AS o LEFT JOIN customers AS c ON c.id = o.customer_id WHERE o.id = ANY(:ids)
""")
_SERVICES_OF = text("""
    SELECT order_id, id, state = 'cancelled' AS is_cancelled FROM services
    WHERE order_id = ANY(:ids) ORDER BY order_id, line, id
""")
_SERVICES = text("""
    SELECT s.id, s.order_id, s.line, s.customer_id, s.plan, s.period_months, o.key, o.upstream,
        c.realm, p.contract
    FROM services AS s LEFT JOIN orders AS o ON o.id = s.order_id
    LEFT JOIN customers AS c ON c.id = s.customer_id LEFT JOIN plans AS p ON p.code = s.plan
    WHERE s.id = ANY(:ids)
""")
_REQUESTS = text("""
    SELECT p.id, p.order_id, p.customer_id, p.currency, p.total, o.key, o.upstream, c.realm,
        i.series, i.number, i.issued_on, i.currency AS invoiced_in, i.net, i.tax,
        i.total AS invoiced, l.services
    FROM (
        SELECT id FROM payment_requests WHERE id = ANY(:ids)
        UNION SELECT id FROM payment_requests WHERE order_id = ANY(:ids)
    ) AS wanted
    JOIN payment_requests AS p ON p.id = wanted.id
    LEFT JOIN orders AS o ON o.id = p.order_id
    LEFT JOIN customers AS c ON c.id = p.customer_id
    LEFT JOIN invoices AS i ON i.request_id = p.id
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(DISTINCT service_id ORDER BY service_id), '{}') AS services
        FROM request_lines WHERE request_id = p.id
    ) AS l
""")
_OF_REQUESTS = (Kind.CHARGE_FAILED, Kind.INVOICE_ISSUED)
_OF_SERVICES = (Kind.ORDER_DELIVERED, Kind.ORDER_PARTLY_DELIVERED)


def facts(tx: Connection, happened: Iterable[Happened]) -> Facts:
    """What the events say: what never changes of their subjects, or not after they happened."""
    orders: set[uuid.UUID] = set()
    services: set[uuid.UUID] = set()
    requests: set[uuid.UUID] = set()
    ended: set[uuid.UUID] = set()
    for one in happened:
        if one.kind in _OF_REQUESTS:
            requests.add(one.subject)
        elif one.kind.startswith("order."):
            orders.add(one.subject)
        else:
            services.add(one.subject)
        if one.kind in _OF_SERVICES:
            ended.add(one.subject)
    by_request: dict[uuid.UUID, Any] = {}
    for row in _found(tx, _REQUESTS, requests):
        by_request |= {row.id: row, row.order_id or row.id: row}
    services_of: dict[uuid.UUID, list[Any]] = {}
    for row in _found(tx, _SERVICES_OF, ended):
        services_of.setdefault(row.order_id, []).append(row)
    return Facts(
        {row.id: row for row in _found(tx, _ORDERS, orders)},
        {row.id: row for row in _found(tx, _SERVICES, services)},
        by_request,
        services_of,
    )


def _found(tx: Connection, statement: Any, ids: set[uuid.UUID]) -> Sequence[Any]:
    return tx.execute(statement, {"ids": sorted(ids)}).all() if ids else ()


# Ids of the history rise with time, nearly: an event has the time at which its transaction began,
# so one of a transaction that took long is older than those before it. None of the fleet's takes
# as long as this.
LATE = timedelta(minutes=10)
_AFTER = text(f"""
    SELECT id, at FROM events WHERE id > :after AND {IS_OUTGOING} ORDER BY id LIMIT 1
""")


def first_since(tx: Connection, since: datetime, upto: int) -> int:
    """Up to which id all events are older than ``since``, by halving; some after it are, too."""
    low, high, since = 0, upto, since - LATE
    while high - low > 1:
        middle = (low + high) // 2
        row = tx.execute(_AFTER, {"after": middle}).first()
        if row is None or row.at >= since:
            high = middle
        else:
            low = int(row.id)
    return low
