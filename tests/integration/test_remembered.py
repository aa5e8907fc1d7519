"""A billing worker that misses a charge it had recorded pauses the guarded lanes."""

from typing import Any

import pytest

from producers import ledger
from tests.conftest import Database
from tests.integration.test_guard import paused, reasons
from tests.support.given import order
from workers.billing.charges import remembered
from workers.billing.charges.remembered import Remembered

GUARDED = sorted(ledger.GUARDED_LANES)


@pytest.fixture
def charged(embedded: Any, database: Database) -> Any:
    fleet = embedded()
    database.place(order("k-1"), order("k-2"))
    fleet.wait_until_idle(30)
    return [row.key for row in database.all("SELECT key FROM charges")]


def test_charges_that_are_there_pause_nothing(database: Database, charged: Any) -> None:
    known = Remembered()
    known.recorded(database.engine("billing"), charged)

    known.look(database.engine("billing"))

    assert paused(database) == []


def test_missing_charge_pauses_the_guarded_lanes_once(database: Database, charged: Any) -> None:
    known = Remembered()
    known.recorded(database.engine("billing"), charged)
    database.run(
        "SET LOCAL session_replication_role = replica; DELETE FROM charges WHERE attempt > 0"
    )

    known.look(database.engine("billing"))

    assert paused(database) == GUARDED
    why = "a promotion that lost transactions, or a restored backup?"
    assert reasons(database) == {f"guard: 2 of the last 2 charges are gone: {why}"}
    database.run("DELETE FROM lane_pauses")
    known._next_look = 0.0
    known.look(database.engine("billing"))
    assert paused(database) == []


def test_charge_that_is_not_decided_is_not_remembered(database: Database, charged: Any) -> None:
    known = Remembered()
    database.run(
        "SET LOCAL session_replication_role = replica; UPDATE charges SET state = 'unknown'"
    )
    known.recorded(database.engine("billing"), charged)
    database.run("SET LOCAL session_replication_role = replica; DELETE FROM charges")

    known.look(database.engine("billing"))

    assert paused(database) == []


def test_worker_remembers_what_it_records_and_looks_before_it_claims(
    embedded: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "LOOK_EVERY_SECONDS", 0.0)
    fleet = embedded()
    database.place(order("k-1"))
    fleet.wait_until_idle(30)
    database.run("SET LOCAL session_replication_role = replica; DELETE FROM charges")

    database.place(order("k-2"))
    fleet.wait_until_idle(30)

    assert paused(database) == GUARDED
    assert database.value("SELECT state FROM orders WHERE key = 'k-2'") == "priced"
