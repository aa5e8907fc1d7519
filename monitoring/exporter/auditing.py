"""The audit, done by the exporter a piece at a time: one check, over a range of ids.

How far it has come stands in the database, so any number of exporters may run, and one that starts
goes on where another stopped. A piece is done under a lock, in a snapshot of its own, and nothing
holds that for longer than :data:`STATEMENT_SECONDS` a statement. A check that takes longer is cut
into more pieces.
"""

import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from monitoring.audit import CHECKS, SHOWN, Books, Check, Finding, pieces
from monitoring.audit.ledger import PLACES
from monitoring.audit.naming import name
from monitoring.exporter.collecting import Found
from monitoring.exporter.families import AUDIT_SECONDS, LAST_AUDIT, VIOLATIONS
from schemas import locks
from schemas.database import is_too_slow, limit
from schemas.errors import first_line
from schemas.locks import Lock

log = logging.getLogger(__name__)

STATEMENT_SECONDS = 30.0
# A check that is not done in time even in so many pieces is given up for this run.
MOST_PARTS = 4096

_KNOW = text("""
    INSERT INTO audit_findings (invariant, must)
    SELECT * FROM unnest(CAST(:invariants AS text[]), CAST(:musts AS text[]))
    ON CONFLICT (invariant) DO UPDATE SET must = excluded.must
    WHERE audit_findings.must <> excluded.must
""")
_RUN = text("SELECT id FROM audit_runs WHERE ended_at IS NULL")
_BEGIN = text("INSERT INTO audit_runs (started_at) VALUES (clock_timestamp()) RETURNING id")
# A check that is under way comes first, then the one that ran longest ago.
_NEXT = text("""
    SELECT invariant, parts, part_seconds, part_violations, part_offenders,
        CASE WHEN part_run_id = :run THEN next_id END AS next_id,
        part_run_id IS NOT DISTINCT FROM :run AS is_begun
    FROM audit_findings
    WHERE invariant = ANY(:invariants) AND run_id IS DISTINCT FROM :run
    ORDER BY is_begun DESC, checked_at NULLS FIRST, invariant LIMIT 1
""")
_PART = text("""
    UPDATE audit_findings SET part_run_id = :run, next_id = :next_id, part_seconds = :seconds,
        part_violations = :violations, part_offenders = CAST(:offenders AS jsonb)
    WHERE invariant = :invariant
""")
_DONE = text("""
    UPDATE audit_findings SET run_id = :run, checked_at = clock_timestamp(), seconds = :seconds,
        violations = :violations, offenders = CAST(:offenders AS jsonb), problem = NULL,
        part_run_id = NULL, next_id = NULL
    WHERE invariant = :invariant
""")
_CUT = text("""
    UPDATE audit_findings SET parts = :parts, part_run_id = NULL, next_id = NULL
    WHERE invariant = :invariant
""")
_GIVE_UP = text("""
    UPDATE audit_findings SET run_id = :run, problem = :problem, part_run_id = NULL, next_id = NULL
    WHERE invariant = :invariant
""")
# A run in which a check was given up is none over everything.
_END = text("""
    UPDATE audit_runs AS r SET ended_at = clock_timestamp(), seconds = f.seconds,
        checks = f.checks, violations = f.violations
    FROM (
        SELECT coalesce(sum(seconds), 0) AS seconds, count(*) AS checks,
            coalesce(sum(violations), 0) AS violations
        FROM audit_findings
        WHERE invariant = ANY(:invariants) AND run_id = :run AND problem IS NULL
    ) AS f
    WHERE r.id = :run
""")
_FORGET = text("DELETE FROM audit_runs WHERE ended_at < clock_timestamp() - interval '90 days'")


@dataclass(frozen=True, slots=True)
class Step:
    """What a piece was about.

    Attributes:
        is_done: the check has its verdict of this run.
    """

    invariant: str
    is_done: bool


