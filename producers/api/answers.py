"""The same request under the same Idempotency-Key gets the same answer, and is done once.

The answer is written in the transaction that did what was asked for. A second request that comes
meanwhile waits for that transaction, and is then answered from it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from producers.api.keys import Key
from producers.api.problems import Failed
from schemas.json_bodies import Problem

KEPT_HOURS = 48
FORGET_AT_ONCE = 1000

_BEGIN = text("""
    INSERT INTO api_answers (key_id, name, request_hash) VALUES (:key, :name, :hash)
    ON CONFLICT DO NOTHING RETURNING key_id
""")
_READ = text("""
    SELECT request_hash, status, body FROM api_answers WHERE key_id = :key AND name = :name
""")
_KEEP = text("""
    UPDATE api_answers SET status = :status, body = :body WHERE key_id = :key AND name = :name
""")
_FORGET = text("""
    DELETE FROM api_answers WHERE (key_id, name) IN (
        SELECT key_id, name FROM api_answers
        WHERE answered_at < now() - make_interval(hours => :hours)
        ORDER BY answered_at LIMIT :most FOR UPDATE SKIP LOCKED)
""")

Effect = Callable[[Connection], dict[str, Any] | Failed]


@dataclass(frozen=True, slots=True)
class Request:
    """What tells one request from another.

    Attributes:
        name: its Idempotency-Key; None: it has none.
    """

    key: Key
    name: str | None
    what: str
    body: bytes

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.what.encode() + b"\0" + self.body).digest()


def once(engine: Engine, request: Request, effect: Effect) -> dict[str, Any]:
    """Do something once, in one transaction with its answer.

    Args:
        effect: does it; or returns why not, or raises that: what it had changed is undone then.

    Returns:
        What the effect returned, now or the first time.

    Raises:
        Failed: the effect did, now or the first time; or another request was made under the key.
    """
    if request.name is None:
        with engine.begin() as tx:
            done = effect(tx)
        return _answer(done)
    with engine.begin() as tx:
        named = {"key": request.key.id, "name": request.name}
        if tx.execute(_BEGIN, {**named, "hash": request.hash}).first() is None:
            return _again(tx, request, named)
        try:
            with tx.begin_nested():
                answer = effect(tx)
        except Failed as error:
            answer = error
        status = answer.status if isinstance(answer, Failed) else 200
        said = answer.document if isinstance(answer, Failed) else answer
        tx.execute(_KEEP, {**named, "status": status, "body": json.dumps(said, default=str)})
    return _answer(answer)


def _answer(answer: dict[str, Any] | Failed) -> dict[str, Any]:
    if isinstance(answer, Failed):
        raise answer
    return answer


def _again(tx: Connection, request: Request, named: dict[str, Any]) -> dict[str, Any]:
    row = tx.execute(_READ, named).one()
    if bytes(row.request_hash) != request.hash:
        raise Failed("key_reused")
    answer: dict[str, Any] = json.loads(row.body)
    if row.status == 200:
        return answer
    problems = [Problem(**problem) for problem in answer.get("problems", ())]
    raise Failed(answer["code"], answer["detail"], problems=problems, status=row.status)


def forget(engine: Engine) -> int:
    """Delete answers that are old enough; at most :data:`FORGET_AT_ONCE`."""
    with engine.begin() as tx:
        given = {"hours": KEPT_HOURS, "most": FORGET_AT_ONCE}
        return tx.execute(_FORGET, given).rowcount
