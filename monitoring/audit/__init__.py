"""The audit: a second, independent bookkeeping.

What should be is derived anew, from documents, history, the catalogue and the rules, and compared
with what is: in our books, and in the far sides' where they are known. Nothing of the fleet's own
statements is used.

To add checks, add them to the ``CHECKS`` of a module, or a module to ``AREAS``.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence

from sqlalchemy import Connection, text

from monitoring.audit import (
    credits,
    customers,
    deliveries,
    far_side,
    history,
    invoices,
    ledger,
    mails,
    money,
    numbers,
    orders,
    periods,
    renewals,
    requests,
    seals,
    services,
    steps,
    times,
)
from monitoring.audit.checks import SHOWN, WHOLE, Books, Check, Finding, Offence, Piece, pieces
from monitoring.audit.naming import name
from schemas.books import BookUnavailable, FarSides
from schemas.errors import ConfigurationError

__all__ = [
    "AREAS", "CHECKS", "COMPARISONS", "SHOWN", "Books", "Check", "Finding", "Offence", "Piece",
    "audit", "check", "pieces",
]  # fmt: skip

RECHECK_SECONDS = 1.0

# A further kind of check is one more module here.
AREAS = (
    orders, requests, money, invoices, credits, numbers, services, periods, renewals, steps,
    ledger, mails, deliveries, customers, history, times, seals,
)  # fmt: skip
CHECKS: tuple[Check, ...] = tuple(check for area in AREAS for check in area.CHECKS)
# With the far sides' books. Two books cannot be read at one moment: what differs is looked at
# once more.
COMPARISONS: tuple[Check, ...] = far_side.CHECKS

Progress = Callable[[int, int], None]
"""Told how many checks are done, and of how many."""


def audit(
    tx: Connection,
    far_sides: FarSides | None = None,
    *,
    parts: int = 1,
    progress: Progress = lambda done, of: None,
) -> list[Finding]:
    """Check everything that must be true; what is broken has ids, and comes first.

    Args:
        tx: as the database role ``readonly``, or the owner.
        far_sides: whose books are compared with ours, to the cent.
        parts: ranges of ids that are looked at one after the other, each in a snapshot of its own,
            so that none is held for long; 1: all in one snapshot.

    Raises:
        ConfigurationError: a book cannot be read.
    """
    cut = [check for check in CHECKS if not check.whole]
    total = len(cut) * parts + len(CHECKS) - len(cut) + len(COMPARISONS) * bool(far_sides)
    findings = {check.code: Finding(check.must, code=check.code) for check in CHECKS}
    done = 0
    for piece in pieces(parts):
        _take_snapshot(tx)
        books = Books(tx, piece, given=ledger.PLACES)
        for check in CHECKS:
            if not check.whole or piece.is_first:
                findings[check.code].look(check, books)
                progress(done := done + 1, total)
        name(tx, [finding for finding in findings.values() if finding.broken])
    if far_sides is not None:
        for check in COMPARISONS:
            findings[check.code] = _compare(tx, far_sides, check)
            progress(done := done + 1, total)
    return sorted(findings.values(), key=lambda finding: not finding.broken)


def check(tx: Connection, codes: Collection[str]) -> dict[str, Finding]:
    """Do some checks of our own books, in the transaction as it is; by code."""
    books = Books(tx, WHOLE, given=ledger.PLACES)
    findings = {}
    for one in CHECKS:
        if one.code in codes:
            findings[one.code] = finding = Finding(one.must, code=one.code)
            finding.look(one, books)
    return findings


def _take_snapshot(tx: Connection) -> None:
    """Every statement sees the same moment: a busy fleet is not mistaken for a broken one."""
    tx.rollback()
    tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    # The far side's books may take their time to be read.
    tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    tx.execute(text("SET LOCAL max_parallel_workers_per_gather = 2"))
    tx.execute(text("SET LOCAL work_mem = '128MB'"))


def _compare(tx: Connection, far_sides: FarSides, check: Check) -> Finding:
    def differences() -> Iterator[Offence]:
        _take_snapshot(tx)
        yield from check.look(Books(tx, far_sides=far_sides))

    try:
        differing: Sequence[Offence] = list(differences())
        if differing:
            time.sleep(RECHECK_SECONDS)
            again = set(differences())
            differing = [offence for offence in differing if offence in again]
    except BookUnavailable as error:
        raise ConfigurationError(f"cannot read a far side's book: {error}") from None
    finding = Finding(check.must, code=check.code)
    finding.add(differing)
    name(tx, [finding])
    return finding