class Auditor:
    """Does the audit of our own books, over and over.

    Args:
        engine: as the database role ``exporter``.
        checks: all of the audit's, but for tests.
        seconds: that a statement of a check may take.
    """

    def __init__(
        self,
        engine: Engine,
        checks: Sequence[Check] = CHECKS,
        seconds: float = STATEMENT_SECONDS,
    ) -> None:
        self._engine = engine
        self._checks = {check.code: check for check in checks}
        self._seconds = seconds
        self._known = False

    def piece(self) -> Step | None:
        """Do one piece of one check.

        Returns:
            None: another exporter is at it, or a run has just ended.
        """
        run = self._run()
        if run is None:
            return None
        chosen = None
        try:
            with self._engine.connect() as tx:
                if not self._begin(tx):
                    return None
                parameters = {"run": run, "invariants": list(self._checks)}
                chosen = tx.execute(_NEXT, parameters).first()
                if chosen is None:
                    tx.execute(_END, parameters)
                    tx.execute(_FORGET)
                    step = None
                else:
                    step = self._look(tx, run, chosen)
                tx.commit()
                return step
        except DBAPIError as error:
            if not is_too_slow(error) or chosen is None:
                raise
            self._cut(run, chosen, first_line(error))
            return Step(chosen.invariant, is_done=False)

    def _run(self) -> int | None:
        """The run that is under way, or a new one; None: another exporter is at it. By itself, so
        that it stays, whatever becomes of a piece."""
        with self._engine.begin() as tx:
            limit(tx, self._seconds)
            if not locks.try_to_take(tx, Lock.AUDIT):
                return None
            musts = [check.must for check in self._checks.values()]
            if not self._known:
                tx.execute(_KNOW, {"invariants": list(self._checks), "musts": musts})
            run = tx.execute(_RUN).scalar()
            if run is None:
                run = tx.execute(_BEGIN).scalar_one()
        self._known = True
        return int(run)

    def _begin(self, tx: Connection) -> bool:
        """One snapshot, taken once the lock is ours: what the one before has written is in it."""
        tx.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        limit(tx, self._seconds)
        if not locks.try_to_take(tx, Lock.AUDIT):
            return False
        for setting in (
            "max_parallel_workers_per_gather = 0",  # nobody waits for it
            "plan_cache_mode = force_custom_plan",
            "work_mem = '64MB'",
            # What is checked in Python takes its time between two statements.
            f"idle_in_transaction_session_timeout = '{self._seconds:.0f}s'",
        ):
            tx.exec_driver_sql(f"SET LOCAL {setting}")
        return True

    def _look(self, tx: Connection, run: int, chosen: Any) -> Step:
        check = self._checks[chosen.invariant]
        parts = 1 if check.whole else chosen.parts
        # Found by where it begins: the number of pieces may have changed since.
        piece = next(p for p in pieces(parts) if chosen.next_id is None or p.high >= chosen.next_id)
        started = time.monotonic()
        finding = Finding(check.must, code=check.code)
        finding.look(check, Books(tx, piece, given=PLACES))
        name(tx, [finding])
        seconds, violations, offenders = time.monotonic() - started, finding.broken, shown(finding)
        if chosen.is_begun:
            seconds += chosen.part_seconds
            violations += chosen.part_violations
            offenders = [*chosen.part_offenders, *offenders][:SHOWN]
        is_done = piece.high.int == 2**128 - 1
        result = {
            "run": run,
            "invariant": check.code,
            "seconds": seconds,
            "violations": violations,
            "offenders": json.dumps(offenders),
        }
        if is_done:
            tx.execute(_DONE, result)
        else:
            tx.execute(_PART, result | {"next_id": uuid.UUID(int=piece.high.int + 1)})
        return Step(check.code, is_done)

    def _cut(self, run: int, chosen: Any, problem: str) -> None:
        """It took too long: try smaller pieces, from the beginning."""
        check = self._checks[chosen.invariant]
        parts = 2 * chosen.parts
        with self._engine.begin() as tx:
            if check.whole or parts > MOST_PARTS:
                log.warning("audit: %s is not done in time: %s", check.code, problem)
                tx.execute(_GIVE_UP, {"run": run, "invariant": check.code, "problem": problem})
            else:
                tx.execute(_CUT, {"invariant": check.code, "parts": parts})


def shown(finding: Finding) -> list[dict[str, str]]:
    """The first offenders of a finding, as they are kept."""
    return [
        {"kind": offence.kind, "id": offence.id, "named": named}
        for offence, named in zip(finding.offences, finding.named, strict=True)
    ]


_VERDICTS = text("""
    SELECT invariant, violations FROM audit_findings
    WHERE invariant = ANY(:invariants) AND checked_at IS NOT NULL
""")
_LAST = text("""
    SELECT CAST(extract(epoch FROM ended_at) AS float8) AS ended, seconds FROM audit_runs
    WHERE ended_at IS NOT NULL AND checks >= :checks ORDER BY ended_at DESC LIMIT 1
""")


def verdicts(tx: Connection) -> Found:
    """What the audit found last."""
    codes = [check.code for check in CHECKS]
    rows = tx.execute(_VERDICTS, {"invariants": codes})
    last = tx.execute(_LAST, {"checks": len(codes)}).first()
    found: dict[Any, Any] = {VIOLATIONS: {(r.invariant,): r.violations for r in rows}}
    found[LAST_AUDIT] = {(): last.ended if last else 0.0}
    if last:
        found[AUDIT_SECONDS] = {(): last.seconds}
    return found
