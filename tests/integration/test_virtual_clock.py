"""The virtual clock of a fleet: the same for every process, forwards only, never while busy."""

import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from producers import ledger
from producers.control import lanes
from producers.steps import GATEWAY
from schemas import virtual_clock
from schemas.database_clock import DatabaseClock
from schemas.errors import ConfigurationError
from schemas.virtual_clock import ClockBusy, VirtualClock, clock_of
from tests.conftest import Database
from tests.support.given import body, order

A_WEEK = timedelta(days=7)
# Between two looks at the real clock on a busy machine.
MOMENT = timedelta(seconds=30)


def start(database: Database, ahead: timedelta = timedelta()) -> None:
    with database.owner.begin() as tx:
        virtual_clock.start(tx, ahead)


def advance(database: Database, by: timedelta = A_WEEK) -> None:
    with database.owner.begin() as tx:
        virtual_clock.advance(tx, by)


def ahead(database: Database, role: str = "readonly") -> timedelta:
    """How far the clock is ahead of the real one, to a moment."""
    return VirtualClock(database.engine(role)).now() - datetime.now(UTC)


def task(database: Database, **changes: Any) -> None:
    with database.owner.begin() as tx:
        ledger.enqueue(tx, "charge", [(uuid.uuid4(), GATEWAY)], **changes)


class TestKinds:
    def test_database_has_the_real_clock_by_default(self, database: Database) -> None:
        clock = clock_of(database.engine("relay"), virtual=False)
        assert isinstance(clock, DatabaseClock)

    def test_virtual_clock_is_refused_on_a_database_with_the_real_one(
        self, database: Database
    ) -> None:
        with pytest.raises(ConfigurationError, match="lives on the real clock"):
            clock_of(database.engine("relay"), virtual=True)

    def test_real_clock_is_refused_on_a_database_with_a_virtual_one(
        self, database: Database
    ) -> None:
        start(database)
        with pytest.raises(ConfigurationError, match="AUTORENEW_CLOCK must be virtual"):
            clock_of(database.engine("relay"), virtual=False)
        assert isinstance(clock_of(database.engine("relay"), virtual=True), VirtualClock)

    def test_database_with_services_never_gets_a_virtual_clock(
        self, embedded: Any, database: Database
    ) -> None:
        fleet = embedded()
        database.place(order("k-1"))
        fleet.wait_until_idle(30)

        with pytest.raises(ConfigurationError, match="a database with services"):
            start(database)

        assert database.value("SELECT count(*) FROM virtual_clock") == 0

    def test_virtual_clock_is_started_once(self, database: Database) -> None:
        start(database)
        with pytest.raises(IntegrityError):
            start(database, A_WEEK)
        assert abs(ahead(database)) < MOMENT


class TestTime:
    def test_virtual_clock_begins_now_or_as_far_ahead_as_asked(self, database: Database) -> None:
        start(database, A_WEEK)
        assert abs(ahead(database) - A_WEEK) < MOMENT

    def test_virtual_time_is_aware_in_utc_and_runs_by_itself(self, database: Database) -> None:
        start(database)
        clock = VirtualClock(database.engine("readonly"))
        first, second = clock.now(), clock.now()
        assert first.tzinfo is UTC
        assert first < second

    def test_every_process_sees_the_same_virtual_time(self, database: Database) -> None:
        start(database)
        asked = [VirtualClock(database.engine(role)) for role in ("scheduler", "billing", "api")]
        advance(database)
        advance(database, timedelta(microseconds=1))
        for clock in asked:
            assert abs(clock.now() - datetime.now(UTC) - A_WEEK) < MOMENT
        exactly = A_WEEK + timedelta(microseconds=1)
        assert database.value("SELECT ahead FROM virtual_clock") == exactly

    def test_two_processes_may_advance_the_clock_at_once(self, database: Database) -> None:
        start(database)
        threads = [threading.Thread(target=advance, args=(database,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert abs(ahead(database) - 4 * A_WEEK) < MOMENT

    def test_virtual_clock_does_not_go_back(self, database: Database) -> None:
        start(database, A_WEEK)
        with pytest.raises(ValueError, match="does not go back"):
            advance(database, timedelta(microseconds=-1))
        assert abs(ahead(database) - A_WEEK) < MOMENT


class TestBusy:
    @pytest.mark.parametrize("delay", [0.0, 3600.0], ids=["ready", "backing off"])
    def test_clock_does_not_advance_while_a_task_is_ready(
        self, database: Database, delay: float
    ) -> None:
        start(database)
        task(database, delay=delay)
        with pytest.raises(ClockBusy, match="such as charge"):
            advance(database)
        assert abs(ahead(database)) < MOMENT

    @pytest.mark.parametrize("state", ["dispatched", "leased"])
    def test_clock_does_not_advance_while_a_task_is_dispatched_or_leased(
        self, database: Database, state: str
    ) -> None:
        start(database)
        task(database)
        database.run("UPDATE batches SET state = :state", state=state)
        with pytest.raises(ClockBusy):
            advance(database)

    def test_failed_task_does_not_hold_the_clock(self, database: Database) -> None:
        start(database)
        task(database)
        database.run("UPDATE tasks SET state = 'failed'")
        advance(database)
        assert abs(ahead(database) - A_WEEK) < MOMENT

    def test_task_in_a_paused_lane_does_not_hold_the_clock(self, database: Database) -> None:
        start(database)
        task(database)
        with database.owner.begin() as tx:
            lanes.pause(tx, GATEWAY.lane, "maintenance")
        advance(database)
        with database.owner.begin() as tx:
            lanes.resume(tx, GATEWAY.lane)
        with pytest.raises(ClockBusy):
            advance(database)


def test_fleet_dates_its_deliveries_by_the_virtual_clock(embedded: Any, database: Database) -> None:
    fleet = embedded(ahead=timedelta(days=400))
    today = fleet.clock.now().date()

    fleet.intake.place("shop", "python", [body(order("k-1"))])
    fleet.settle(30)

    anchor = database.value("SELECT anchor FROM services")
    assert today <= anchor <= today + timedelta(days=1)  # in Paris
    assert database.value("SELECT issued_on FROM invoices") == anchor
