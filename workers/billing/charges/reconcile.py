"""Our books against the gateway's: after a restored backup it knows of money that we forgot.

Keys follow from business facts, so that what we forgot is found again under the key that we would
charge it with next: it is booked as paid instead.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import combinations
from typing import Any

from sqlalchemy import Connection, text

from producers.ledger import Claim, ClaimedTask
from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from producers.steps import BILLING, CHARGE
from schemas.books import BookEntry
from schemas.catalogue import Catalogue
from schemas.errors import DataError
from schemas.rules import lifecycle
from schemas.rules.lifecycle import Step
from schemas.values import ChargeState, Money, RequestId
from workers.billing.charges.attempt import Attempt, charge_key
from workers.billing.charges.charge import ChargeHandler
from workers.billing.gateways.port import Charge, GatewayAnswer, GatewayState
from workers.billing.payment_requests import store
from workers.billing.payment_requests.draft import (
    Customer,
    Draft,
    draft,
    former_id_of,
    parts_of,
    quote_of,
)

# So many attempts of a request may have been forgotten.
FORGOTTEN_ATTEMPTS = 12
# Of a customer with few services, so many of them are tried together.
CLICKED_TOGETHER = 3
FEW_SERVICES = 20


class Difference(StrEnum):
    FORGOTTEN = "forgotten"  # the gateway took it for a request that is open here: can be booked
    CONTRADICTED = "contradicted"  # the gateway took it, here it says declined
    UNKNOWN = "unknown"  # nothing here would have asked for it (yet)
    MISSING = "missing"  # here it says taken or given back, the gateway knows nothing of it


@dataclass(frozen=True, slots=True)
class Found:
    difference: Difference
    kind: str
    key: str
    amount: Money
    customer: str | None
    request_id: uuid.UUID | None = None
    attempt: int | None = None
    draft: Draft | None = None
    """The payment request, if it was forgotten, too: as it would be made now."""


# Of the gateways whose books were read.
_OURS = text("""
    SELECT 'charge' AS kind, c.key, c.state, c.amount, c.currency, c.request_id, c.attempt
    FROM charges AS c LEFT JOIN payment_methods AS m ON m.id = c.payment_method_id
    WHERE coalesce(m.gateway, 'default') = ANY(:gateways)
    UNION ALL
    SELECT 'refund', f.key, f.state, f.amount, f.currency, NULL, f.attempt
    FROM refunds AS f JOIN charges AS c ON c.key = f.charge_key
    LEFT JOIN payment_methods AS m ON m.id = c.payment_method_id
    WHERE coalesce(m.gateway, 'default') = ANY(:gateways) AND NOT f.by_hand
""")
_OPEN = text("""
    SELECT r.id, r.total, r.currency, coalesce(max(c.attempt), 0) AS attempts
    FROM payment_requests AS r LEFT JOIN charges AS c ON c.request_id = r.id
    WHERE r.state = 'open' GROUP BY r.id, r.total, r.currency
