"""Invoices and credit notes: what the law knows. Written once, never changed."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from sqlalchemy import Connection

from schemas.tables.bulk import Bulk
from schemas.values import derived_id
from workers.billing.charges.numbering import Number, series_code, take_numbers


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """An invoice to be; its amounts are its payment request's."""

    id: uuid.UUID
    series: str
    number: int
    issued_on: date
    request_id: uuid.UUID


_ISSUE = Bulk(
    InvoiceRow,
    """
    WITH issued AS (
        INSERT INTO invoices (id, series, number, issued_on, request_id, customer_id, subsidiary,
            country, vat_number, currency, tax_mention, net, tax, total)
        SELECT r.id, r.series, r.number, r.issued_on, p.id, p.customer_id, p.subsidiary,
            p.country, p.vat_number, p.currency, p.tax_mention, p.net, p.tax, p.total
        FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id uuid, series text, number bigint, issued_on date, request_id uuid)
        JOIN payment_requests AS p ON p.id = r.request_id
        RETURNING id, request_id
    )
    INSERT INTO invoice_lines (invoice_id, number, service_id, period_number, description,
        net, tax_rate, tax)
    SELECT i.id, l.number, l.service_id, l.period_number, l.description, l.net, l.tax_rate, l.tax
    FROM issued AS i JOIN request_lines AS l ON l.request_id = i.request_id
    """,
)


def issue_invoices(
    tx: Connection, paid: Sequence[tuple[uuid.UUID, str, date]]
) -> dict[uuid.UUID, Number]:
    """Number and write the invoices of requests that were paid in this transaction.

    Args:
        paid: (payment request, subsidiary, the subsidiary's local date).

    Returns:
        The number of each request's invoice.
    """
    numbers = take_numbers(tx, [(series_code(sub, day), day) for _, sub, day in paid])
    _ISSUE(
        tx,
        [
            InvoiceRow(
                derived_id("invoice", request_id),
                number.series,
                number.number,
                number.issued_on,
                request_id,
            )
            for (request_id, _, _), number in zip(paid, numbers, strict=True)
        ],
    )
    return {row[0]: number for row, number in zip(paid, numbers, strict=True)}


@dataclass(frozen=True, slots=True)
class CreditNoteRow:
    """A credit note to be, of lines of an invoice."""

    id: uuid.UUID
    series: str
    number: int
    issued_on: date
    invoice_id: uuid.UUID
    lines: list[int]
    reason: str


_CREDIT = Bulk(
    CreditNoteRow,
    """
    WITH rows AS (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id uuid, series text, number bigint, issued_on date, invoice_id uuid,
            lines smallint[], reason text)
    ), credited AS (
        INSERT INTO credit_notes (id, series, number, issued_on, invoice_id, reason, currency,
            net, tax, total)
        SELECT r.id, r.series, r.number, r.issued_on, i.id, r.reason, i.currency,
            sum(l.net), sum(l.tax), sum(l.net + l.tax)
        FROM rows AS r
        JOIN invoices AS i ON i.id = r.invoice_id
        JOIN invoice_lines AS l ON l.invoice_id = i.id AND l.number = ANY(r.lines)
        GROUP BY r.id, r.series, r.number, r.issued_on, i.id, r.reason, i.currency
    )
    INSERT INTO credit_note_lines (credit_note_id, invoice_id, invoice_line, service_id,
        period_number, description, net, tax_rate, tax)
    SELECT r.id, l.invoice_id, l.number, l.service_id, l.period_number, l.description,
        l.net, l.tax_rate, l.tax
    FROM rows AS r
    JOIN invoice_lines AS l ON l.invoice_id = r.invoice_id AND l.number = ANY(r.lines)
    """,
)


class GivenBack(NamedTuple):
    """Lines of an invoice that are credited.

    Attributes:
        subject: the service or the payment request they are given back for; names the note.
        on: the subsidiary's local date.
    """

    subject: uuid.UUID
    invoice_id: uuid.UUID
    lines: Sequence[int]
    reason: str
    subsidiary: str
    on: date


def issue_credit_notes(tx: Connection, given_back: Sequence[GivenBack]) -> dict[uuid.UUID, Number]:
    """Credit lines of invoices, at the invoices' own rates.

    Returns:
        The number of each subject's credit note, whose id is ``credit_note_id(subject)``.
    """
    numbers = take_numbers(
        tx, [(series_code(back.subsidiary, back.on, credit=True), back.on) for back in given_back]
    )
    _CREDIT(
        tx,
        [
            CreditNoteRow(
                credit_note_id(back.subject),
                number.series,
                number.number,
                number.issued_on,
                back.invoice_id,
                list(back.lines),
                back.reason,
            )
            for back, number in zip(given_back, numbers, strict=True)
        ],
    )
    return {back.subject: number for back, number in zip(given_back, numbers, strict=True)}


def credit_note_id(subject: uuid.UUID) -> uuid.UUID:
    return derived_id("credit note", subject)
