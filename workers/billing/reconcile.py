"""Our books against the gateway's: after a restored backup it knows of money that we forgot.

Keys follow from business facts, so that what we forgot is found again under the key that we would
charge it with next: it is booked as paid instead.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from producers.ledger import Claim, ClaimedTask
from producers.steps import BILLING, CHARGE
from schemas.values import ChargeState, Money, derived_id
from workers.billing.charge import Attempt, ChargeHandler
from workers.billing.gateway import (
    BookEntry,
    Charge,
    Gateway,
    GatewayAnswer,
    GatewayState,
)

# So many attempts of a request may have been forgotten.
FORGOTTEN_ATTEMPTS = 12


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


_OURS = text("""
    SELECT 'charge' AS kind, key, state, amount, currency, request_id, attempt FROM charges
    UNION ALL
    SELECT 'refund', key, state, amount, currency, NULL, attempt FROM refunds
""")
_OPEN = text("""
    SELECT r.id, r.total, r.currency, coalesce(max(c.attempt), 0) AS attempts
    FROM payment_requests AS r LEFT JOIN charges AS c ON c.request_id = r.id
    WHERE r.state = 'open' GROUP BY r.id, r.total, r.currency
""")


def compare(tx: Connection, gateway: Gateway) -> list[Found]:
    """Where the two books differ.

    Raises:
        BookUnavailable: the gateway's cannot be read.
    """
    theirs = {(entry.kind, entry.key): entry for entry in _entries(gateway)}
    ours = {(row.kind, str(row.key)): row for row in tx.execute(_OURS)}
    next_keys = dict(_next_keys(tx))
    found = []
    for place, entry in theirs.items():
        row = ours.get(place)
        if row is None or row.state != ChargeState.SUCCEEDED:
            found.append(_judge(entry, row, next_keys))
    for place, row in ours.items():
        if row.state == ChargeState.SUCCEEDED and row.amount and place not in theirs:
            amount = Money(row.amount, row.currency)
            found.append(Found(Difference.MISSING, row.kind, place[1], amount, None))
    return found


def _entries(gateway: Gateway) -> Iterator[BookEntry]:
    page = gateway.book(0)
    while page:
        yield from page
        page = gateway.book(page[-1].number)


def _next_keys(tx: Connection) -> Iterator[tuple[str, tuple[uuid.UUID, int]]]:
    """The keys under which open requests would be charged next."""
    for row in tx.execute(_OPEN):
        amount = Money(row.total, row.currency)
        for attempt in range(row.attempts + 1, row.attempts + 1 + FORGOTTEN_ATTEMPTS):
            yield str(derived_id("charge", row.id, amount, attempt)), (row.id, attempt)


def _judge(entry: BookEntry, row: Any, next_keys: dict[str, tuple[uuid.UUID, int]]) -> Found:
    about = (entry.kind, entry.key, entry.amount, entry.customer)
    if row is not None:
        if row.state == ChargeState.DECLINED:
            return Found(Difference.CONTRADICTED, *about, row.request_id, row.attempt)
        return Found(Difference.FORGOTTEN, *about, row.request_id, row.attempt)
    if entry.kind == "charge" and entry.key in next_keys:
        return Found(Difference.FORGOTTEN, *about, *next_keys[entry.key])
    return Found(Difference.UNKNOWN, *about)


_ATTEMPTED = text("""
    INSERT INTO charges (key, request_id, attempt, amount, currency, payment_method_id, state)
    SELECT :key, id, :attempt, total, currency, payment_method_id, 'unknown'
    FROM payment_requests WHERE id = :request_id
    ON CONFLICT (key) DO NOTHING
""")
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
    request = tx.execute(_REQUEST, {"id": found.request_id}).first()
    if request is None or found.attempt is None:
        return False
    tx.execute(
        _ATTEMPTED,
        {"key": found.key, "attempt": found.attempt, "request_id": found.request_id},
    )
    task = ClaimedTask(found.request_id, wanted=0, attempts=0, waited=0.0)
    attempt = Attempt(
        request_id=found.request_id,
        order_id=request.order_id,
        subsidiary=request.subsidiary,
        number=found.attempt,
        in_doubt=True,
        given_up=False,
        method_id=None,
        method_expires_on=None,
        charge=Charge(found.key, found.amount, "", found.customer or ""),
    )
    answer = GatewayAnswer(GatewayState.SUCCEEDED, reason="reconciled")
    # Under no lease: its task, if there is one, finds the request paid.
    claim = Claim(CHARGE, BILLING, uuid.uuid4(), (task,))
    handler.record(tx, claim, [(found.request_id, attempt, answer)])
    return True
