"""The command ``customer``: what is known of a customer changes here, and nowhere else."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import Event
from producers.intake.documents import Refused
from producers.renewals.customers import customers_changed
from producers.steps import MAIL, REMIND, TELL
from schemas.catalogue import Catalogue
from schemas.clock import local_date
from schemas.fields import vat_number
from schemas.messages import AddressDocument, CustomerCommand, Problem
from schemas.rules import sellable
from schemas.tables.bulk import Bulk
from schemas.values import CustomerId, derived_id


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """What can be changed of a customer."""

    id: CustomerId
    country: str
    language: str
    email: str
    vat_number: str | None
    name: str | None
    company: str | None
    address: dict[str, Any] | None


_READ = text("""
    SELECT id, country, language, email, vat_number, name, company, address
    FROM customers WHERE id = :id FOR NO KEY UPDATE
""")
_WRITE = Bulk(
    CustomerRow,
    """
    UPDATE customers AS c SET country = r.country, language = r.language, email = r.email,
        vat_number = r.vat_number, name = r.name, company = r.company, address = r.address,
        updated_at = now()
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        id text, country text, language text, email text, vat_number text, name text,
        company text, address jsonb)
    WHERE c.id = r.id
    """,
)
# Where the customer buys, or is about to.
_SUBSIDIARIES = text("""
    SELECT DISTINCT subsidiary FROM services
    WHERE customer_id = :id AND state NOT IN ('terminated', 'cancelled')
""")
# Those that have something to say.
_UNSENT = text("""
    SELECT id FROM emails AS e WHERE customer_id = :id AND sent_at IS NULL
      AND EXISTS (SELECT FROM notices AS n WHERE n.email_id = e.id)
""")

_UNSENT_ORDERS = text("""
    SELECT e.order_id FROM orders AS o JOIN order_emails AS e ON e.order_id = o.id
    WHERE o.customer_id = :id AND e.refused_at IS NOT NULL AND e.sent_at IS NULL
      AND EXISTS (SELECT FROM tasks AS t WHERE t.name = 'tell' AND t.subject = o.id)
""")


def change(tx: Connection, command: CustomerCommand, catalogue: Catalogue, now: datetime) -> bool:
    """Change what is named. What was asked for under another tax is asked for anew, and e-mails
    that could not be delivered are sent to a new address.

    Returns:
        Whether anything is different now.

    Raises:
        Refused: there is no such customer; or no tax rate is known for them where they buy.
    """
    found = tx.execute(_READ, {"id": command.customer}).first()
    if found is None:
        message = f"no customer {command.customer!r}"
        raise Refused([Problem(code="customer_unknown", path="customer", message=message)])
    before = dict(found._mapping)
    after = CustomerRow(**before | _named(command, before["country"]))
    changed = sorted(name for name in before if before[name] != getattr(after, name))
    if not changed:
        return False
    is_taxed_otherwise = not {"country", "vat_number"}.isdisjoint(changed)
    if is_taxed_otherwise:
        problems = list(_obstacles(tx, after, catalogue, now))
        if problems:
            raise Refused(problems)
    _WRITE(tx, [after])
    history.record(tx, [Event(subject_of(after.id), "customer.changed", {"fields": changed})])
    if is_taxed_otherwise:
        customers_changed(tx, [after.id])
    if "email" in changed:
        unsent: list[uuid.UUID] = list(tx.execute(_UNSENT, {"id": after.id}).scalars())
        ledger.enqueue(tx, REMIND, [(email, MAIL) for email in unsent])
        orders: list[uuid.UUID] = list(tx.execute(_UNSENT_ORDERS, {"id": after.id}).scalars())
        ledger.enqueue(tx, TELL, [(order, MAIL) for order in orders])
    return True


def subject_of(customer: str) -> uuid.UUID:
    """What the history of a customer is kept under."""
    return derived_id("customer", customer)


def _named(command: CustomerCommand, country: str) -> dict[str, Any]:
    """The fields that are named, as they are kept."""
    named = command.changes
    number, address = named.get("vat_number"), named.get("address")
    if number is not None:
        named["vat_number"] = vat_number(number, named.get("country", country))
    if isinstance(address, AddressDocument):
        named["address"] = address.as_kept()
    return named


def _obstacles(
    tx: Connection, customer: CustomerRow, catalogue: Catalogue, now: datetime
) -> Iterator[Problem]:
    """Found now and not when a service is to be renewed."""
    for code in sorted(tx.execute(_SUBSIDIARIES, {"id": customer.id}).scalars()):
        subsidiary = catalogue.subsidiary(code)
        today = local_date(now, subsidiary.timezone)
        for obstacle in sellable.of_customer(
            subsidiary, customer.country, customer.vat_number, today
        ):
            message = f"{obstacle.message}, and there are services in {code}"
            yield Problem(code=obstacle.code, path=obstacle.about, message=message)
