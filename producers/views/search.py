"""What a text may name: an order's key, a customer, a document, a domain, an address."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from producers.views.documents import number_of, parse_number
from producers.views.scope import EVERYTHING, Scope

MOST = 20
"""Of each kind."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that was found.

    Attributes:
        kind: ``order``, ``service``, ``customer``, ``invoice``, ``credit_note``.
        name: to look it up by: its id or number.
        said: what a person knows it by.
    """

    kind: str
    name: str
    said: str
    customer: str | None


# Each is answered by an index.
_ORDERS = text("""
    SELECT o.id, o.key, o.customer_id FROM orders AS o
    WHERE o.key = CAST(:text AS text)
      AND (CAST(:upstreams AS text[]) IS NULL OR o.upstream = ANY(CAST(:upstreams AS text[])))
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR o.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM order_lines AS l JOIN plans AS p ON p.code = l.plan
          WHERE l.order_id = o.id AND p.brand <> ALL(CAST(:brands AS text[]))))
    ORDER BY o.upstream LIMIT :most
""")
_ORDER_BY_ID = text("""
    SELECT o.id, o.key, o.customer_id FROM orders AS o
    WHERE o.id = :id
      AND (CAST(:upstreams AS text[]) IS NULL OR o.upstream = ANY(CAST(:upstreams AS text[])))
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR o.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM order_lines AS l JOIN plans AS p ON p.code = l.plan
          WHERE l.order_id = o.id AND p.brand <> ALL(CAST(:brands AS text[]))))
""")
_CUSTOMERS = text("""
    SELECT id, email FROM customers
    WHERE (id = :text OR lower(email) = lower(:text))
      AND (CAST(:realm AS text) IS NULL OR realm = :realm)
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR subsidiary = ANY(CAST(:subsidiaries AS text[])))
    ORDER BY id LIMIT :most
""")
_SERVICE_BY_ID = text("""
    SELECT s.id, s.plan, s.customer_id
    FROM services AS s JOIN customers AS c ON c.id = s.customer_id
    WHERE s.id = :id
      AND (CAST(:realm AS text) IS NULL OR c.realm = :realm)
      AND (CAST(:brands AS text[]) IS NULL OR s.brand = ANY(CAST(:brands AS text[])))
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR s.subsidiary = ANY(CAST(:subsidiaries AS text[])))
""")
_BY_DOMAIN = text("""
    SELECT s.id, s.plan, s.customer_id
    FROM services AS s JOIN customers AS c ON c.id = s.customer_id
    WHERE lower(s.configuration->>'domain') = lower(:text)
      AND s.configuration->>'domain' IS NOT NULL
      AND (CAST(:realm AS text) IS NULL OR c.realm = :realm)
      AND (CAST(:brands AS text[]) IS NULL OR s.brand = ANY(CAST(:brands AS text[])))
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR s.subsidiary = ANY(CAST(:subsidiaries AS text[])))
    ORDER BY s.id LIMIT :most
""")
_INVOICES = text("""
    SELECT 'invoice' AS kind, i.series, i.number, i.customer_id
    FROM invoices AS i JOIN customers AS c ON c.id = i.customer_id
    WHERE i.series = :series AND i.number = :number
      AND (CAST(:realm AS text) IS NULL OR c.realm = :realm)
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR i.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM invoice_lines AS l JOIN services AS s ON s.id = l.service_id
          WHERE l.invoice_id = i.id AND s.brand <> ALL(CAST(:brands AS text[]))))
    UNION ALL
    SELECT 'credit_note', n.series, n.number, i.customer_id
    FROM credit_notes AS n JOIN invoices AS i ON i.id = n.invoice_id
    JOIN customers AS c ON c.id = i.customer_id
    WHERE n.series = :series AND n.number = :number
      AND (CAST(:realm AS text) IS NULL OR c.realm = :realm)
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR i.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM invoice_lines AS l JOIN services AS s ON s.id = l.service_id
          WHERE l.invoice_id = i.id AND s.brand <> ALL(CAST(:brands AS text[]))))
""")


def search(tx: Connection, wanted: str, *, scope: Scope = EVERYTHING) -> list[Hit]:
    """Everything that is called so, exactly: no search by parts.

    Args:
        wanted: an order's key or id, a customer's id or e-mail address, a number of an invoice or
            credit note, a domain, a service's id.
    """
    wanted = wanted.strip()
    if not wanted or len(wanted) > 300 or "\0" in wanted:
        return []
    given = {"text": wanted, "most": MOST, **scope.parameters}

    def run(query: Any, **more: Any) -> list[Any]:
        used = {name: (given | more)[name] for name in query.compile().params}
        return list(tx.execute(query, used))

    return list(_hits(run, wanted))


def _hits(run: Callable[..., list[Any]], wanted: str) -> Iterator[Hit]:
    found = run(_ORDERS)
    by_name = run(_BY_DOMAIN)
    if (id_ := _uuid(wanted)) is not None:
        found += run(_ORDER_BY_ID, id=id_)
        by_name += run(_SERVICE_BY_ID, id=id_)
    for row in found:
        yield Hit("order", str(row.id), row.key, row.customer_id)
    for row in run(_CUSTOMERS):
        yield Hit("customer", row.id, row.email, row.id)
    for row in by_name:
        yield Hit("service", str(row.id), row.plan, row.customer_id)
    if (parsed := parse_number(wanted)) is not None:
        for row in run(_INVOICES, series=parsed[0], number=parsed[1]):
            number = number_of(row.series, row.number)
            yield Hit(row.kind, number, number, row.customer_id)


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
