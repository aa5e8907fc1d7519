"""The one function behind every door orders come in by.

An order is taken once per (upstream, key). The same key with the same body gives the same
answer, also when that was a refusal; with another body it is rejected as ``key_reused``. One bad
document never harms its neighbours, and what is not accepted is kept where a person finds it.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from producers import history, ledger
from producers.failpoints import failpoint
from producers.history import Event
from producers.steps import PRICE, PRICING
from producers.validation import problems_of
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.database import is_data_error
from schemas.messages import OrderDocument, Problem, parse
from schemas.tables import (
    agreements,
    customers,
    order_lines,
    orders,
    payment_methods,
    rejected_documents,
    rows_from_json,
)
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
            SQLAlchemyError: nothing was taken in; the batch may be sent again as it is.
        """
        try:
            answers = self._place(upstream, door, bodies)
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
        with self._engine.begin() as tx:
            catalogue = self._catalogue.current(tx)
            now = self._clock.now()
            answers: list[Answer | None] = []
            candidates: list[_Candidate] = []
            values = []
            for body in bodies:
                value, order, problems = parse(body)
                values.append(value)
                key = _key_of(value)
                if key is None:
                    answers.append(Answer(Verdict.REJECTED, None, problems=problems))
                    continue
                answers.append(None)
                if order is not None:
                    problems = problems_of(order, catalogue, now)
                candidates.append(
                    _Candidate(
                        derived_id("order", upstream, key),
                        key,
                        hashlib.sha256(body).digest(),
                        order,
                        problems,
                        value,
                    )
                )
            decided = iter(_take(tx, upstream, candidates))
            whole = [answer or next(decided) for answer in answers]
            rejects = [
                (body, value, answer)
                for body, value, answer in zip(bodies, values, whole, strict=True)
                if answer.verdict is not Verdict.ACCEPTED and not answer.repeated
            ]
            if rejects:
                _keep(tx, upstream, door, rejects)
            failpoint("intake.before_commit")
        return whole


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


def _insert(table: Any, columns: Sequence[str], conflict: str) -> Any:
    return text(
        f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT * FROM "
        + rows_from_json(table, *columns)
        + f" ORDER BY 1 {conflict}"
    )


_INSERT_ORDERS = _insert(orders, _ORDER, "ON CONFLICT (id) DO NOTHING RETURNING id")
_INSERT_CUSTOMERS = _insert(
    customers,
    _CUSTOMER,
    "ON CONFLICT (id) DO UPDATE SET updated_at = now(), "
    + ", ".join(f"{name} = excluded.{name}" for name in _CUSTOMER[1:])
    + f" WHERE ({', '.join(f'customers.{name}' for name in _CUSTOMER)})"
    f" IS DISTINCT FROM ({', '.join(f'excluded.{name}' for name in _CUSTOMER)})",
)
_INSERT_METHODS = _insert(payment_methods, ("id", "customer_id", "token"), "ON CONFLICT DO NOTHING")
_INSERT_AGREEMENTS = _insert(
    agreements, ("customer_id", "contract", "version"), "ON CONFLICT DO NOTHING"
)
_INSERT_LINES = _insert(
    order_lines,
    ("order_id", "number", "plan", "period_months", "quantity", "configuration"),
    "",
)


def _take(tx: Connection, upstream: str, candidates: list[_Candidate]) -> list[Answer]:
    """Write down what is new; answer what is known as it was answered before."""
    first = {c.id: c for c in reversed(candidates)}
    if not first:
        return []
    # Asked first: what comes again must not touch what has changed since, such as a customer.
    known = {row.id: row for row in tx.execute(_KNOWN, {"ids": list(first)})}
    unknown = [c for c in first.values() if c.id not in known]
    new = set(_write(tx, upstream, unknown)) if unknown else set()
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


def _write(tx: Connection, upstream: str, candidates: list[_Candidate]) -> list[uuid.UUID]:
    """Insert orders with all that belongs to them; returns those that nobody else inserted."""
    accepted = [(c, c.order) for c in candidates if c.order is not None and not c.problems]
    people = {order.customer.id: order.customer for _, order in accepted}
    if people:
        tx.execute(_INSERT_CUSTOMERS, _rows([person.model_dump() for person in people.values()]))
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
                "payment_method_id": str(_method_id(c.order)),
            }
        order_rows.append(row)
    new = set(tx.execute(_INSERT_ORDERS, _rows(order_rows)).scalars())
    accepted = [(c, order) for c, order in accepted if c.id in new]
    if accepted:
        _write_what_customers_gave(tx, [order for _, order in accepted])
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


def _method_id(order: OrderDocument) -> uuid.UUID:
    return derived_id("payment method", order.customer.id, order.payment_method)


def _write_what_customers_gave(tx: Connection, accepted: list[OrderDocument]) -> None:
    """Payment methods, and the contracts that were accepted."""
    methods = {_method_id(o): (o.customer.id, o.payment_method) for o in accepted}
    tx.execute(
        _INSERT_METHODS,
        _rows([{"id": str(i), "customer_id": c, "token": t} for i, (c, t) in methods.items()]),
    )
    agreed = sorted({(o.customer.id, a.contract, a.version) for o in accepted for a in o.contracts})
    if agreed:
        columns = ("customer_id", "contract", "version")
        rows = [dict(zip(columns, row, strict=True)) for row in agreed]
        tx.execute(_INSERT_AGREEMENTS, _rows(rows))


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
    "version", "lines", "plan", "period", "quantity", "configuration",
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
