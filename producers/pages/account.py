"""What pages read of a customer, as the database role ``readonly``."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from producers.intake.customer import subject_of
from producers.intake.links import Opened, Purpose
from producers.pages.rows import (
    Effect,
    Row,
    Status,
    renewing,
    resuming,
    row_of,
    stopping,
    totals,
)
from producers.renewals import next_steps
from producers.renewals.announcing import Payer
from producers.renewals.next_steps import Renewable
from schemas.catalogue import Catalogue, Contract
from schemas.rules.payable import PaymentMethod
from schemas.values import Money, RenewalMode

ON_A_PAGE = 50
"""Services on a page. What is chosen on one is in one link, which has to fit into an address."""

_CUSTOMER = text("""
    SELECT id, subsidiary, country, vat_number, language, email FROM customers WHERE id = :id
""")
_ADDRESS_CHANGED = text("""
    SELECT 1 FROM events
    WHERE subject = :subject AND name = 'customer.changed' AND at > :since
      AND detail->'fields' ? 'email'
    LIMIT 1
""")
_COUNT = text("""
    SELECT count(*) FROM services
    WHERE customer_id = :customer AND state NOT IN ('terminated', 'cancelled')
""")
_PAGE = text("""
    SELECT id, plan, configuration, anchor FROM services
    WHERE customer_id = :customer AND state NOT IN ('terminated', 'cancelled')
    ORDER BY expires_at, id LIMIT :limit OFFSET :skip
""")
_OWN = text("""
    SELECT id, plan, configuration, anchor, mode_before FROM services
    WHERE customer_id = :customer AND id = ANY(:ids)
""")
_METHODS = text("SELECT id, expires_on FROM payment_methods WHERE id = ANY(:ids)")


@dataclass(frozen=True, slots=True)
class Customer:
    """Who is spoken to.

    Attributes:
        brand: under whose name.
    """

    id: str
    language: str
    brand: str
    email: str
    country: str
    vat_number: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """Some of the services of a customer.

    Attributes:
        count: of all that there are.
        page: which part this is, from 1.
        pages: how many parts there are.
    """

    rows: Sequence[Row]
    count: int
    page: int
    pages: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What a link does, if it is clicked now.

    Attributes:
        totals: what is charged now, with tax, by currency.
        contracts: that are accepted.
        problems: service, or nothing where it is about none -> the code of why it is refused.
    """

    effects: Sequence[Effect]
    totals: Sequence[Money]
    contracts: Sequence[Contract]
    problems: Mapping[str, str]

    @property
    def changes(self) -> list[Effect]:
        return [e for e in self.effects if e.problem is None and not e.is_so]

    @property
    def is_possible(self) -> bool:
        """It is done whole or not at all."""
        return not self.problems and bool(self.changes)


def customer(tx: Connection, id_: str, catalogue: Catalogue) -> Customer | None:
    row = tx.execute(_CUSTOMER, {"id": id_}).first()
    if row is None:
        return None
    buys_from = catalogue.subsidiary(row.subsidiary)
    return Customer(
        id=row.id,
        language=row.language,
        brand=buys_from.entity,
        email=row.email,
        country=row.country,
        vat_number=row.vat_number,
    )


def address_changed_since(tx: Connection, id_: str, moment: datetime) -> bool:
    """Whether the customer has got another e-mail address since a link was made: it may have been
    sent to somebody who is not the customer any more."""
    parameters = {"subject": subject_of(id_), "since": moment}
    return tx.execute(_ADDRESS_CHANGED, parameters).first() is not None


