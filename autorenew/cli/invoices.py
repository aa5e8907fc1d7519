"""Commands about invoices and credit notes: what they say, as the HTTP API says it."""

import uuid
from typing import Any

import click
from pydantic import TypeAdapter
from sqlalchemy import Connection

from autorenew.cli.common import as_json, database, say, show
from autorenew.cli.helping import Commands
from autorenew.cli.selecting import Text
from producers.views import customers, documents
from producers.views.documents import CreditNoteView, DocumentLine, InvoiceRow, InvoiceView
from schemas.errors import AutorenewError

_PAGE = 500
_ROW = TypeAdapter(InvoiceRow)
_DOCUMENT: TypeAdapter[InvoiceView | CreditNoteView] = TypeAdapter(InvoiceView | CreditNoteView)


@click.group(cls=Commands)
def invoice() -> None:
    """Invoices and credit notes, as they were issued."""


@invoice.command("list")
@click.argument("customer", type=Text())
@as_json
def list_invoices(customer: str, as_json: bool) -> None:
    """List the invoices of CUSTOMER, the newest first, and what corrects each."""
    with database().connect() as tx:
        if customers.facts(tx, customer) is None:
            raise AutorenewError(f"there is no customer {customer!r}")
        found = _all(tx, customer)
    if as_json:
        for one in found:
            click.echo(_ROW.dump_json(one))
        return
    rows = [
        (one.number, one.issued_on, one.net, one.tax, one.total, ", ".join(one.credit_notes))
        for one in found
    ]
    show("invoices", ("invoice", "issued_on", "net", "tax", "total", "corrected_by"), rows,
         json_lines=False)  # fmt: skip


def _all(tx: Connection, customer: str) -> list[InvoiceRow]:
    found: list[InvoiceRow] = []
    last: uuid.UUID | None = None
    while True:
        page, last = documents.invoices_of_customer(tx, customer, limit=_PAGE, before=last)
        found += page
        if last is None:
            return found


@invoice.command("show")
@click.argument("number", type=Text())
@as_json
def show_invoice(number: str, as_json: bool) -> None:
    """Show the invoice or the credit note of NUMBER, line by line."""
    with database().connect() as tx:
        found = documents.invoice(tx, number) or documents.credit_note(tx, number)
    if found is None:
        raise AutorenewError(f"there is no invoice and no credit note {number!r}")
    if as_json:
        click.echo(_DOCUMENT.dump_json(found))
        return
    for name, value in _facts(found):
        if value:
            say(f"{name:14} {value}")
    columns = ("line", "description", "service", "net", "rate", "tax")
    show("lines", columns, [_line(one) for one in found.lines], json_lines=False)


def _facts(found: InvoiceView | CreditNoteView) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("credit note" if isinstance(found, CreditNoteView) else "invoice", found.number),
        ("issued on", found.issued_on),
        ("customer", found.customer),
        ("subsidiary", found.subsidiary),
    ]
    if isinstance(found, CreditNoteView):
        refunds = (f"{one.amount} {one.state}" for one in found.refunds)
        facts += [
            ("corrects", found.invoice), ("because", found.reason), ("refunds", ", ".join(refunds)),
        ]  # fmt: skip
    else:
        facts += [
            ("country", found.country), ("VAT number", found.vat_number),
            ("taxed", found.tax_mention), ("order", found.order_key),
            ("corrected by", ", ".join(found.credit_notes)),
        ]  # fmt: skip
    return [*facts, ("net", found.net), ("tax", found.tax), ("total", found.total)]


def _line(line: DocumentLine) -> tuple[Any, ...]:
    return (
        line.number, line.description, line.service, line.net, f"{line.tax_rate} %", line.tax
    )  # fmt: skip
