"""The one function behind every door that orders and commands come in by.

An order is taken once per (upstream, key). The same key with the same body gives the same
answer, also when that was a refusal; with another body it is rejected as ``key_reused``. One bad
document never harms its neighbours, and what is not accepted is kept where a person finds it.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

from monitoring import metrics
from producers import history, ledger
from producers.failpoints import failpoint
from producers.history import Event
from producers.intake import commands
from producers.intake.agreements import Agreement, Method, agree, save_methods
from producers.intake.validation import problems_of
from producers.steps import PRICE, PRICING
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.database import is_conflict, is_data_error
from schemas.messages import CommandDocument, OrderDocument, Problem, last_day, parse
from schemas.tables import customers, order_lines, orders, rejected_documents, rows_from_json
from schemas.values import OrderState, Period, derived_id


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"  # an order that cannot be sold as it is; its key is taken
    REJECTED = "rejected"  # not an order, or not under this key


@dataclass(frozen=True, slots=True)
class Answer:
    """What upstream is told about one document.

    Attributes:
        repeated: the same document came before; this is the answer it got.
    """

    verdict: Verdict
    key: str | None
    order_id: uuid.UUID | None = None
    problems: list[Problem] = field(default_factory=list)
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A document under a key: an order to be, accepted or refused."""

    id: uuid.UUID
    key: str
    hash: bytes
    order: OrderDocument | None
    problems: list[Problem]
    value: Any
    method_id: uuid.UUID | None
    """The saved payment method, for an order that names none."""


# What lost to another transaction has done nothing.
_AGAIN = Retrying(
    retry=retry_if_exception(is_conflict),
    stop=stop_after_attempt(5),
    wait=wait_random(0, 0.05),
    reraise=True,
)

_Document = tuple[bytes, Any, OrderDocument | CommandDocument | None, list[Problem]]


class Intake:
    """Takes documents in.

    Args:
        engine: as the database role ``api``.
    """

    def __init__(self, engine: Engine, catalogue: CatalogueCache, clock: Clock) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._clock = clock

    def place(self, upstream: str, door: str, bodies: Sequence[bytes]) -> list[Answer]:
        """Take a batch of documents of one upstream; returns an answer for each, in order.

        Raises:
            SQLAlchemyError: the batch may be sent again as it is; what was taken in by then is
                answered as repeated.
        """
        try:
            answers = _AGAIN(self._place, upstream, door, bodies)
        except SQLAlchemyError as error:
            if not is_data_error(error):
                raise
            if len(bodies) > 1:  # one of them is bad in a way nobody foresaw: find it
                middle = len(bodies) // 2
                return self.place(upstream, door, bodies[:middle]) + self.place(
                    upstream, door, bodies[middle:]
                )
            problem = Problem(code="data", path="", message="the database refuses its data")
            answers = [Answer(Verdict.REJECTED, None, problems=[problem])]
            with self._engine.begin() as tx:
                _keep(tx, upstream, door, [(bodies[0], None, answers[0])])
        for answer in answers:
            outcome = "repeated" if answer.repeated else answer.verdict.value
            metrics.documents.labels(door, outcome).inc()
        return answers

    def reject(
        self, upstream: str, door: str, bodies: Sequence[bytes], problems: list[Problem]
    ) -> None:
        """Keep documents that cannot even be looked at, such as those nobody sent."""
        answer = Answer(Verdict.REJECTED, None, problems=problems)
        with self._engine.begin() as tx:
            _keep(tx, upstream, door, [(body, parse(body)[0], answer) for body in bodies])
        metrics.documents.labels(door, answer.verdict.value).inc(len(bodies))

    def _place(self, upstream: str, door: str, bodies: Sequence[bytes]) -> list[Answer]:
        """Orders are taken many at a time; a command, and an order that is paid with what its
        customer has saved, waits for those before it, as they came."""
        answers: list[Answer] = []
        parsed = [(body, *parse(body)) for body in bodies]
        for kind, group in groupby(parsed, key=_kind):
            is_command = kind is _Kind.COMMAND
            for documents in ([document] for document in group) if is_command else [list(group)]:
                with self._engine.begin() as tx:
                    catalogue = self._catalogue.current(tx)
                    if is_command:
                        answered = [self._command(tx, *documents[0][2:], catalogue)]
                    else:
                        answered = self._orders(tx, upstream, documents, catalogue)
                    rejects = [
                        (body, value, answer)
                        for (body, value, *_), answer in zip(documents, answered, strict=True)
                        if answer.verdict is not Verdict.ACCEPTED and not answer.repeated
                    ]
                    if rejects:
                        _keep(tx, upstream, door, rejects)
                    failpoint("intake.before_commit")
                answers += answered
        return answers

    def _command(
        self,
        tx: Connection,
        command: OrderDocument | CommandDocument | None,
        problems: list[Problem],
        catalogue: Catalogue,
    ) -> Answer:
        if command is None or isinstance(command, OrderDocument):
            return Answer(Verdict.REJECTED, None, problems=problems)
        try:
            with tx.begin_nested():
                changed = commands.apply(tx, command, catalogue, self._clock.now())
        except commands.Refused as refused:
            return Answer(Verdict.REFUSED, None, problems=refused.problems)
        return Answer(Verdict.ACCEPTED, None, repeated=not changed)

    def _orders(
        self,
        tx: Connection,
        upstream: str,
        documents: Sequence[_Document],
        catalogue: Catalogue,
    ) -> list[Answer]:
        now = self._clock.now()
        answers: list[Answer | None] = []
        candidates: list[_Candidate] = []
        saved = _saved_methods(tx, [order for _, _, order, _ in documents])
        for body, value, order, problems in documents:
            key = _key_of(value)
            if key is None:
                answers.append(Answer(Verdict.REJECTED, None, problems=problems))
                continue
            answers.append(None)
            taken = order if isinstance(order, OrderDocument) else None
            if taken is not None:
                problems = problems_of(taken, catalogue, now)
                if taken.payment_method is None and taken.customer.id not in saved:
                    problems.append(_NO_METHOD)
            candidates.append(
                _Candidate(
                    id=derived_id("order", upstream, key),
                    key=key,
                    hash=hashlib.sha256(body).digest(),
                    order=taken,
                    problems=problems,
                    value=value,
                    method_id=saved.get(taken.customer.id) if taken is not None else None,
                )
            )
        decided = iter(_take(tx, upstream, candidates, catalogue, now))
        return [answer or next(decided) for answer in answers]


