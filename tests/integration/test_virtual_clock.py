"""A fleet's clock that can be moved: the same for everybody, forwards only, never while busy."""

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
from schemas.clock import SystemClock
from schemas.errors import ConfigurationError
from schemas.virtual_clock import ClockBusy, VirtualClock, clock_of
from tests.conftest import Database
from tests.support.given import body, line, order

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
    def test_a_database_lives_on_the_real_clock_if_nothing_else_is_said(
        self, database: Database
    ) -> None:
        clock = clock_of(database.engine("relay"), virtual=False)
        assert isinstance(clock, SystemClock)

    def test_a_virtual_clock_is_refused_there(self, database: Database) -> None:
        with pytest.raises(ConfigurationError, match="lives on the real clock"):
            clock_of(database.engine("relay"), virtual=True)

    def test_and_the_real_one_where_it_is_virtual(self, database: Database) -> None:
        start(database)
        with pytest.raises(ConfigurationError, match="AUTORENEW_CLOCK must be virtual"):
            clock_of(database.engine("relay"), virtual=False)
        assert isinstance(clock_of(database.engine("relay"), virtual=True), VirtualClock)

    def test_a_database_with_services_is_never_put_on_it(
        self, embedded: Any, database: Database
    ) -> None:
        fleet = embedded()
        database.place(order("k-1"))
        fleet.wait_until_idle(30)

        with pytest.raises(ConfigurationError, match="a database with services"):
            start(database)

        assert database.value("SELECT count(*) FROM virtual_clock") == 0

    def test_it_is_started_once(self, database: Database) -> None:
        start(database)
        with pytest.raises(IntegrityError):
            start(database, A_WEEK)
        assert abs(ahead(database)) < MOMENT


class TestTime:
    def test_it_begins_now_or_as_far_ahead_as_is_said(self, database: Database) -> None:
        start(database, A_WEEK)
        assert abs(ahead(database) - A_WEEK) < MOMENT

    def test_it_is_aware_in_utc_and_goes_on_by_itself(self, database: Database) -> None:
        start(database)
        clock = VirtualClock(database.engine("readonly"))
        first, second = clock.now(), clock.now()
        assert first.tzinfo is UTC
        assert first < second

    def test_it_is_the_same_for_everybody_at_once(self, database: Database) -> None:
        start(database)
        asked = [VirtualClock(database.engine(role)) for role in ("scheduler", "billing", "api")]
        advance(database)
        advance(database, timedelta(microseconds=1))
        for clock in asked:
            assert abs(clock.now() - datetime.now(UTC) - A_WEEK) < MOMENT
        exactly = A_WEEK + timedelta(microseconds=1)
        assert database.value("SELECT ahead FROM virtual_clock") == exactly

    def test_two_who_move_it_at_once_both_do(self, database: Database) -> None:
        start(database)
        threads = [threading.Thread(target=advance, args=(database,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert abs(ahead(database) - 4 * A_WEEK) < MOMENT

    def test_it_does_not_go_back(self, database: Database) -> None:
        start(database, A_WEEK)
        with pytest.raises(ValueError, match="does not go back"):
            advance(database, timedelta(microseconds=-1))
        assert abs(ahead(database) - A_WEEK) < MOMENT


class TestBusy:
    @pytest.mark.parametrize("delay", [0.0, 3600.0], ids=["ready", "backing off"])
    def test_it_stands_while_something_is_to_be_done(
        self, database: Database, delay: float
    ) -> None:
        start(database)
        task(database, delay=delay)
        with pytest.raises(ClockBusy, match="such as charge"):
            advance(database)
        assert abs(ahead(database)) < MOMENT

    @pytest.mark.parametrize("state", ["dispatched", "leased"])
    def test_and_while_it_is_on_its_way_or_being_done(self, database: Database, state: str) -> None:
        start(database)
        task(database)
        database.run("UPDATE batches SET state = :state", state=state)
        with pytest.raises(ClockBusy):
            advance(database)

    def test_what_waits_for_a_person_holds_it_not(self, database: Database) -> None:
        start(database)
        task(database)
        database.run("UPDATE tasks SET state = 'failed'")
        advance(database)
        assert abs(ahead(database) - A_WEEK) < MOMENT

    def test_nor_does_what_waits_in_a_lane_that_is_paused(self, database: Database) -> None:
        start(database)
        task(database)
        with database.owner.begin() as tx:
            lanes.pause(tx, GATEWAY.lane, "maintenance")
        advance(database)
        with database.owner.begin() as tx:
            lanes.resume(tx, GATEWAY.lane)
        with pytest.raises(ClockBusy):
            advance(database)


def test_what_a_fleet_delivers_is_dated_by_it(embedded: Any, database: Database) -> None:
    fleet = embedded(ahead=timedelta(days=400))
    today = fleet.clock.now().date()

    fleet.intake.place("shop", "python", [body(order("k-1", line("gift")))])
    fleet.settle(30)

    anchor = database.value("SELECT anchor FROM services")
    assert today <= anchor <= today + timedelta(days=1)  # in Paris
    assert database.value("SELECT issued_on FROM invoices") == anchor
