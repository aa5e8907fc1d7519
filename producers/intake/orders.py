"""Orders: each is taken once per (upstream, key), with its customer, its lines and its first task.

The same key with the same body gets the same answer, also when that was a refusal. The same key
with another body is rejected as ``key_reused``.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import Event
from producers.intake.agreements import Agreement, Method, agree, save_methods
from producers.intake.documents import Answer, Document, Verdict
from producers.intake.realms import may_touch, not_yours
from producers.intake.validation import KnownCustomer, problems_of
from producers.steps import PRICE, PRICING
from schemas.catalogue import Catalogue
from schemas.catalogue.models import Price
from schemas.fields import is_identifier
from schemas.json_bodies import at_most
from schemas.messages import LineDocument, OrderDocument, Problem, last_day
from schemas.settings import DEFAULT_GATEWAY
from schemas.tables import customers, order_lines
from schemas.tables.bulk import Bulk, insert
from schemas.values import CustomerId, Money, OrderId, OrderState, Period, derived_id


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A document under a valid key: an order to be written, accepted or refused.

    Attributes:
        order: None if the shape of the document is not valid.
        problems: why it is refused; empty if it is accepted.
        method: the payment method the order names.
        method_id: the payment method it is paid with: its own, or the one its customer saved;
            None: there is nothing to pay.
    """

    id: OrderId
    key: str
    hash: bytes
    order: OrderDocument | None
    problems: list[Problem]
    method: Method | None
    method_id: uuid.UUID | None
    trace: str | None = None

    @property
    def accepted(self) -> OrderDocument | None:
        return None if self.problems else self.order


_NO_METHOD = Problem(
    code="payment_method_missing",
    path="payment_method",
    message="the customer has no saved payment method",
)
_KEY_REUSED = Problem(
    code="key_reused",
    path="key",
    message="this key has the answer to another document: send a changed one under a new key",
)