class _Kind(Enum):
    COMMAND = 1
    ORDER = 2
    ORDER_ON_SAVED_METHOD = 3


def _kind(document: _Document) -> _Kind:
    _, value, parsed, _ = document
    if isinstance(value, dict) and "command" in value:
        return _Kind.COMMAND
    if isinstance(parsed, OrderDocument) and parsed.payment_method is None:
        return _Kind.ORDER_ON_SAVED_METHOD
    return _Kind.ORDER


_NO_METHOD = Problem(
    code="payment_method_missing",
    path="payment_method",
    message="the customer has no saved payment method",
)
_SAVED = text("""
    SELECT id, payment_method_id FROM customers
    WHERE id = ANY(:ids) AND payment_method_id IS NOT NULL
""")


def _saved_methods(tx: Connection, orders: Iterable[Any]) -> dict[str, uuid.UUID]:
    """The saved methods of customers whose order names none."""
    ids = {
        order.customer.id
        for order in orders
        if isinstance(order, OrderDocument) and order.payment_method is None
    }
    return dict(tx.execute(_SAVED, {"ids": sorted(ids)}).all()) if ids else {}


def _key_of(value: Any) -> str | None:
    key = value.get("key") if isinstance(value, dict) else None
    if isinstance(key, str) and re.fullmatch(r"[^\x00-\x1f\x7f]{1,100}", key):
        return key
    return None


_KNOWN = text("SELECT id, body_hash, state, problems FROM orders WHERE id = ANY(:ids)")

_ORDER = (
    "id", "upstream", "key", "body_hash", "state", "customer_id", "subsidiary", "country",
    "vat_number", "payment_method_id", "problems",
)  # fmt: skip
_CUSTOMER = ("id", "subsidiary", "country", "language", "email", "vat_number")
_NEW_CUSTOMER = (*_CUSTOMER, "payment_method_id")


