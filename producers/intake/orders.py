"""Orders: each is taken once per (upstream, key), with its customer, its lines and its first task.

The same key with the same body gets the same answer, also when that was a refusal. The same key
with another body is rejected as ``key_reused``.
"""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import Event
from producers.intake.agreements import Agreement, Method, agree, save_methods
from producers.intake.documents import Answer, Document, Verdict
from producers.intake.validation import problems_of
from producers.renewals.customers import customers_changed
from producers.steps import PRICE, PRICING
from schemas.catalogue import Catalogue
from schemas.fields import is_identifier
from schemas.messages import OrderDocument, Problem, last_day
from schemas.settings import DEFAULT_GATEWAY
from schemas.tables import customers, order_lines
from schemas.tables.bulk import Bulk, insert
from schemas.values import CustomerId, OrderId, OrderState, Period, derived_id


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A document under a valid key: an order to be written, accepted or refused.

    Attributes:
        order: None if the shape of the document is not valid.
        problems: why it is refused; empty if it is accepted.
        method: the payment method the order names.
        method_id: the payment method it is paid with: its own, or the one its customer saved.
    """

    id: OrderId
    key: str
    hash: bytes
    order: OrderDocument | None
    problems: list[Problem]
    method: Method | None
    method_id: uuid.UUID | None

    @property
    def accepted(self) -> OrderDocument | None:
        return None if self.problems else self.order


_NO_METHOD = Problem(
    code="payment_method_missing",
    path="payment_method",
    message="the customer has no saved payment method",
)
_KEY_REUSED = Problem(
    code="key_reused", path="key", message="another document was taken under this key"
)


def take(
    tx: Connection,
    upstream: str,
    documents: Sequence[Document],
    catalogue: Catalogue,
    now: datetime,
) -> list[Answer]:
    """Write down the orders that are new.

    Returns:
        An answer for each document, in order.
    """
    saved = _saved_methods(tx, documents)
    candidates = [_candidate(upstream, document, saved, catalogue, now) for document in documents]
    decided = iter(_decide(tx, upstream, [c for c in candidates if c], catalogue, now))
    return [
        next(decided) if candidate else Answer(Verdict.REJECTED, None, problems=document.problems)
        for document, candidate in zip(documents, candidates, strict=True)
    ]


_SAVED = text("""
    SELECT id, payment_method_id FROM customers
    WHERE id = ANY(:ids) AND payment_method_id IS NOT NULL