def take(
    tx: Connection,
    upstream: str,
    documents: Sequence[Document],
    catalogue: Catalogue,
    now: datetime,
    *,
    realm: str | None,
) -> list[Answer]:
    """Write down the orders that are new.

    Args:
        realm: of the upstream; None: an operator, who may order for any customer.

    Returns:
        An answer for each document, in order.
    """
    batch = _Batch(upstream, realm, catalogue, now, _known_customers(tx, documents))
    candidates = [_candidate(batch, document) for document in documents]
    decided = iter(_decide(tx, batch, [c for c in candidates if c]))
    return [
        next(decided)
        if candidate
        else Answer(Verdict.REJECTED, _key_of(document.value), problems=document.problems)
        for document, candidate in zip(documents, candidates, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Where and when documents come in, and what is known of their customers.

    Attributes:
        realm: None: an operator's.
    """

    upstream: str
    realm: str | None
    catalogue: Catalogue
    now: datetime
    customers: Mapping[str, KnownCustomer]

    @property
    def own_realm(self) -> str:
        """Of customers that are created by it."""
        return self.realm or self.upstream


class Raced(Exception):
    """Another upstream created a customer in the meantime: look again."""


_CUSTOMERS = text("""
    SELECT id, country, vat_number, payment_method_id, realm FROM customers WHERE id = ANY(:ids)
""")


def _known_customers(tx: Connection, documents: Iterable[Document]) -> dict[str, KnownCustomer]:
    ids = {
        document.content.customer.id
        for document in documents
        if isinstance(document.content, OrderDocument)
    }
    rows = tx.execute(_CUSTOMERS, {"ids": sorted(ids)}) if ids else ()
    return {id_: KnownCustomer(*values) for id_, *values in rows}


def _candidate(batch: _Batch, document: Document) -> _Candidate | None:
    """None: without a valid key the document cannot be kept as an order, nor one of a version
    that is not known: the same key takes it once it is."""
    key = _key_of(document.value)
    if key is None or not document.is_ours:
        return None
    order = document.content if isinstance(document.content, OrderDocument) else None
    problems, method, method_id = document.problems, None, None
    if order is not None:
        known = batch.customers.get(order.customer.id)
        problems = problems_of(order, batch.catalogue, batch.now, known)
        method = _method(order)
        if known is not None and not may_touch(batch.realm, known.realm):
            problems.append(not_yours("customer.id"))
        elif method is not None:
            method_id = method.id
        elif known is not None and known.payment_method_id is not None:
            method_id = known.payment_method_id
        elif problems or not _is_free(order, batch.catalogue):
            problems.append(_NO_METHOD)
    return _Candidate(
        id=OrderId(derived_id("order", batch.upstream, key)),
        key=key,
        hash=hashlib.sha256(document.body).digest(),
        order=order,
        problems=at_most(problems),
        method=method,
        method_id=method_id,
        trace=document.trace,
    )


def _key_of(value: Any) -> str | None:
    key = value.get("key") if isinstance(value, dict) else None
    return key if isinstance(key, str) and is_identifier(key) else None


def _method(order: OrderDocument) -> Method | None:
    if order.payment_method is None:
        return None
    month = order.payment_method_expires
    return Method(
        order.customer.id,
        order.payment_method,
        last_day(month) if month else None,
        order.payment_gateway or DEFAULT_GATEWAY,
    )


_KNOWN = text("SELECT id, body_hash, state, problems FROM orders WHERE id = ANY(:ids)")


def _decide(tx: Connection, batch: _Batch, candidates: Sequence[_Candidate]) -> list[Answer]:
    """Write the orders that are new; answer the others as they were answered the first time."""
    first = {c.id: c for c in reversed(candidates)}
    if not first:
        return []
    known = {row.id: row for row in tx.execute(_KNOWN, {"ids": list(first)})}
    unknown = [c for c in candidates if first[c.id] is c and c.id not in known]
    new = _write(tx, batch, unknown) if unknown else set()
    if len(new) < len(unknown):  # another transaction wrote them in the meantime
        raced = [c.id for c in unknown if c.id not in new]
        known |= {row.id: row for row in tx.execute(_KNOWN, {"ids": raced})}
    answers = []
    for c in candidates:
        if c.id in new:
            original = first[c.id]
            is_fresh, same_body = c is original, c.hash == original.hash
            refused, problems = bool(original.problems), original.problems
        else:
            row = known[c.id]
            is_fresh, same_body = False, c.hash == bytes(row.body_hash)
            refused = row.state == OrderState.REFUSED
            problems = [Problem(**problem) for problem in row.problems or []]
        if same_body:
            verdict = Verdict.REFUSED if refused else Verdict.ACCEPTED
            answers.append(Answer(verdict, c.key, c.id, problems, repeated=not is_fresh))
        else:
            answers.append(Answer(Verdict.REJECTED, c.key, c.id, [_KEY_REUSED]))
    return answers


@dataclass(frozen=True, slots=True)
class _CustomerRow:
    id: CustomerId
    subsidiary: str
    country: str
    language: str
    email: str
    vat_number: str | None
    name: str | None
    company: str | None
    address: dict[str, Any] | None
    payment_method_id: uuid.UUID | None
    realm: str


@dataclass(frozen=True, slots=True)
class _OrderRow:
    """``customer_id`` and what follows are None in an order that is refused."""

    id: OrderId
    upstream: str
    key: str
    body_hash: str  # hexadecimal
    state: OrderState
    problems: list[Problem] | None
    customer_id: CustomerId | None = None
    subsidiary: str | None = None
    country: str | None = None
    vat_number: str | None = None
    billed_to: dict[str, Any] | None = None
    payment_method_id: uuid.UUID | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class _LineRow:
    order_id: OrderId
    number: int
    plan: str
    period_months: int
    quantity: int
    configuration: dict[str, str]
    setup: Money
    renewal: Money
    currency: str


# The first order says who a customer is; a later one changes nothing of that. The method of the
# first that names one is saved; another takes the command payment_method.
_INSERT_CUSTOMERS = insert(
    _CustomerRow,
    customers,
    """ON CONFLICT (id) DO UPDATE SET
        payment_method_id = coalesce(t.payment_method_id, excluded.payment_method_id)
    WHERE t.payment_method_id IS NULL OR t.realm IS DISTINCT FROM excluded.realm
    RETURNING id, realm""",
)
_INSERT_ORDERS = Bulk(
    _OrderRow,
    """
    INSERT INTO orders (id, upstream, key, body_hash, state, problems, customer_id, subsidiary,
        country, vat_number, billed_to, payment_method_id, trace)
    SELECT id, upstream, key, decode(body_hash, 'hex'), state, problems, customer_id, subsidiary,
        country, vat_number, billed_to, payment_method_id, trace
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        id uuid, upstream text, key text, body_hash text, state text, problems jsonb,
        customer_id text, subsidiary text, country text, vat_number text, billed_to jsonb,
        payment_method_id uuid, trace text)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
    """,
)
_INSERT_LINES = insert(_LineRow, order_lines)


def _write(tx: Connection, batch: _Batch, candidates: Sequence[_Candidate]) -> set[OrderId]:
    """Insert orders with everything that belongs to them.

    Returns:
        The orders inserted here; another transaction may have been faster with the rest.

    Raises:
        Raced: a customer was created by another realm in the meantime.
    """
    # An order needs its customer's row, which is written before it is known who was faster.
    if people := _people(candidates, batch.own_realm):
        for row in _INSERT_CUSTOMERS(tx, people):
            if row.id not in batch.customers and row.realm != batch.own_realm:
                raise Raced(row.id)
    new: set[OrderId] = set(
        _INSERT_ORDERS(tx, [_order_row(batch.upstream, c) for c in candidates]).scalars()
    )
    written = [c for c in candidates if c.id in new]
    accepted = [(c, order) for c in written if (order := c.accepted)]
    if accepted:
        save_methods(tx, [c.method for c, _ in accepted if c.method])
        agreed = [
            Agreement(order.customer.id, agreement.contract, agreement.version)
            for _, order in accepted
            for agreement in order.contracts
        ]
        agree(tx, agreed, batch.catalogue, batch.now)
        _INSERT_LINES(
            tx, [row for c, order in accepted for row in _line_rows(c.id, order, batch.catalogue)]
        )
        ledger.enqueue(tx, PRICE, [(c.id, PRICING) for c, _ in accepted])
    history.record(tx, [_event(batch.upstream, c, batch.catalogue) for c in written])
    return new


def _people(candidates: Iterable[_Candidate], realm: str) -> list[_CustomerRow]:
    """The customers of accepted orders, each as their first order here describes them."""
    orders = [(order, c.method_id) for c in candidates if (order := c.accepted)]
    first = {order.customer.id: (order.customer, method) for order, method in reversed(orders)}
    return [
        _CustomerRow(
            id=CustomerId(person.id),
            subsidiary=person.subsidiary,
            country=person.country,
            language=person.language,
            email=person.email,
            vat_number=person.vat_number,
            name=person.name,
            company=person.company,
            address=person.address.as_kept() if person.address else None,
            payment_method_id=method_id,
            realm=realm,
        )
        for person, method_id in first.values()
    ]


def _order_row(upstream: str, candidate: _Candidate) -> _OrderRow:
    c, order = candidate, candidate.accepted
    if order is None:
        refused = OrderState.REFUSED
        return _OrderRow(c.id, upstream, c.key, c.hash.hex(), refused, c.problems, trace=c.trace)
    return _OrderRow(
        id=c.id,
        upstream=upstream,
        key=c.key,
        body_hash=c.hash.hex(),
        state=OrderState.ACCEPTED,
        problems=None,
        customer_id=CustomerId(order.customer.id),
        subsidiary=order.customer.subsidiary,
        country=order.customer.country,
        vat_number=order.customer.vat_number,
        billed_to=order.customer.billed_to,
        payment_method_id=c.method_id,
        trace=c.trace,
    )


def _line_rows(order_id: OrderId, order: OrderDocument, catalogue: Catalogue) -> Iterator[_LineRow]:
    for number, line in enumerate(order.lines, 1):
        price = _price(order, line, catalogue)
        yield _LineRow(
            order_id=order_id,
            number=number,
            plan=line.plan,
            period_months=Period.parse(line.period).months,
            quantity=line.quantity,
            configuration=line.configuration,
            setup=price.setup,
            renewal=price.renewal,
            currency=price.renewal.currency,
        )


def _price(order: OrderDocument, line: LineDocument, catalogue: Catalogue) -> Price:
    """What each unit of a line costs that was found to be sold."""
    plan = catalogue.plan(line.plan)
    price = plan.price(order.customer.subsidiary, Period.parse(line.period)) if plan else None
    if price is None:
        raise ValueError(f"{line.plan} is not sold")
    return price


def _is_free(order: OrderDocument, catalogue: Catalogue) -> bool:
    """Whether nothing has to be paid for an order without problems."""
    prices = (_price(order, line, catalogue) for line in order.lines)
    return all(price.setup.amount == price.renewal.amount == 0 for price in prices)


# Of the hash of a document its event tells so many hexadecimal digits: enough to hold the one
# against the other.
TOLD_DIGITS = 16


def _event(upstream: str, candidate: _Candidate, catalogue: Catalogue) -> Event:
    body = candidate.hash.hex()[:TOLD_DIGITS]
    order = candidate.accepted
    if order is None:
        codes = sorted({problem.code for problem in candidate.problems})
        return Event(candidate.id, "order.refused", {"codes": codes, "body": body})
    detail = {"upstream": upstream, "body": body, "net": _net(order, catalogue)}
    return Event(candidate.id, "order.accepted", detail)


def _net(order: OrderDocument, catalogue: Catalogue) -> int:
    """What all its units cost at first, before tax, in minor units."""
    prices = ((line.quantity, _price(order, line, catalogue)) for line in order.lines)
    return sum(quantity * (price.setup.amount + price.renewal.amount) for quantity, price in prices)
