"""Invoices and credit notes, by their numbers; immutable, as they were issued."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from producers.views.scope import EVERYTHING, Scope
from schemas.values import Money


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """A line; ``period_number`` 0 is the setup fee, n the n-th period of the service."""

    number: int
    service: uuid.UUID
    period_number: int
    description: str
    net: Money
    tax_rate: Decimal
    tax: Money


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """An invoice as lists show it."""

    number: str
    issued_on: date
    net: Money
    tax: Money
    total: Money
    credit_notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """An invoice, and the credit notes that correct it.

    Attributes:
        order_key: of the order that it is for; None: it is for renewals.
        country, vat_number: the customer's, on that day.
    """

    number: str
    issued_on: date
    customer: str
    subsidiary: str
    country: str
    vat_number: str | None
    tax_mention: str
    net: Money
    tax: Money
    total: Money
    order_key: str | None
    lines: Sequence[DocumentLine]
    credit_notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class RefundView:
    """An attempt to give the money of a credit note back."""

    attempt: int
    state: str
    amount: Money
    by_hand: bool


@dataclass(frozen=True, slots=True)
class CreditNoteView:
    """A credit note, the invoice that it corrects, and the money that goes back."""

    number: str
    issued_on: date
    invoice: str
    customer: str
    subsidiary: str
    reason: str
    net: Money
    tax: Money
    total: Money
    lines: Sequence[DocumentLine]
    refunds: Sequence[RefundView]


def number_of(series: str, number: int) -> str:
    """The number of a document, as it is printed on it.

    >>> number_of("FR-2026", 7)
    'FR-2026-0000007'
    """
    return f"{series}-{number:07d}"


def parse_number(text: str) -> tuple[str, int] | None:
    """The series and the number in it; None: it is no number of a document."""
    series, dash, digits = text.rpartition("-")
    if not dash or not series.isprintable() or not 0 < len(series) <= 50:
        return None
    if not (digits.isascii() and digits.isdigit()):
        return None
    return (series, int(digits)) if len(digits) <= 15 else None


_INVOICE = text("""
    SELECT i.id, i.series, i.number, i.issued_on, i.customer_id, i.subsidiary, i.country,
           i.vat_number, i.tax_mention, i.net, i.tax, i.total, i.currency, o.key
    FROM invoices AS i
    JOIN customers AS c ON c.id = i.customer_id
    LEFT JOIN payment_requests AS r ON r.id = i.request_id
    LEFT JOIN orders AS o ON o.id = r.order_id
    WHERE i.series = :series AND i.number = :number
      AND (CAST(:realm AS text) IS NULL OR c.realm = :realm)
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR i.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM invoice_lines AS l JOIN services AS s ON s.id = l.service_id
          WHERE l.invoice_id = i.id AND s.brand <> ALL(CAST(:brands AS text[]))))
""")
_INVOICE_LINES = text("""
    SELECT number, service_id, period_number, description, net, tax_rate, tax
    FROM invoice_lines WHERE invoice_id = :id ORDER BY number LIMIT 5000
""")
_CREDITED_BY = text("""
    SELECT invoice_id, series, number FROM credit_notes
    WHERE invoice_id = ANY(:ids) ORDER BY invoice_id, series, number
""")
_CREDIT_NOTE = text("""
    SELECT n.id, n.series, n.number, n.issued_on, n.reason, n.net, n.tax, n.total, n.currency,
           i.series AS invoice_series, i.number AS invoice_number, i.customer_id, i.subsidiary
    FROM credit_notes AS n
    JOIN invoices AS i ON i.id = n.invoice_id
    JOIN customers AS c ON c.id = i.customer_id
    WHERE n.series = :series AND n.number = :number
      AND (CAST(:realm AS text) IS NULL OR c.realm = :realm)
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR i.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM credit_note_lines AS l JOIN services AS s ON s.id = l.service_id
          WHERE l.credit_note_id = n.id AND s.brand <> ALL(CAST(:brands AS text[]))))
""")
# From the lines of its invoice: the primary key begins with that.
_CREDIT_NOTE_LINES = text("""
    SELECT l.invoice_line AS number, l.service_id, l.period_number, l.description, l.net,
           l.tax_rate, l.tax
    FROM credit_notes AS n JOIN credit_note_lines AS l
      ON l.invoice_id = n.invoice_id AND l.credit_note_id = n.id
    WHERE n.id = :id ORDER BY l.invoice_line LIMIT 5000
""")
_REFUNDS = text("""
    SELECT attempt, state, amount, currency, by_hand FROM refunds
    WHERE credit_note_id = :id ORDER BY attempt LIMIT 100
