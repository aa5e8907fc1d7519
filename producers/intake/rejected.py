"""Documents that were not accepted: kept for a person to look at, with their secrets masked."""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from producers.intake.documents import Answer, Document
from schemas.messages import Problem
from schemas.tables import rejected_documents
from schemas.tables.bulk import insert
from schemas.values import derived_id

MAX_KEPT = 4000
"""Characters of a document that are kept."""


@dataclass(frozen=True, slots=True)
class _RejectedRow:
    id: uuid.UUID
    upstream: str
    door: str
    key: str | None
    code: str
    problems: list[Problem]
    body: str


_INSERT = insert(
    _RejectedRow,
    rejected_documents,
    "ON CONFLICT (id) DO UPDATE SET times = t.times + 1, received_at = now()",
)


def keep(
    tx: Connection, upstream: str, door: str, rejects: Iterable[tuple[Document, Answer]]
) -> None:
    """Keep documents and the problems they were answered with.

    The same document of the same upstream is kept once and counted.
    """
    rows: dict[uuid.UUID, _RejectedRow] = {}
    for document, answer in rejects:
        reject_id = derived_id("rejected", upstream, hashlib.sha256(document.body).hexdigest())
        rows[reject_id] = _RejectedRow(
            id=reject_id,
            upstream=upstream,
            door=door,
            key=answer.key,
            code=answer.problems[0].code,
            problems=answer.problems,
            body=redact(document.body, document.value),
        )
    if rows:
        _INSERT(tx, rows.values())


FORGET_AT_ONCE = 1000
_FORGET = text("""
    DELETE FROM rejected_documents WHERE id IN (
        SELECT id FROM rejected_documents
        WHERE received_at < now() - make_interval(days => :days)
        ORDER BY received_at LIMIT :most FOR UPDATE SKIP LOCKED)
""")


def forget(tx: Connection, days: int) -> int:
    """Delete the oldest of those that were last received so many days ago or earlier.

    Returns:
        How many; at most ``FORGET_AT_ONCE``.
    """
    return tx.execute(_FORGET, {"days": days, "most": FORGET_AT_ONCE}).rowcount


# Fields a person needs in order to find the mistake. The value of any other field may be secret,
# above all where its name is misspelt.
_SHOWN_FIELDS = {
    "key", "customer", "id", "subsidiary", "country", "language", "contracts", "contract",
    "version", "lines", "plan", "period", "quantity", "configuration", "command", "services",
    "expires_on", "mode", "payment_gateway",
}  # fmt: skip
_WORD = re.compile(r"[^\W_][\w.@+-]*")
_EMAIL = re.compile(r"[^\s@]+@\S+")


def redact(body: bytes, value: Any) -> str:
    """A copy that is safe to store: secrets are masked, at most ``MAX_KEPT`` ASCII characters.

    Args:
        value: what ``body`` is as JSON; None if it is not JSON.
    """
    if isinstance(value, dict):
        return json.dumps(_shown(value), ensure_ascii=True).replace("\\u0000", "")[:MAX_KEPT]
    words = ascii(body[:500])
    shown = _WORD.sub(lambda word: word[0] if word[0] in _SHOWN_FIELDS else "***", words)
    return f"{len(body)} bytes that are not an order: {shown}"[:MAX_KEPT]


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
