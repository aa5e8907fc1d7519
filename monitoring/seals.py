"""Whether documents and history are what they were when they were hashed.

Each invoice and credit note holds a hash over itself and the one before it in its series; the
history is sealed in blocks. What is changed, added or deleted later breaks a hash. Whoever may
write everything can compute all hashes anew: a copy of the heads that is kept elsewhere shows that.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Head:
    """The last link of a chain: a series of documents, or the blocks of the history."""

    chain: str
    number: int
    hash: str


# A document without a hash is wrong like one with another.
_BROKEN_DOCUMENTS = text("""
    SELECT series || '-' || number FROM (
        SELECT series, number, hash, sha256(coalesce(
            lag(hash) OVER (PARTITION BY series ORDER BY number), chain_start(series)) || digest)
            AS expected
        FROM digested_documents
    ) AS d
    WHERE hash IS DISTINCT FROM expected
""")
# Of some ids: each with the one before it, which may have any id.
_BROKEN_BETWEEN = text("""
    SELECT series || '-' || number FROM (
        SELECT d.series, d.number, d.hash, sha256(coalesce(
            (SELECT p.hash FROM (SELECT series, number, hash FROM invoices
                                 UNION ALL SELECT series, number, hash FROM credit_notes) AS p
             WHERE p.series = d.series AND p.number = d.number - 1), chain_start(d.series))
            || d.digest) AS expected
        FROM digested_documents AS d WHERE d.id BETWEEN :low AND :high
    ) AS d
    WHERE hash IS DISTINCT FROM expected
""")
_BROKEN_SERIES = text("""
    SELECT s.code FROM invoice_series AS s
    WHERE s.last_hash IS DISTINCT FROM coalesce(
        (SELECT d.hash FROM (SELECT series, number, hash FROM invoices
                             UNION ALL SELECT series, number, hash FROM credit_notes) AS d
         WHERE d.series = s.code ORDER BY d.number DESC LIMIT 1), chain_start(s.code))
""")

# Of one series, behind a head that is known. Of all series at once the planner would read all.
_BROKEN_LATER = text("""
    SELECT number FROM (
        SELECT number, hash, sha256(coalesce(
            lag(hash) OVER (ORDER BY number), CAST(:hash AS bytea)) || digest) AS expected
        FROM digested_documents WHERE series = :series AND number > :number
    ) AS d
    WHERE hash IS DISTINCT FROM expected ORDER BY number
""")
_ENDS = text("""
    SELECT code AS series, last_hash IS NOT DISTINCT FROM coalesce(
        (SELECT d.hash FROM (SELECT series, number, hash FROM invoices
                             UNION ALL SELECT series, number, hash FROM credit_notes) AS d
         WHERE d.series = s.code ORDER BY d.number DESC LIMIT 1), chain_start(code)) AS is_kept,
        chain_start(code) AS start
    FROM invoice_series AS s ORDER BY code
""")

_SEALS = text("""
    SELECT number, first_id, last_id, events, hash FROM seals WHERE number > :number
    ORDER BY number
""")
_SEALED = text("SELECT last_id, number, hash FROM sealing")
_START = text("SELECT chain_start(:chain)")
_BLOCK = text("SELECT events, hash FROM block_hash(:before, :first, :last)")
_BEFORE_ALL = text("SELECT count(*) FROM events WHERE id < 1")
_OLDEST_UNSEALED = text("""
    SELECT count(*) FROM events AS e JOIN sealing AS s ON e.id > s.last_id
    WHERE e.at < now() - make_interval(secs => :seconds)
""")
# Far longer than any transaction of the fleet may stay open.
SEALED_WITHIN_SECONDS = 3600.0


def broken_documents(tx: Connection) -> list[str]:
    """Documents that are not what they were, or do not follow the one before them."""
    return [*map(str, tx.execute(_BROKEN_DOCUMENTS).scalars()), *broken_series(tx)]


def broken_documents_between(tx: Connection, low: uuid.UUID, high: uuid.UUID) -> list[str]:
    """The same of documents with ids in a range, both ends in it; without :func:`broken_series`."""
    return [*map(str, tx.execute(_BROKEN_BETWEEN, {"low": low, "high": high}).scalars())]


def broken_series(tx: Connection) -> list[str]:
    """Series whose last document is not the one that they say."""
    return [*map(str, tx.execute(_BROKEN_SERIES).scalars())]


def broken_documents_after(tx: Connection, known: Sequence[Head]) -> Iterator[str]:
    """The same of documents behind heads that are known, one of a series at most."""
    heads_of = {head.chain: head for head in known}
    for series, is_kept, start in tx.execute(_ENDS).all():
        head = heads_of.get(series)
        number, before = (head.number, bytes.fromhex(head.hash)) if head else (0, start)
        behind = {"series": series, "number": number, "hash": before}
        for broken in tx.execute(_BROKEN_LATER, behind).scalars():
            yield f"{series}-{broken}"
        if not is_kept:
            yield str(series)


def broken_blocks(tx: Connection, after: tuple[Head, int] | None = None) -> Iterator[str]:
    """Blocks of the history that are not what they were, or do not follow the one before them.

    Args:
        after: the head that is known, and the last event in its block; None: all blocks.
    """
    if after is None:
        before, last_id, number = tx.execute(_START, {"chain": EVENTS}).scalar_one(), 0, 0
        if tx.execute(_BEFORE_ALL).scalar_one():
            yield "events up to 0"
    else:
        head, last_id = after
        before, number = bytes.fromhex(head.hash), head.number
    for seal in tx.execute(_SEALS, {"number": number}).all():
        parameters = {"before": before, "first": seal.first_id, "last": seal.last_id}
        found = tx.execute(_BLOCK, parameters).one()
        follows = (seal.number, seal.first_id) == (number + 1, last_id + 1)
        if not follows or (found.events, found.hash) != (seal.events, seal.hash):
            yield f"events {seal.first_id} to {seal.last_id}"
        before, last_id, number = seal.hash, seal.last_id, seal.number
    if tuple(tx.execute(_SEALED).one()) != (last_id, number, before):
        yield f"the seals after events {last_id}"
    late = tx.execute(_OLDEST_UNSEALED, {"seconds": SEALED_WITHIN_SECONDS}).scalar_one()
    if late:
        yield f"{late} events that were never sealed"


_HEADS = text("""
    SELECT code AS chain, last_number AS number, encode(last_hash, 'hex') AS hash
    FROM invoice_series WHERE last_number > 0
    UNION ALL SELECT :events, number, encode(hash, 'hex') FROM sealing WHERE number > 0
    ORDER BY 1
""")
_LINK = text("""
    SELECT encode(hash, 'hex') FROM (
        SELECT series, number, hash FROM invoices
        UNION ALL SELECT series, number, hash FROM credit_notes
        UNION ALL SELECT :events, number, hash FROM seals
    ) AS links
    WHERE series = :chain AND number = :number
""")


def heads(tx: Connection) -> list[Head]:
    """The heads of all chains, to be kept where nobody who can write here can write."""
    return [Head(*row) for row in tx.execute(_HEADS, {"events": EVENTS})]


def missing(tx: Connection, kept: list[Head]) -> list[Head]:
    """Those of the heads kept elsewhere that are not in the chains any more."""

    def is_gone(head: Head) -> bool:
        parameters: dict[str, Any] = {"chain": head.chain, "number": head.number, "events": EVENTS}
        return tx.execute(_LINK, parameters).scalar() != head.hash

    return [head for head in kept if is_gone(head)]
