"""The audit among services with a year of history: of everything, and of what changed since."""

import time
from datetime import date

from sqlalchemy import Engine, text

from benchmarks import history
from monitoring.audit import Finding, audit, audit_since, marks
from monitoring.audit.marks import Mark
from schemas.catalogue.store import set_rollout


def fill(engine: Engine, count: int) -> None:
    """So many services that are not due, each with all that billing it for a year has left."""
    with engine.begin() as tx:
        set_rollout(tx, "ovh", "FR", date(2020, 1, 1))
        tx.execute(text("DELETE FROM recomputations"))
    history.add_others(engine, count)
    history.write(engine)


def everything(engine: Engine) -> tuple[float, Mark]:
    """Seconds, and where it ended.

    Raises:
        RuntimeError: the books do not agree.
    """
    with engine.connect() as tx:
        mark = marks.take(tx)
        started = time.perf_counter()
        found = audit(tx)
        seconds = time.perf_counter() - started
    _check(found)
    return seconds, mark


def changed(engine: Engine, mark: Mark) -> tuple[float, int]:
    """Seconds, and how many subjects had changed.

    Raises:
        RuntimeError: the books do not agree.
    """
    with engine.connect() as tx:
        started = time.perf_counter()
        found = audit_since(tx, mark)
        seconds = time.perf_counter() - started
    _check(found.findings)
    return seconds, found.subjects


def _check(findings: list[Finding]) -> None:
    broken = [finding.invariant for finding in findings if finding.broken]
    if broken:
        raise RuntimeError(f"the audit is not clean: {broken}")