def listing(
    tx: Connection, whose: Customer, catalogue: Catalogue, now: datetime, *, page: int
) -> Listing:
    """One page of a customer's services, the first to expire first."""
    count: int = tx.execute(_COUNT, {"customer": whose.id}).scalar_one()
    pages = max(1, -(-count // ON_A_PAGE))
    page = min(max(page, 1), pages)
    parameters = {"customer": whose.id, "limit": ON_A_PAGE, "skip": (page - 1) * ON_A_PAGE}
    found = tx.execute(_PAGE, parameters).all()
    return Listing(_rows(tx, found, whose, catalogue, now), count, page, pages)


def some(
    tx: Connection,
    ids: Sequence[uuid.UUID],
    whose: Customer,
    catalogue: Catalogue,
    now: datetime,
) -> list[Row]:
    """Those of a customer's services, in this order."""
    found = {row.id: row for row in tx.execute(_OWN, {"customer": whose.id, "ids": list(ids)})}
    ordered = [found[id_] for id_ in dict.fromkeys(ids) if id_ in found]
    return _rows(tx, ordered, whose, catalogue, now)


def _rows(
    tx: Connection, found: Sequence[Any], whose: Customer, catalogue: Catalogue, now: datetime
) -> list[Row]:
    held, payers = _held(tx, [row.id for row in found], whose, catalogue)
    return [
        row_of(held[row.id], payers[row.id], catalogue, now)
        if row.id in held
        else _arriving(row, catalogue)
        for row in found
    ]


def _arriving(row: Any, catalogue: Catalogue) -> Row:
    detail = row.configuration.get("domain") or ""
    return Row(row.id, catalogue.known_plan(row.plan).name, detail, Status.ARRIVING)


def _held(
    tx: Connection, ids: Collection[uuid.UUID], whose: Customer, catalogue: Catalogue
) -> tuple[dict[uuid.UUID, Renewable], dict[uuid.UUID, Payer]]:
    """Delivered services, and who pays each."""
    held: dict[uuid.UUID, Renewable] = {s.id: s for s in next_steps.load(tx, ids, catalogue)}
    paid_with = list({s.payment_method_id for s in held.values()} - {None})
    rows = tx.execute(_METHODS, {"ids": paid_with}) if paid_with else ()
    methods = {row.id: PaymentMethod(row.id, row.expires_on) for row in rows}
    payers = {
        id_: Payer(
            whose.country,
            whose.vat_number,
            methods.get(s.payment_method_id) if s.payment_method_id else None,
        )
        for id_, s in held.items()
    }
    return held, payers


def preview(
    tx: Connection, link: Opened, whose: Customer, catalogue: Catalogue, now: datetime
) -> Preview:
    """What the command of a link does now; it changes nothing.

    Raises:
        ValueError: the link carries no command.
    """
    command = link.command
    if command is None:
        raise ValueError("a link without a command")
    seen = _seen(command)
    found = {r.id: r for r in tx.execute(_OWN, {"customer": whose.id, "ids": list(seen)})}
    held, payers = _held(tx, list(found), whose, catalogue)
    accepts = {c["contract"]: c["version"] for c in command.get("contracts", ())}
    contracts, problems = _contracts(accepts, catalogue)
    effects, charged = [], []
    for id_, expires_on in seen.items():
        if id_ not in found:
            problems[str(id_)] = "service_unknown"
            continue
        if id_ not in held:
            problems[str(id_)] = "service_not_delivered"
            effects.append(Effect(_arriving(found[id_], catalogue), "service_not_delivered"))
            continue
        service, payer = held[id_], payers[id_]
        match link.purpose:
            case Purpose.STOP:
                effect = stopping(service, payer, catalogue, link.made_at, now)
            case Purpose.RESUME:
                before = RenewalMode(found[id_].mode_before or RenewalMode.AUTOMATIC)
                effect = resuming(service, before, payer, catalogue, link.made_at, now)
            case _:
                effect = renewing(
                    service, expires_on, payer, catalogue, link.made_at, now, accepts=accepts
                )
        if effect.problem is not None:
            problems[str(id_)] = effect.problem
        if effect.quote is not None and effect.announced is None:
            charged.append((service, effect.quote))
        effects.append(effect)
    return Preview(effects, totals(charged), contracts, problems)


def _seen(command: Mapping[str, Any]) -> dict[uuid.UUID, date]:
    """The services of a command, and the expiry that its customer saw, if it names one."""
    if command["command"] == "renew":
        return {
            uuid.UUID(s["id"]): date.fromisoformat(s["expires_on"]) for s in command["services"]
        }
    return dict.fromkeys(map(uuid.UUID, command["services"]), date.min)


def _contracts(
    accepts: Mapping[str, int], catalogue: Catalogue
) -> tuple[list[Contract], dict[str, str]]:
    """The contracts that are accepted, and why one cannot be."""
    contracts = [catalogue.contract(code) for code in accepts]
    found = [contract for contract in contracts if contract is not None]
    outdated = any(c.version != accepts[c.code] for c in found)
    if len(found) < len(contracts):
        return found, {"": "contract_unknown"}
    return found, {"": "contract_outdated"} if outdated else {}


def masked(email: str) -> str:
    """An address as its owner recognizes it, and nobody else can use it.

    >>> masked("alice@example.com")
    'a…@example.com'
    """
    name, _, domain = email.rpartition("@")
    return f"{name[:1]}…@{domain}"