""")


def _saved_methods(tx: Connection, documents: Iterable[Document]) -> dict[str, uuid.UUID]:
    """By customer: the saved method, for those whose order names none."""
    ids = {
        document.content.customer.id
        for document in documents
        if isinstance(document.content, OrderDocument) and document.content.payment_method is None
    }
    return dict(tx.execute(_SAVED, {"ids": sorted(ids)}).all()) if ids else {}


def _candidate(
    upstream: str,
    document: Document,
    saved: dict[str, uuid.UUID],
    catalogue: Catalogue,
    now: datetime,
) -> _Candidate | None:
    """None: without a valid key the document cannot be kept as an order."""
    key = _key_of(document.value)
    if key is None:
        return None
    order = document.content if isinstance(document.content, OrderDocument) else None
    problems, method, method_id = document.problems, None, None
    if order is not None:
        problems = problems_of(order, catalogue, now)
        method = _method(order)
        method_id = method.id if method else saved.get(order.customer.id)
        if method_id is None:
            problems.append(_NO_METHOD)
    return _Candidate(
        id=OrderId(derived_id("order", upstream, key)),
        key=key,
        hash=hashlib.sha256(document.body).digest(),
        order=order,
        problems=problems,
        method=method,
        method_id=method_id,
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


def _decide(
    tx: Connection,
    upstream: str,
    candidates: Sequence[_Candidate],
    catalogue: Catalogue,
    now: datetime,
) -> list[Answer]:
    """Write the orders that are new; answer the others as they were answered the first time."""
    first = {c.id: c for c in reversed(candidates)}
    if not first:
        return []
    # Looked up before anything is written: a repeated order must not overwrite what has changed
    # since, such as its customer's address.
    known = {row.id: row for row in tx.execute(_KNOWN, {"ids": list(first)})}
    unknown = [c for c in candidates if first[c.id] is c and c.id not in known]
    new = _write(tx, upstream, unknown, catalogue, now) if unknown else set()
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
    payment_method_id: uuid.UUID | None


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
    payment_method_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class _LineRow:
    order_id: OrderId
    number: int
    plan: str
    period_months: int
    quantity: int
    configuration: dict[str, str]


# An order never replaces a saved method: that takes the command payment_method. What the statement
# reads of a customer is as it was before; of a new one there is nothing.
_INSERT_CUSTOMERS = insert(
    _CustomerRow,
    customers,
    """ON CONFLICT (id) DO UPDATE SET
        updated_at = now(),
        subsidiary = excluded.subsidiary,
        country = excluded.country,
        language = excluded.language,
        email = excluded.email,
        vat_number = excluded.vat_number,
        payment_method_id = coalesce(t.payment_method_id, excluded.payment_method_id)
    WHERE t.payment_method_id IS NULL
        OR (t.subsidiary, t.country, t.language, t.email, t.vat_number)
        IS DISTINCT FROM (excluded.subsidiary, excluded.country, excluded.language,
            excluded.email, excluded.vat_number)
    RETURNING id, (
        SELECT (b.country, b.vat_number) IS DISTINCT FROM (t.country, t.vat_number)
        FROM customers AS b WHERE b.id = t.id) AS is_taxed_otherwise""",
)
_INSERT_ORDERS = Bulk(
    _OrderRow,
    """
    INSERT INTO orders (id, upstream, key, body_hash, state, problems, customer_id, subsidiary,
        country, vat_number, payment_method_id)
    SELECT id, upstream, key, decode(body_hash, 'hex'), state, problems, customer_id, subsidiary,
        country, vat_number, payment_method_id
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        id uuid, upstream text, key text, body_hash text, state text, problems jsonb,
        customer_id text, subsidiary text, country text, vat_number text, payment_method_id uuid)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
    """,
)
_INSERT_LINES = insert(_LineRow, order_lines)


def _write(
    tx: Connection,
    upstream: str,
    candidates: Sequence[_Candidate],
    catalogue: Catalogue,
    now: datetime,
) -> set[OrderId]:
    """Insert orders with everything that belongs to them.

    Returns:
        The orders inserted here; another transaction may have been faster with the rest.
    """
    # An order needs its customer's row, which is written before it is known who was faster.
    if people := _people(candidates):
        taxed_otherwise = [
            row.id for row in _INSERT_CUSTOMERS(tx, people) if row.is_taxed_otherwise
        ]
        if taxed_otherwise:
            customers_changed(tx, taxed_otherwise)
    new: set[OrderId] = set(
        _INSERT_ORDERS(tx, [_order_row(upstream, c) for c in candidates]).scalars()
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
        agree(tx, agreed, catalogue, now)
        _INSERT_LINES(tx, [row for c, order in accepted for row in _line_rows(c.id, order)])
        ledger.enqueue(tx, PRICE, [(c.id, PRICING) for c, _ in accepted])
    history.record(tx, [_event(upstream, c) for c in written])
    return new


def _people(candidates: Iterable[_Candidate]) -> list[_CustomerRow]:
    """The customers of accepted orders: as the last order describes them, with the payment method
    of the first."""
    orders = [(order, c.method_id) for c in candidates if (order := c.accepted)]
    newest = {order.customer.id: order.customer for order, _ in orders}
    methods = {order.customer.id: method_id for order, method_id in reversed(orders)}
    return [
        _CustomerRow(
            id=CustomerId(person.id),
            subsidiary=person.subsidiary,
            country=person.country,
            language=person.language,
            email=person.email,
            vat_number=person.vat_number,
            payment_method_id=methods[person.id],
        )
        for person in newest.values()
    ]


def _order_row(upstream: str, candidate: _Candidate) -> _OrderRow:
    c, order = candidate, candidate.accepted
    if order is None:
        refused = OrderState.REFUSED
        return _OrderRow(c.id, upstream, c.key, c.hash.hex(), refused, c.problems)
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
        payment_method_id=c.method_id,
    )


def _line_rows(order_id: OrderId, order: OrderDocument) -> list[_LineRow]:
    return [
        _LineRow(
            order_id=order_id,
            number=number,
            plan=line.plan,
            period_months=Period.parse(line.period).months,
            quantity=line.quantity,
            configuration=line.configuration,
        )
        for number, line in enumerate(order.lines, 1)
    ]


def _event(upstream: str, candidate: _Candidate) -> Event:
    if candidate.problems:
        codes = sorted({problem.code for problem in candidate.problems})
        return Event(candidate.id, "order.refused", {"codes": codes})
    return Event(candidate.id, "order.accepted", {"upstream": upstream})