""")
_OF_CUSTOMER = text("""
    SELECT i.id, i.series, i.number, i.issued_on, i.net, i.tax, i.total, i.currency
    FROM invoices AS i
    WHERE i.customer_id = :customer
      AND (CAST(:before AS uuid) IS NULL OR (i.issued_on, i.series, i.number) < (
          SELECT b.issued_on, b.series, b.number FROM invoices AS b WHERE b.id = :before))
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR i.subsidiary = ANY(CAST(:subsidiaries AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM invoice_lines AS l JOIN services AS s ON s.id = l.service_id
          WHERE l.invoice_id = i.id AND s.brand <> ALL(CAST(:brands AS text[]))))
    ORDER BY i.issued_on DESC, i.series DESC, i.number DESC LIMIT :limit
""")


def invoice(tx: Connection, number: str, *, scope: Scope = EVERYTHING) -> InvoiceView | None:
    """The invoice of a number; None: there is none that may be seen."""
    row = _one(tx, _INVOICE, number, scope)
    if row is None:
        return None
    return InvoiceView(
        number=number_of(row.series, row.number),
        issued_on=row.issued_on,
        customer=row.customer_id,
        subsidiary=row.subsidiary,
        country=row.country,
        vat_number=row.vat_number,
        tax_mention=row.tax_mention,
        net=Money(row.net, row.currency),
        tax=Money(row.tax, row.currency),
        total=Money(row.total, row.currency),
        order_key=row.key,
        lines=_lines(tx, _INVOICE_LINES, row.id, row.currency),
        credit_notes=_credited_by(tx, [row.id]).get(row.id, []),
    )


def credit_note(tx: Connection, number: str, *, scope: Scope = EVERYTHING) -> CreditNoteView | None:
    """The credit note of a number; None: there is none that may be seen."""
    row = _one(tx, _CREDIT_NOTE, number, scope)
    if row is None:
        return None
    return CreditNoteView(
        number=number_of(row.series, row.number),
        issued_on=row.issued_on,
        invoice=number_of(row.invoice_series, row.invoice_number),
        customer=row.customer_id,
        subsidiary=row.subsidiary,
        reason=row.reason,
        net=Money(row.net, row.currency),
        tax=Money(row.tax, row.currency),
        total=Money(row.total, row.currency),
        lines=_lines(tx, _CREDIT_NOTE_LINES, row.id, row.currency),
        refunds=[
            RefundView(r.attempt, r.state, Money(r.amount, r.currency), r.by_hand)
            for r in tx.execute(_REFUNDS, {"id": row.id})
        ],
    )


def invoices_of_customer(
    tx: Connection,
    customer: str,
    *,
    scope: Scope = EVERYTHING,
    limit: int = 50,
    before: uuid.UUID | None = None,
) -> tuple[list[InvoiceRow], uuid.UUID | None]:
    """A customer's invoices, the newest first; the customer is known to be seen.

    Args:
        before: the invoice after which the list goes on.

    Returns:
        At most ``limit`` of them; and the last one's id, if there are more.
    """
    parameters = {
        "customer": customer,
        "before": before,
        "limit": limit + 1,
        "brands": scope.parameters["brands"],
        "subsidiaries": scope.parameters["subsidiaries"],
    }
    rows = tx.execute(_OF_CUSTOMER, parameters).all()
    shown = rows[:limit]
    credited = _credited_by(tx, [row.id for row in shown])
    listed = [
        InvoiceRow(
            number_of(r.series, r.number),
            r.issued_on,
            Money(r.net, r.currency),
            Money(r.tax, r.currency),
            Money(r.total, r.currency),
            credited.get(r.id, []),
        )
        for r in shown
    ]
    return listed, shown[-1].id if len(rows) > limit else None


def _one(tx: Connection, query: Any, number: str, scope: Scope) -> Any:
    parsed = parse_number(number)
    if parsed is None:
        return None
    parameters = {n: v for n, v in scope.parameters.items() if n != "upstreams"}
    return tx.execute(query, {"series": parsed[0], "number": parsed[1], **parameters}).first()


def _lines(tx: Connection, query: Any, id: uuid.UUID, currency: str) -> list[DocumentLine]:
    return [
        DocumentLine(
            r.number, r.service_id, r.period_number, r.description, Money(r.net, currency),
            r.tax_rate, Money(r.tax, currency),
        )
        for r in tx.execute(query, {"id": id})
    ]  # fmt: skip


def _credited_by(tx: Connection, invoices: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[str]]:
    """Invoice -> the numbers of its credit notes."""
    found: dict[uuid.UUID, list[str]] = {}
    for row in tx.execute(_CREDITED_BY, {"ids": list(invoices)}) if invoices else ():
        found.setdefault(row.invoice_id, []).append(number_of(row.series, row.number))
    return found