def _insert(table: Any, columns: Sequence[str], conflict: str) -> Any:
    return text(
        f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT * FROM "
        + rows_from_json(table, *columns)
        + f" ORDER BY 1 {conflict}"
    )


_INSERT_ORDERS = _insert(orders, _ORDER, "ON CONFLICT (id) DO NOTHING RETURNING id")
# A saved method stays: another one for good is a command of its own.
_INSERT_CUSTOMERS = _insert(
    customers,
    _NEW_CUSTOMER,
    "ON CONFLICT (id) DO UPDATE SET updated_at = now(), "
    + ", ".join(f"{name} = excluded.{name}" for name in _CUSTOMER[1:])
    + ", payment_method_id = coalesce(customers.payment_method_id, excluded.payment_method_id)"
    f" WHERE customers.payment_method_id IS NULL"
    f" OR ({', '.join(f'customers.{name}' for name in _CUSTOMER)})"
    f" IS DISTINCT FROM ({', '.join(f'excluded.{name}' for name in _CUSTOMER)})",
)
_INSERT_LINES = _insert(
    order_lines,
    ("order_id", "number", "plan", "period_months", "quantity", "configuration"),
    "",
)


def _take(
    tx: Connection,
    upstream: str,
    candidates: list[_Candidate],
    catalogue: Catalogue,
    now: datetime,
) -> list[Answer]:
    """Write down what is new; answer what is known as it was answered before."""
    first = {c.id: c for c in reversed(candidates)}
    if not first:
        return []
    # Asked first: what comes again must not touch what has changed since, such as a customer.
    known = {row.id: row for row in tx.execute(_KNOWN, {"ids": list(first)})}
    unknown = [c for c in candidates if first[c.id] is c and c.id not in known]
    new = set(_write(tx, upstream, unknown, catalogue, now)) if unknown else set()
    if len(new) < len(unknown):  # taken at the same moment by somebody else
        raced = [c.id for c in unknown if c.id not in new]
        known |= {row.id: row for row in tx.execute(_KNOWN, {"ids": raced})}
    answers = []
    for candidate in candidates:
        fresh = candidate.id in new and first[candidate.id] is candidate
        if fresh or candidate.id in new:
            original = first[candidate.id]
            same_body = candidate.hash == original.hash
            refused, problems = bool(original.problems), original.problems
        else:
            row = known[candidate.id]
            same_body = candidate.hash == bytes(row.body_hash)
            refused = row.state == OrderState.REFUSED
            problems = [Problem(**problem) for problem in row.problems or []]
        if same_body:
            verdict = Verdict.REFUSED if refused else Verdict.ACCEPTED
            answers.append(Answer(verdict, candidate.key, candidate.id, problems, not fresh))
        else:
            problem = Problem(
                code="key_reused", path="key", message="another document was taken under this key"
            )
            answers.append(
                Answer(Verdict.REJECTED, candidate.key, candidate.id, problems=[problem])
            )
    return answers


def _write(
    tx: Connection,
    upstream: str,
    candidates: list[_Candidate],
    catalogue: Catalogue,
    now: datetime,
) -> list[uuid.UUID]:
    """Insert orders with all that belongs to them; returns those that nobody else inserted."""
    accepted = [(c, c.order) for c in candidates if c.order is not None and not c.problems]
    # Of a customer's orders the last one knows the address, the first one saves its method.
    people = {order.customer.id: order.customer for _, order in accepted}
    methods = {order.customer.id: str(_method_id(c)) for c, order in reversed(accepted)}
    if people:
        rows = [
            person.model_dump() | {"payment_method_id": methods[customer]}
            for customer, person in people.items()
        ]
        tx.execute(_INSERT_CUSTOMERS, _rows(rows))
    order_rows = []
    for c in candidates:
        row: dict[str, Any] = {
            "id": str(c.id),
            "upstream": upstream,
            "key": c.key,
            "body_hash": "\\x" + c.hash.hex(),
            "state": OrderState.REFUSED if c.problems else OrderState.ACCEPTED,
            "problems": [p.model_dump() for p in c.problems] or None,
        }
        if c.order is not None and not c.problems:
            person = c.order.customer
            row |= {
                "customer_id": person.id,
                "subsidiary": person.subsidiary,
                "country": person.country,
                "vat_number": person.vat_number,
                "payment_method_id": str(_method_id(c)),
            }
        order_rows.append(row)
    new = set(tx.execute(_INSERT_ORDERS, _rows(order_rows)).scalars())
    accepted = [(c, order) for c, order in accepted if c.id in new]
    if accepted:
        given = [order for _, order in accepted]
        save_methods(tx, (method for order in given if (method := _method(order))))
        agreed = (
            Agreement(order.customer.id, agreement.contract, agreement.version)
            for order in given
            for agreement in order.contracts
        )
        agree(tx, agreed, catalogue, now)
        tx.execute(
            _INSERT_LINES,
            _rows(
                [
                    {
                        "order_id": str(c.id),
                        "number": number,
                        "plan": line.plan,
                        "period_months": Period.parse(line.period).months,
                        "quantity": line.quantity,
                        "configuration": line.configuration,
                    }
                    for c, order in accepted
                    for number, line in enumerate(order.lines, 1)
                ]
            ),
        )
        ledger.enqueue(tx, PRICE, [(c.id, PRICING) for c, _ in accepted])
    history.record(
        tx,
        (
            Event(c.id, "order.refused", {"codes": sorted({p.code for p in c.problems})})
            if c.problems
            else Event(c.id, "order.accepted", {"upstream": upstream})
            for c in candidates
            if c.id in new
        ),
    )
    return list(new)


