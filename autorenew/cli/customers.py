"""Commands about customers: who they are, and whose."""

import json
from collections.abc import Sequence
from typing import Any

import click
from sqlalchemy import text

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json, database, realms, say, show
from autorenew.cli.helping import Commands
from autorenew.cli.names import check_customers
from autorenew.cli.services import send
from producers.control.naming import UnknownName
from producers.intake.customer import subject_of
from producers.views import customers as views
from schemas.errors import AutorenewError
from schemas.json_bodies import unambiguous

ERASABLE = ("vat_number", "name", "company", "address")

_HISTORY = text("SELECT at, name, detail FROM events WHERE subject = :subject ORDER BY at, id")
_ASSIGN = text("""
    UPDATE customers SET realm = :realm, updated_at = now()
    WHERE realm IS DISTINCT FROM :realm AND (
        id = ANY(CAST(:ids AS text[])) OR (:unassigned AND realm IS NULL))
""")


@click.group(cls=Commands)
def customer() -> None:
    """Show customers, and change what is known of them."""


@customer.command("show")
@click.argument("customer_id", metavar="CUSTOMER")
@as_json
def show_customer(customer_id: str, as_json: bool) -> None:
    """Show what is known of CUSTOMER, and when it changed."""
    with database().connect() as tx:
        facts = views.facts(tx, customer_id)
        if facts is None:
            raise AutorenewError(f"there is no customer {customer_id!r}")
        events = tx.execute(_HISTORY, {"subject": subject_of(customer_id)}).all()
    if as_json:
        listed = [dict(event._mapping) for event in events]
        click.echo(json.dumps({**facts, "history": listed}, default=str))
        return
    for name, value in facts.items():
        if value is not None:
            shown = json.dumps(value, ensure_ascii=False) if name == "address" else value
            say(f"{name.replace('_', ' '):20} {shown}")
    rows = [(e.at, e.name, ", ".join((e.detail or {}).get("fields", ()))) for e in events]
    show("history", ("at", "event", "fields"), rows, json_lines=False)


@customer.command()
@click.argument("customer_id", metavar="CUSTOMER")
@click.option("--email", help="Where e-mails go.")
@click.option("--language", metavar="CODE", help="Of e-mails; ISO 639, such as fr.")
@click.option("--country", metavar="CODE", help="Where they live; ISO 3166, such as FR.")
@click.option("--vat-number", metavar="NUMBER", help="With its country, such as FR40303265045.")
@click.option("--name", help="Of the person that invoices are made out to.")
@click.option("--company", help="Of the company that invoices are made out to.")
@click.option("--address", metavar="JSON", help='{"lines": ["…"], "postal_code": "…", "city": "…"}')
@click.option("--erase", multiple=True, type=click.Choice(ERASABLE), help="May be repeated.")
@as_json
@acts()
def change(customer_id: str, erase: Sequence[str], as_json: bool, **named: Any) -> None:
    """Change what is named of CUSTOMER; the rest stays.

    What is still unpaid is asked for anew if it is taxed otherwise by now.
    """
    document: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if "address" in document:
        try:
            document["address"] = unambiguous(document["address"])
        except ValueError as error:
            said = f"is not JSON: {error}"
            raise click.BadParameter(said, param_hint="--address") from None
    if twice := sorted(set(erase) & document.keys()):
        raise click.UsageError(f"{', '.join(twice)}: either a value or --erase")
    document |= dict.fromkeys(erase)
    if not document:
        raise click.UsageError("name what to change; see --help")
    send({"command": "customer", "customer": customer_id, **document}, as_json, database())


@customer.command()
@click.argument("upstream")
@click.argument("customers", nargs=-1)
@click.option("--unassigned", is_flag=True, help="Those that belong to no upstream yet.")
def assign(upstream: str, customers: Sequence[str], unassigned: bool) -> None:
    """Give CUSTOMERS to the realm of UPSTREAM: from then on only it may order for them."""
    if unassigned == bool(customers):
        raise click.UsageError("name CUSTOMERS, or --unassigned")
    engine = database()
    realm = realms().of(upstream, "assign")
    with engine.begin() as tx:
        try:
            check_customers(tx, customers)
        except UnknownName as error:
            raise UnknownName(f"{error}\nnothing was done") from None
        where = {"realm": realm, "ids": list(customers), "unassigned": unassigned}
        count = tx.execute(_ASSIGN, where).rowcount
    say(f"{count} customers belong to realm {realm} now")
