"""Invoices and credit notes: what the law knows. Written once, never changed."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from schemas.rules.tax import Amounts, give_back
from schemas.tables import credit_note_lines
from schemas.tables.bulk import Bulk, insert, rows_as_json
from schemas.values import Money, derived_id
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
    WITH digested AS (
        SELECT r.id, r.series, r.number, r.issued_on, r.request_id, s.last_hash, invoice_digest(
            r.series, r.number, r.issued_on, p.id, p.customer_id, p.subsidiary, p.country,
            p.vat_number, p.currency, p.tax_mention, p.net, p.tax, p.total, l.lines) AS digest
        FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id uuid, series text, number bigint, issued_on date, request_id uuid)
        JOIN payment_requests AS p ON p.id = r.request_id
        JOIN invoice_series AS s ON s.code = r.series
        CROSS JOIN LATERAL (
            SELECT json_agg(document_line(l.number, l.service_id, l.period_number,
                l.description, l.net, l.tax_rate, l.tax) ORDER BY l.number) AS lines
            FROM request_lines AS l WHERE l.request_id = p.id) AS l
    ), hashed AS (
        SELECT id, series, number, issued_on, request_id,
            chained(last_hash, digest) OVER (PARTITION BY series ORDER BY number) AS hash
        FROM digested
    ), last AS (
        UPDATE invoice_series AS s SET last_hash = h.hash
        FROM (SELECT DISTINCT ON (series) series, hash FROM hashed
              ORDER BY series, number DESC) AS h
        WHERE s.code = h.series
    ), issued AS (
        INSERT INTO invoices (id, series, number, issued_on, request_id, customer_id, subsidiary,
            country, vat_number, currency, tax_mention, net, tax, total, hash)
        SELECT h.id, h.series, h.number, h.issued_on, p.id, p.customer_id, p.subsidiary,
            p.country, p.vat_number, p.currency, p.tax_mention, p.net, p.tax, p.total, h.hash
        FROM hashed AS h JOIN payment_requests AS p ON p.id = h.request_id
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
                derived_id("invoice", request_id, near=request_id),
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
    reason: str
    currency: str
    net: Money
    tax: Money
    total: Money


@dataclass(frozen=True, slots=True)
class CreditNoteLineRow:
    credit_note_id: uuid.UUID
    invoice_id: uuid.UUID
    invoice_line: int
    service_id: uuid.UUID
    period_number: int
    description: str
    net: int
    tax_rate: Decimal
    tax: int


_INSERT_NOTES = Bulk(
    CreditNoteRow,
    """
    WITH digested AS (
        SELECT r.*, s.last_hash, credit_note_digest(r.series, r.number, r.issued_on, r.invoice_id,
            r.reason, r.currency, r.net, r.tax, r.total, l.lines) AS digest
        FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id uuid, series text, number bigint, issued_on date, invoice_id uuid, reason text,
            currency text, net bigint, tax bigint, total bigint)
        JOIN invoice_series AS s ON s.code = r.series
        JOIN (
            SELECT l.credit_note_id, json_agg(document_line(l.invoice_line, l.service_id,
                l.period_number, l.description, l.net, l.tax_rate, l.tax)
                ORDER BY l.invoice_line) AS lines
            FROM json_to_recordset(CAST(:lines AS json)) AS l(
                credit_note_id uuid, invoice_line smallint, service_id uuid,
                period_number integer, description text, net bigint, tax_rate numeric(5, 2),
                tax bigint)
            GROUP BY l.credit_note_id
        ) AS l ON l.credit_note_id = r.id
    ), hashed AS (
        SELECT *, chained(last_hash, digest) OVER (PARTITION BY series ORDER BY number) AS hash
        FROM digested
    ), last AS (
        UPDATE invoice_series AS s SET last_hash = h.hash
        FROM (SELECT DISTINCT ON (series) series, hash FROM hashed
              ORDER BY series, number DESC) AS h
        WHERE s.code = h.series
    )
    INSERT INTO credit_notes (id, series, number, issued_on, invoice_id, reason, currency, net,
        tax, total, hash)
    SELECT id, series, number, issued_on, invoice_id, reason, currency, net, tax, total, hash
    FROM hashed ORDER BY id
    """,
)
_INSERT_NOTE_LINES = insert(CreditNoteLineRow, credit_note_lines)

_INVOICED = text("""
    SELECT l.invoice_id, l.number, l.service_id, l.period_number, l.description, l.net, l.tax_rate,
        l.tax, i.currency, c.tax AS credited
    FROM invoice_lines AS l
    JOIN invoices AS i ON i.id = l.invoice_id
    LEFT JOIN credit_note_lines AS c ON c.invoice_id = l.invoice_id AND c.invoice_line = l.number
    WHERE l.invoice_id = ANY(:ids)
    ORDER BY l.invoice_id, l.number