def _method(order: OrderDocument) -> Method | None:
    """The payment method an order names."""
    if order.payment_method is None:
        return None
    month = order.payment_method_expires
    return Method(order.customer.id, order.payment_method, last_day(month) if month else None)


def _method_id(candidate: _Candidate) -> uuid.UUID | None:
    method = _method(candidate.order) if candidate.order is not None else None
    return method.id if method is not None else candidate.method_id


def _rows(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {"rows": json.dumps(rows)}


_REJECT = text(
    "INSERT INTO rejected_documents AS d (id, upstream, door, key, code, problems, body)"
    " SELECT * FROM "
    + rows_from_json(
        rejected_documents, "id", "upstream", "door", "key", "code", "problems", "body"
    )
    + " ORDER BY id ON CONFLICT (id) DO UPDATE SET times = d.times + 1, received_at = now()"
)


def _keep(
    tx: Connection, upstream: str, door: str, rejects: list[tuple[bytes, Any, Answer]]
) -> None:
    """Keep what was not accepted, once, redacted, with the reasons."""
    rows = {}
    for body, value, answer in rejects:
        reject_id = str(derived_id("rejected", upstream, hashlib.sha256(body).hexdigest()))
        rows[reject_id] = {
            "id": reject_id,
            "upstream": upstream,
            "door": door,
            "key": answer.key,
            "code": answer.problems[0].code,
            "problems": [p.model_dump() for p in answer.problems],
            "body": redact(body, value),
        }
    tx.execute(_REJECT, _rows(list(rows.values())))


# What a person needs in order to see what is wrong, and no more: values of every other field,
# misspelt ones above all, may be secret.
_SHOWN_FIELDS = {
    "key", "customer", "id", "subsidiary", "country", "language", "contracts", "contract",
    "version", "lines", "plan", "period", "quantity", "configuration", "command", "services",
    "expires_on", "mode",
}  # fmt: skip
_WORD = re.compile(r"[^\W_][\w.@+-]*")


def redact(body: bytes, value: Any) -> str:
    """A document without what must not lie about: readable, at most 4,000 characters."""
    if isinstance(value, dict):
        return json.dumps(_shown(value), ensure_ascii=True).replace("\\u0000", "")[:4000]
    words = ascii(body[:500])
    shown = _WORD.sub(lambda word: word[0] if word[0] in _SHOWN_FIELDS else "***", words)
    return f"{len(body)} bytes that are not an order: {shown}"[:4000]


def _shown(value: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _shown_item(item) if name in _SHOWN_FIELDS else "***" for name, item in value.items()
    }


def _shown_item(item: Any) -> Any:
    if isinstance(item, dict):
        return _shown(item)
    if isinstance(item, list):
        return [_shown_item(part) for part in item]
    return _EMAIL.sub("***", item[:200]) if isinstance(item, str) else item


_EMAIL = re.compile(r"[^\s@]+@\S+")
