"""The gateways' own books beside ours, compared by an exporter that is configured with gateways.

Unlike the audit of our own books it cannot be done in pieces: a book is read whole. So it has a
schedule of its own, and no transaction is open while a gateway is asked.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from monitoring.audit import RECHECK_SECONDS, Books, Check, Finding, Offence
from monitoring.audit.far_side import MONEY
from monitoring.audit.naming import name
from monitoring.exporter.auditing import shown
from monitoring.exporter.collecting import Found
from monitoring.exporter.families import LAST_COMPARISON, VIOLATIONS
from schemas.books import BookEntry, BookUnavailable, FarSides, ResourceEntry
from schemas.database import limit
from schemas.errors import first_line

log = logging.getLogger(__name__)

# All charges and refunds there ever were are added up.
STATEMENT_SECONDS = 600.0
# After a book that could not be read, unless the next one is due sooner.
AGAIN_SECONDS = 600.0
# How often it is looked whether it is time, or another exporter has done it.
LOOK_SECONDS = 60.0

_KNOW = text("""
    INSERT INTO audit_findings (invariant, must) VALUES (:invariant, :must)
    ON CONFLICT (invariant) DO UPDATE SET must = excluded.must
    WHERE audit_findings.must <> excluded.must
""")
_IS_DUE = text("""
    SELECT checked_at IS NULL
        OR checked_at < clock_timestamp() - make_interval(secs => :every) AS is_due
    FROM audit_findings WHERE invariant = :invariant
""")
_DONE = text("""
    UPDATE audit_findings SET checked_at = clock_timestamp(), seconds = :seconds,
        violations = :violations, offenders = CAST(:offenders AS jsonb), problem = NULL
    WHERE invariant = :invariant
""")
_PROBLEM = text("UPDATE audit_findings SET problem = :problem WHERE invariant = :invariant")


@dataclass(frozen=True, slots=True)
class _Read:
    """Books that were read already."""

    of_gateways: Mapping[str, Sequence[BookEntry]]

    def money(self) -> Mapping[str, Sequence[BookEntry]]:
        return self.of_gateways

    def resources(self) -> Mapping[str, Sequence[ResourceEntry]]:
        return {}


class Comparison:
    """Compares the gateways' books with ours, every so often.

    Args:
        engine: as the database role ``exporter``.
        far_sides: the gateways that are configured.
        every: seconds between two comparisons, of all exporters together.
        sleep: what differs is looked at once more, after a moment.
    """

    def __init__(
        self,
        engine: Engine,
        far_sides: FarSides,
        every: float,
        *,
        check: Check = MONEY,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._far_sides = far_sides
        self._every = every
        self._check = check
        self._sleep = sleep

    def round(self) -> float:
        """Compare, if it is time; returns the seconds until it is looked at again."""
        with self._engine.begin() as tx:
            tx.execute(_KNOW, {"invariant": self._check.code, "must": self._check.must})
            parameters = {"invariant": self._check.code, "every": self._every}
            is_due = tx.execute(_IS_DUE, parameters).scalar_one()
        if not is_due:
            return min(LOOK_SECONDS, self._every)
        try:
            self.compare()
        except BookUnavailable as error:
            problem = first_line(error)
            log.warning("%s could not be done: %s", self._check.code, problem)
            with self._engine.begin() as tx:
                tx.execute(_PROBLEM, {"invariant": self._check.code, "problem": problem})
            return min(AGAIN_SECONDS, self._every)
        return min(LOOK_SECONDS, self._every)

    def compare(self) -> Finding:
        """Compare now, and keep the verdict.

        Raises:
            BookUnavailable: a book cannot be read: nothing is concluded.
        """
        started = time.monotonic()
        differing = self._differences()
        if differing:  # two books cannot be read at one moment
            self._sleep(RECHECK_SECONDS)
            again = set(self._differences())
            differing = [offence for offence in differing if offence in again]
        finding = Finding(self._check.must, code=self._check.code)
        finding.add(differing)
        with self._engine.begin() as tx:
            limit(tx, STATEMENT_SECONDS)
            name(tx, [finding])
            result = {
                "invariant": self._check.code,
                "seconds": time.monotonic() - started,
                "violations": finding.broken,
                "offenders": json.dumps(shown(finding)),
            }
            tx.execute(_DONE, result)
        return finding

    def _differences(self) -> list[Offence]:
        read = _Read(self._far_sides.money())
        with self._engine.connect() as tx:
            tx.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            limit(tx, STATEMENT_SECONDS)
            return list(self._check.look(Books(tx, far_sides=read)))


_VERDICT = text("""
    SELECT violations, CAST(extract(epoch FROM checked_at) AS float8) AS checked
    FROM audit_findings WHERE invariant = :invariant AND checked_at IS NOT NULL
""")


def verdict(tx: Connection) -> Found:
    """What the last comparison found, and when it was."""
    row = tx.execute(_VERDICT, {"invariant": MONEY.code}).first()
    found: dict[Any, Any] = {LAST_COMPARISON: {(): row.checked if row else 0.0}}
    if row:
        found[VIOLATIONS] = {(MONEY.code,): row.violations}
    return found
