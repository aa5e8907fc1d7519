"""The audit that the exporter does: a piece at a time, by one exporter at a time, bounded."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from monitoring.audit import CHECKS, Books, Check, Offence
from monitoring.audit.checks import sql
from monitoring.exporter.auditing import Auditor, verdicts
from schemas import locks
from schemas.locks import Lock
from tests.conftest import Database
from tests.support.given import order

EVERY_ORDER = sql(
    "test.orders",
    "there is no order",
    "SELECT 'order', id FROM orders WHERE id BETWEEN :low AND :high",
)
HOLDS = sql("test.holds", "one is one", "SELECT 'x', 'y' WHERE 1 = 2")


def auditor(database: Database, *checks: Check, seconds: float = 30.0) -> Auditor:
    return Auditor(database.engine("exporter"), checks, seconds)


def finding(database: Database, invariant: str = "test.orders") -> Any:
    (row,) = database.all("SELECT * FROM audit_findings WHERE invariant = :i", i=invariant)
    return row


def test_pieces_of_a_check_add_up_to_its_verdict(database: Database) -> None:
    database.place(*(order(f"k-{n}") for n in range(30)))
    auditing = auditor(database, EVERY_ORDER, HOLDS)
    auditing.piece()
    database.run("UPDATE audit_findings SET parts = 4, run_id = NULL, checked_at = NULL")

    steps = [auditing.piece() for _ in range(6)]

    found = finding(database)
    assert [step and step.is_done for step in steps].count(False) >= 3
    assert found.violations == 30
    assert len(found.offenders) == 20
    assert found.offenders[0]["named"].startswith("order k-")
    assert finding(database, "test.holds").violations == 0


def test_run_over_every_check_ends_and_the_next_one_begins(database: Database) -> None:
    auditing = auditor(database, EVERY_ORDER, HOLDS)

    assert [auditing.piece() is None for _ in range(4)] == [False, False, True, False]

    first, second = database.all("SELECT * FROM audit_runs ORDER BY id")
    assert first.ended_at is not None
    assert (first.checks, first.violations) == (2, 0)
    assert second.ended_at is None


def test_exporter_goes_on_where_another_stopped(database: Database) -> None:
    done = {auditor(database, EVERY_ORDER, HOLDS).piece() for _ in range(2)}

    assert {step.invariant for step in done if step} == {"test.orders", "test.holds"}


def test_one_exporter_audits_at_a_time(database: Database) -> None:
    auditing = auditor(database, HOLDS)
    with database.engine("exporter").connect() as other:
        assert locks.try_to_take(other, Lock.AUDIT)
        assert auditing.piece() is None
        other.rollback()

    assert auditing.piece() is not None


def slow(books: Books) -> Iterator[Offence]:
    """Takes too long over more than a quarter of all ids."""
    if books.piece.high.int - books.piece.low.int > 2**126:
        list(books.tx.execute(text("SELECT pg_sleep(5)")))
    yield Offence("order", str(books.piece.low))


def test_check_that_takes_too_long_is_cut_into_smaller_pieces(database: Database) -> None:
    auditing = auditor(database, Check("test.slow", "it is fast", slow), seconds=0.3)

    for _ in range(6):  # whole, halves, then four quarters
        auditing.piece()

    found = finding(database, "test.slow")
    assert (found.parts, found.violations, found.problem) == (4, 4, None)
    assert found.checked_at is not None


def test_check_that_cannot_be_cut_is_given_up_and_that_run_counts_as_none(
    database: Database,
) -> None:
    auditing = auditor(database, Check("test.slow", "it is fast", slow, whole=True), seconds=0.3)

    for _ in range(3):
        auditing.piece()

    found = finding(database, "test.slow")
    assert "statement timeout" in found.problem
    assert found.checked_at is None
    assert database.value("SELECT checks FROM audit_runs WHERE ended_at IS NOT NULL") == 0


@pytest.fixture(scope="module")
def whole(everything: Any) -> Any:
    """A whole run of the audit over a fleet to which everything has happened."""
    auditing = Auditor(everything.database.engine("exporter"))
    while auditing.piece() is not None:
        pass
    return everything.database


def test_role_of_the_exporter_may_do_every_check_and_a_sound_fleet_is_found_sound(
    whole: Any,
) -> None:
    with whole.engine("exporter").connect() as tx:
        found = {family.name: samples for family, samples in verdicts(tx).items()}

    violations = found["autorenew_invariant_violations"]
    assert len(violations) == len(CHECKS)
    assert {labels: n for labels, n in violations.items() if n} == {}
    assert found["autorenew_last_full_audit_timestamp_seconds"][()] > 1e9
    assert found["autorenew_audit_seconds"][()] > 0