""")


def compare(
    tx: Connection,
    books: Mapping[str, Sequence[BookEntry]],
    catalogue: Catalogue,
    now: datetime,
) -> list[Found]:
    """Where our books and those of gateways differ.

    Args:
        books: gateway -> its book, whole.
    """
    theirs = {(entry.kind, entry.key): entry for book in books.values() for entry in book}
    rows = tx.execute(_OURS, {"gateways": list(books)})
    ours = {(row.kind, str(row.key)): row for row in rows}
    unbooked = [
        (entry, ours.get(place))
        for place, entry in theirs.items()
        if place not in ours or ours[place].state != ChargeState.SUCCEEDED
    ]
    next_keys: NextKeys = {}
    if unbooked:
        next_keys |= _next_keys(tx)
        next_keys |= _keys_of_drafts(tx, {e.customer for e, _ in unbooked}, catalogue, now)
    found = [_judge(entry, row, next_keys) for entry, row in unbooked]
    for place, row in ours.items():
        if row.state == ChargeState.SUCCEEDED and row.amount and place not in theirs:
            amount = Money(row.amount, row.currency)
            found.append(Found(Difference.MISSING, row.kind, place[1], amount, None))
    return found


NextKeys = dict[str, tuple[uuid.UUID, int, Draft | None]]


def _next_keys(tx: Connection) -> NextKeys:
    """The keys under which open requests would be charged next."""
    keys: NextKeys = {}
    for row in tx.execute(_OPEN):
        amount = Money(row.total, row.currency)
        for attempt in range(row.attempts + 1, row.attempts + 1 + FORGOTTEN_ATTEMPTS):
            keys[str(charge_key(row.id, amount, attempt))] = row.id, attempt, None
    return keys


def _keys_of_drafts(
    tx: Connection, whose: Collection[str | None], catalogue: Catalogue, now: datetime
) -> NextKeys:
    """The same for the requests that are due to be made for these customers."""
    ids = tx.execute(_THEIRS, {"customers": sorted(c for c in whose if c)}).scalars().all()
    services = [
        service
        for service in next_steps.load(tx, ids, catalogue, charges=True)
        if service.request_id is None and service.view.starts_at is not None
    ]
    customers = store.customers(tx, services)
    keys: NextKeys = {}
    for group in _groups(services, now):
        for drawn in _drafts(group, customers[group[0].customer_id], now):
            amount = drawn.net + drawn.tax
            former = replace(drawn, id=former_id_of(drawn.services))
            for one in (former, drawn):  # it may have been charged by a release before this one
                for attempt in range(1, 1 + FORGOTTEN_ATTEMPTS):
                    keys[str(charge_key(one.id, amount, attempt))] = one.id, attempt, one
    return keys


def _drafts(group: Sequence[Renewable], customer: Customer, now: datetime) -> list[Draft]:
    """The requests that services get which are asked for together."""
    try:
        quotes = {service.id: quote_of(service, customer, now) for service in group}
    except DataError:
        return []  # it cannot be asked for now; its neighbours can
    return [draft(part, customer, now) for part in parts_of(group, quotes)]


def _groups(services: Sequence[Renewable], now: datetime) -> Iterator[list[Renewable]]:
    """What may have been asked for together: what is due together, and of each customer what may
    have been clicked, a few services at a time."""
    due: dict[uuid.UUID, list[Renewable]] = {}
    by_customer: dict[tuple[object, ...], list[Renewable]] = {}
    for service in services:
        whose = service.customer_id, service.subsidiary.code, service.payment_method_id
        by_customer.setdefault(whose, []).append(service)
        view = service.view
        payment = lifecycle.next_payment(view, service.plan.policy, view.began_at)
        if payment is not None and payment.step is Step.REQUEST and payment.at <= now:
            due.setdefault(next_steps.subject_of(service, payment), []).append(service)
    yield from due.values()
    for theirs in by_customer.values():
        most = CLICKED_TOGETHER if len(theirs) <= FEW_SERVICES else 1
        for size in range(1, most + 1):
            yield from map(list, combinations(theirs, size))
        yield theirs


def _judge(entry: BookEntry, row: Any, next_keys: NextKeys) -> Found:
    about = (entry.kind, entry.key, entry.amount, entry.customer)
    if row is not None:
        if row.state == ChargeState.DECLINED:
            return Found(Difference.CONTRADICTED, *about, row.request_id, row.attempt)
        return Found(Difference.FORGOTTEN, *about, row.request_id, row.attempt)
    if entry.kind == "charge" and entry.key in next_keys:
        return Found(Difference.FORGOTTEN, *about, *next_keys[entry.key])
    return Found(Difference.UNKNOWN, *about)


_THEIRS = text("""
    SELECT id FROM services
    WHERE customer_id = ANY(:customers) AND state IN ('active', 'suspended')
""")
_ATTEMPTED = text("""
    INSERT INTO charges (key, request_id, attempt, amount, currency, payment_method_id, state)
    SELECT :key, id, :attempt, total, currency, payment_method_id, 'unknown'
    FROM payment_requests WHERE id = :request_id
    ON CONFLICT (key) DO NOTHING
""")
_EXISTS = text("SELECT 1 FROM payment_requests WHERE id = :id")
_REQUEST = text(
    "SELECT order_id, subsidiary FROM payment_requests WHERE id = :id AND state = 'open'"
)


def book(tx: Connection, handler: ChargeHandler, found: Found) -> bool:
    """Book a forgotten charge: its request is paid, invoiced, and its services go on.

    Returns:
        False: it is nothing that can be booked, or it was meanwhile. What was begun and not
        decided of a refund is asked about by itself, once its lane is resumed.
    """
    if found.difference is not Difference.FORGOTTEN or found.request_id is None:
        return False
    if found.draft is not None:
        next_steps.lock(tx, [service.id for service in found.draft.services])
        if tx.execute(_EXISTS, {"id": found.request_id}).first() is None:
            store.write(tx, [found.draft])
    request = tx.execute(_REQUEST, {"id": found.request_id}).first()
    if request is None or found.attempt is None:
        return False
    tx.execute(
        _ATTEMPTED,
        {"key": found.key, "attempt": found.attempt, "request_id": found.request_id},
    )
    task = ClaimedTask(found.request_id, wanted=0, attempts=0, waited=0.0)
    attempt = Attempt(
        request_id=RequestId(found.request_id),
        order_id=request.order_id,
        subsidiary=request.subsidiary,
        number=found.attempt,
        in_doubt=True,
        given_up=False,
        method_id=None,
        gateway=None,
        cannot_pay=None,
        charge=Charge(found.key, found.amount, "", found.customer or ""),
    )
    answer = GatewayAnswer(GatewayState.SUCCEEDED, reason="reconciled")
    # Under no lease: its task, if there is one, finds the request paid.
    claim = Claim(CHARGE, BILLING, uuid.uuid4(), (task,))
    handler.record(tx, claim, [(found.request_id, attempt, answer)])
    return True