""")


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
    """Credit lines of invoices, at the invoices' own rates. Tax is rounded once for each rate of a
    note, and the notes of an invoice add up to it.

    Returns:
        The number of each subject's credit note, whose id is ``credit_note_id(subject)``.
    """
    numbers = take_numbers(
        tx, [(series_code(back.subsidiary, back.on, credit=True), back.on) for back in given_back]
    )
    # Read once the series is locked: nobody else credits lines of these invoices meanwhile.
    invoices: dict[uuid.UUID, list[Any]] = {}
    for line in tx.execute(_INVOICED, {"ids": list({back.invoice_id for back in given_back})}):
        invoices.setdefault(line.invoice_id, []).append(line)
    notes, lines = [], []
    given: dict[tuple[uuid.UUID, int], int] = {}
    for back, number in zip(given_back, numbers, strict=True):
        credited = _credited(back, invoices[back.invoice_id], given)
        given |= {(line.invoice_id, line.invoice_line): line.tax for line in credited}
        lines += credited
        currency = invoices[back.invoice_id][0].currency
        net, tax = sum(line.net for line in credited), sum(line.tax for line in credited)
        notes.append(
            CreditNoteRow(
                id=credit_note_id(back.subject),
                series=number.series,
                number=number.number,
                issued_on=number.issued_on,
                invoice_id=back.invoice_id,
                reason=back.reason,
                currency=currency,
                net=Money(net, currency),
                tax=Money(tax, currency),
                total=Money(net + tax, currency),
            )
        )
    _INSERT_NOTES(tx, notes, lines=rows_as_json(lines))
    _INSERT_NOTE_LINES(tx, lines)
    return {back.subject: number for back, number in zip(given_back, numbers, strict=True)}


def _credited(
    back: GivenBack, invoiced: Sequence[Any], given: Mapping[tuple[uuid.UUID, int], int]
) -> list[CreditNoteLineRow]:
    """The lines of a credit note, rate by rate.

    Args:
        invoiced: all lines of its invoice.
        given: (invoice, line) -> tax of lines that notes of this transaction give back.
    """
    known = {line.number: line.credited for line in invoiced if line.credited is not None}
    known |= {line: tax for (invoice, line), tax in given.items() if invoice == back.invoice_id}
    rows = []
    for rate in sorted({line.tax_rate for line in invoiced}):
        of_rate = [line for line in invoiced if line.tax_rate == rate]
        chosen = [line for line in of_rate if line.number in back.lines]
        before = [Amounts(x.net, known[x.number]) for x in of_rate if x.number in known]
        taxes = give_back(_sum(of_rate), _sum(before), [line.net for line in chosen])
        rows += [
            CreditNoteLineRow(
                credit_note_id=credit_note_id(back.subject),
                invoice_id=line.invoice_id,
                invoice_line=line.number,
                service_id=line.service_id,
                period_number=line.period_number,
                description=line.description,
                net=line.net,
                tax_rate=rate,
                tax=tax,
            )
            for line, tax in zip(chosen, taxes, strict=True)
        ]
    return rows


def _sum(lines: Iterable[Any]) -> Amounts:
    amounts = [(line.net, line.tax) for line in lines]
    return Amounts(sum(net for net, _ in amounts), sum(tax for _, tax in amounts))


def credit_note_id(subject: uuid.UUID) -> uuid.UUID:
    return derived_id("credit note", subject)
