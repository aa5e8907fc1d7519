"""The audit: a second, independent bookkeeping.

What should be is derived anew, from documents, history, the catalogue and the rules, and compared
with what is: in our books, and in the far sides' where they are known. Nothing of the fleet's own
statements is used.

To add checks, add them to the ``CHECKS`` of a module, or a module to ``AREAS``.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

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
    outgoing,
    periods,
    renewals,
    requests,
    seals,
    services,
    steps,
    times,
)
from monitoring.audit.changed import Changed, subjects_since
from monitoring.audit.checks import (
    SHOWN,
    WHOLE,
    Books,
    Check,
    Finding,
    Offence,
    Piece,
    Since,
    pieces,
)
from monitoring.audit.marks import Mark
from monitoring.audit.naming import name
from schemas.books import BookUnavailable, FarSides
from schemas.errors import ConfigurationError

__all__ = [
    "AREAS", "CHECKS", "COMPARISONS", "SHOWN", "Books", "Check", "Finding", "Mark", "Offence",
    "Piece", "Since", "audit", "audit_since", "check", "pieces",
]  # fmt: skip

RECHECK_SECONDS = 1.0
# Subjects that changed, looked at in one snapshot: some seconds.
AT_ONCE = 2000

# A further kind of check is one more module here.
AREAS = (
    orders, requests, money, invoices, credits, numbers, services, periods, renewals, steps,
    ledger, mails, deliveries, customers, history, times, seals,
    outgoing,
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


@dataclass(frozen=True, slots=True)
class Continued:
    """What a run has found that continued an earlier one.

    Attributes:
        subjects: how many had changed.
    """

    findings: list[Finding]
    subjects: int


def audit_since(
    tx: Connection,
    mark: Mark,
    *,
    at_once: int = AT_ONCE,
    progress: Progress = lambda done, of: None,
) -> Continued:
    """Check what the history says that changed since an earlier run, what waits to be done, the
    catalogue, and the chains from where that run ended.

    What was changed past the history, and has not changed otherwise since, only :func:`audit`
    finds.

    Args:
        tx: as the database role ``readonly``, or the owner.
        mark: where a clean run ended.
        at_once: how many subjects are looked at in one snapshot.

    Returns:
        A finding for every check; one that needs a run over everything is not done.
    """
    findings = {one.code: Finding(one.must, code=one.code, known=set()) for one in CHECKS}
    once = [one for one in CHECKS if one.since is Since.ONCE]
    of_changed = [one for one in CHECKS if one.since is Since.CHANGED]
    for one in CHECKS:
        findings[one.code].is_done = one.since is not Since.NEVER
    _take_snapshot(tx, workers=0)
    subjects = subjects_since(tx, mark.last_id)
    total, done = len(once) + len(of_changed) * -(-len(subjects) // at_once), 0
    books = Books(tx, given=ledger.PLACES, mark=mark)
    for one in once:
        findings[one.code].look(one, books)
        progress(done := done + 1, total)
    name(tx, [finding for finding in findings.values() if finding.broken])
    for first in range(0, len(subjects), at_once):
        _take_snapshot(tx, workers=0)
        changed = Changed.of(tx, subjects[first : first + at_once])
        books = Books(tx, given=ledger.PLACES, changed=changed)
        for one in of_changed:
            findings[one.code].look(one, books)
            progress(done := done + 1, total)
        name(tx, [finding for finding in findings.values() if finding.broken])
    found = sorted(findings.values(), key=lambda finding: (not finding.broken, not finding.is_done))
    return Continued(found, len(subjects))


def check(tx: Connection, codes: Collection[str]) -> dict[str, Finding]:
    """Do some checks of our own books, in the transaction as it is; by code."""
    books = Books(tx, WHOLE, given=ledger.PLACES)
    findings = {}
    for one in CHECKS:
        if one.code in codes:
            findings[one.code] = finding = Finding(one.must, code=one.code)
            finding.look(one, books)
    return findings


def _take_snapshot(tx: Connection, *, workers: int = 2) -> None:
    """Every statement sees the same moment: a busy fleet is not mistaken for a broken one.

    Args:
        workers: processes that help with a statement. To start them and to tell them of thousands
            of ids takes longer than to look at what has these.
    """
    tx.rollback()
    tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    # The far side's books may take their time to be read.
    tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    tx.execute(text(f"SET LOCAL max_parallel_workers_per_gather = {workers:d}"))
    # How many ids there are decides how a statement is done best.
    tx.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
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
