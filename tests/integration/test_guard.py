"""A fleet that lost track of what happened charges and ends nothing until a person resumes it."""

import contextlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from producers import ledger
from producers.control import guard, lanes
from producers.ledger import dispatching
from producers.ledger.dispatching import Dispatch
from producers.relay.relay import Relay
from producers.steps import (
    CHARGE,
    DESTRUCTIVE,
    GATEWAY,
    MAIL,
    REMIND,
    RENEWAL,
    REQUEST,
    ROLE_OF_QUEUE,
    SUSPEND,
)
from schemas.clock import FixedClock, SystemClock
from schemas.settings import Settings, load_settings
from tests.conftest import Database
from tests.integration.test_billing import assert_clean
from tests.integration.test_renewals import declines
from tests.support.given import line, order, wait_until

HOUR = timedelta(hours=1)
VIRTUAL = load_settings(clock="virtual")
GUARDED = sorted(ledger.GUARDED_LANES)


def beat(database: Database, ahead: timedelta = timedelta(), settings: Settings = VIRTUAL) -> Any:
    with database.engine("scheduler").begin() as tx:
        return guard.beat(tx, FixedClock(datetime.now(UTC) + ahead), settings)


def paused(database: Database) -> list[str]:
    return list(dict(database.all("SELECT lane, reason FROM lane_pauses ORDER BY lane")))


def reasons(database: Database) -> set[str]:
    return {reason for (reason,) in database.all("SELECT reason FROM lane_pauses")}


def age(database: Database, by: str) -> None:
    """Make the last heartbeat this old."""
    database.run(
        "UPDATE heartbeat SET beat_at = beat_at - CAST(:by AS interval),"
        " business_at = business_at - CAST(:by AS interval),"
        " trusted_until = trusted_until - CAST(:by AS interval)",
        by=by,
    )


class TestHeartbeat:
    def test_heartbeats_in_time_pause_nothing(self, database: Database) -> None:
        assert [beat(database) for _ in range(3)] == [[], [], []]
        assert paused(database) == []

    @pytest.mark.parametrize("role", ["relay", "scheduler"])
    def test_relays_and_schedulers_may_record_a_heartbeat(
        self, database: Database, role: str
    ) -> None:
        for _ in range(2):
            with database.engine(role).begin() as tx:
                guard.beat(tx, SystemClock(), VIRTUAL)
        age(database, "7 hours")
        with database.engine(role).begin() as tx:
            assert guard.beat(tx, SystemClock(), VIRTUAL)
        assert paused(database) == GUARDED

    @pytest.mark.parametrize(("hours", "is_silence"), [(5.9, False), (6.1, True)])
    def test_silence_in_real_time_pauses_the_guarded_lanes(
        self, database: Database, hours: float, is_silence: bool
    ) -> None:
        beat(database)
        database.run(
            "UPDATE heartbeat SET beat_at = beat_at - make_interval(secs => :secs)",
            secs=hours * 3600,
        )

        found = beat(database)

        assert found == (["nothing was seen of the fleet for 6.1 h"] if is_silence else [])
        assert paused(database) == (GUARDED if is_silence else [])

    def test_silence_in_business_time_pauses_the_guarded_lanes(self, database: Database) -> None:
        beat(database)

        assert beat(database, 7 * HOUR) == ["nothing was seen of the fleet for 7.0 h"]

        assert paused(database) == GUARDED
        assert reasons(database) == {"guard: nothing was seen of the fleet for 7.0 h"}

    def test_hop_of_business_time_that_is_shorter_than_a_silence_pauses_nothing(
        self, database: Database
    ) -> None:
        for hours in range(0, 50, 5):
            assert beat(database, hours * HOUR) == []

    def test_business_time_that_goes_back_pauses_the_guarded_lanes(
        self, database: Database
    ) -> None:
        beat(database, 2 * HOUR)

        (found,) = beat(database)

        assert found.startswith("time went back from ")
        assert paused(database) == GUARDED

    def test_time_that_goes_back_by_a_moment_pauses_nothing(self, database: Database) -> None:
        beat(database, timedelta(minutes=4))
        assert beat(database) == []

    def test_real_time_that_goes_back_pauses_the_guarded_lanes(self, database: Database) -> None:
        beat(database)
        database.run("UPDATE heartbeat SET beat_at = beat_at + interval '10 minutes'")

        (found,) = beat(database)

        assert found.startswith("time went back")

    def test_restored_database_pauses_the_guarded_lanes(self, database: Database) -> None:
        beat(database)
        database.run("UPDATE heartbeat SET identity = '1/1/1'")

        assert beat(database) == ["this is not the database it was: a restored backup?"]

        assert paused(database) == GUARDED
        assert beat(database) == []

    def test_copy_of_the_database_is_recognized_as_another_one(
        self, database: Database, postgres: Any
    ) -> None:
        beat(database)
        database.close()
        name = f"{database.name}_copy"
        postgres.create_database(name, database.name)
        copy = Database(postgres, name)
        try:
            assert beat(copy) == ["this is not the database it was: a restored backup?"]
            assert paused(copy) == GUARDED
        finally:
            copy.close()
            postgres.drop_database(name)

    def test_reason_of_a_pause_names_everything_found(self, database: Database) -> None:
        beat(database)
        age(database, "1 day")
        database.run("UPDATE heartbeat SET identity = 'x'")

        assert len(beat(database)) == 2

        (reason,) = reasons(database)
        assert "24.0 h" in reason
        assert "restored backup" in reason

    @pytest.mark.parametrize("minutes", [10, -10])
    def test_wrong_clock_of_a_host_pauses_the_lanes_and_its_time_is_not_recorded(
        self, database: Database, minutes: int
    ) -> None:
        beat(database)
        before = database.all("SELECT * FROM heartbeat")
        clock = FixedClock(datetime.now(UTC) + timedelta(minutes=minutes))

        with database.engine("relay").begin() as tx:
            found = guard.beat(tx, clock, load_settings())

        assert found[0].startswith("this host's clock says ")
        assert paused(database) == GUARDED
        assert database.all("SELECT * FROM heartbeat") == before

    def test_first_heartbeat_with_a_wrong_clock_is_not_recorded(self, database: Database) -> None:
        assert beat(database, timedelta(minutes=10), load_settings())
        assert database.all("SELECT * FROM heartbeat") == []
        assert paused(database) == GUARDED

    def test_clock_that_is_a_little_off_is_accepted(self, database: Database) -> None:
        assert beat(database, timedelta(minutes=4), load_settings()) == []
        assert paused(database) == []

    def test_resumed_lane_is_not_paused_again_for_the_same_gap(self, database: Database) -> None:
        beat(database)
        age(database, "7 hours")
        beat(database)
        with database.owner.begin() as tx:
            for lane in GUARDED:
                assert lanes.resume(tx, lane, guard=True)

        assert beat(database) == []

        assert paused(database) == []

    def test_lane_paused_by_a_person_keeps_that_reason_beside_the_guards(
        self, database: Database
    ) -> None:
        beat(database)
        with database.owner.begin() as tx:
            lanes.pause(tx, "gateway", "maintenance")
        age(database, "7 hours")

        for _ in range(2):
            beat(database)

        assert paused(database) == GUARDED
        of_gateway = "SELECT source, reason FROM lane_pauses WHERE lane = 'gateway' ORDER BY id"
        assert database.all(of_gateway) == [
            ("operator", "maintenance"),
            ("guard", "guard: nothing was seen of the fleet for 7.0 h"),
        ]


SERVICE = (
    "INSERT INTO services (id, customer_id, subsidiary, plan, universe, brand, driver,"
    " configuration, period_months, state) SELECT gen_random_uuid(), 'alice', 'FR', 'site', 'web',"
    " 'ovh', 'web', '{}', 1, 'active' FROM generate_series(1, :number)"
)
EVERY = {"destructive_most": 1000, "destructive_share": 1.0}


class TestCountOfEnds:
    def count(self, database: Database, more: int, at: timedelta, **settings: Any) -> bool:
        now = datetime(2027, 1, 1, 12, 30, tzinfo=UTC) + at
        with database.engine("scheduler").begin() as tx:
            return guard.count_ends(tx, more, now, load_settings(**(EVERY | settings)))

    def test_too_many_ends_pause_only_the_destructive_lane(self, database: Database) -> None:
        assert not self.count(database, 5, 0 * HOUR, destructive_most=5)
        assert paused(database) == []

        assert self.count(database, 1, HOUR, destructive_most=5)

        assert paused(database) == ["destructive"]
        assert reasons(database) == {
            "guard: 6 services would be suspended or terminated within 24 h"
        }

    def test_too_large_a_share_of_ends_pauses_the_destructive_lane(
        self, database: Database
    ) -> None:
        database.run(SERVICE, number=60)
        assert not self.count(database, 30, 0 * HOUR, destructive_share=0.5)
        assert self.count(database, 1, HOUR, destructive_share=0.5)

    def test_ended_services_do_not_count_towards_the_share(self, database: Database) -> None:
        database.run(SERVICE, number=60)
        database.run("UPDATE services SET state = 'terminated' WHERE random() < 2")
        database.run(SERVICE, number=40)
        assert self.count(database, 25, 0 * HOUR, destructive_share=0.5)

    def test_share_of_very_few_services_pauses_nothing(self, database: Database) -> None:
        database.run(SERVICE, number=20)
        assert not self.count(database, 20, 0 * HOUR, destructive_share=0.01)
        assert self.count(database, 1, 0 * HOUR, destructive_share=0.01)

    def test_ends_before_the_window_do_not_count(self, database: Database) -> None:
        for day in range(4):
            assert not self.count(database, 20, day * 25 * HOUR, destructive_most=20)
        assert self.count(database, 20, 3 * 25 * HOUR + HOUR, destructive_most=20)

    def test_count_of_ends_starts_anew_when_a_person_resumes_the_lane(
        self, database: Database
    ) -> None:
        assert self.count(database, 6, 0 * HOUR, destructive_most=5)
        with database.owner.begin() as tx:
            lanes.resume(tx, "destructive", guard=True)

        assert not self.count(database, 5, HOUR, destructive_most=5)

    def test_resuming_another_lane_does_not_reset_the_count_of_ends(
        self, database: Database
    ) -> None:
        assert not self.count(database, 5, 0 * HOUR, destructive_most=5)
        with database.owner.begin() as tx:
            lanes.resume(tx, "gateway")

        assert self.count(database, 1, HOUR, destructive_most=5)


class Kept:
    """A transport that only remembers."""

    def __init__(self) -> None:
        self.batch: list[Dispatch] = []

    def publish(self, batch: Sequence[Dispatch]) -> set[str]:
        self.batch += batch
        return set()

    def idle(self, seconds: float, wake: int | None = None) -> None: ...

    def close(self) -> None: ...


TASKS = {CHARGE: GATEWAY, SUSPEND: DESTRUCTIVE, REQUEST: RENEWAL, REMIND: MAIL}


def enqueue_all(database: Database) -> dict[str, uuid.UUID]:
    subjects = {name: uuid.uuid4() for name in TASKS}
    with database.owner.begin() as tx:
        for name, place in TASKS.items():
            ledger.enqueue(tx, name, [(subjects[name], place)])
    return subjects


class TestGuardedLanes:
    @pytest.mark.parametrize(("seconds", "claimed"), [(-1, {REMIND}), (60, set(TASKS))])
    def test_guarded_task_is_not_claimed_once_the_last_heartbeat_is_too_old(
        self, database: Database, seconds: int, claimed: set[str]
    ) -> None:
        enqueue_all(database)
        beat(database)
        with database.engine("relay").begin() as tx:
            sent = dispatching.dispatch(tx, batch=lambda _: 10, cap=100, rescue_seconds=30)
        database.run(
            "UPDATE heartbeat SET trusted_until = now() + make_interval(secs => :s)", s=seconds
        )

        found = set()
        for message in sent:
            with database.engine(ROLE_OF_QUEUE[message.queue]).begin() as tx:
                claim = ledger.claim(tx, message.name, message.queue, [message.batch], seconds=60)
            found |= {claim.name for _ in claim.tasks}

        assert found == claimed

    def test_relay_checks_the_heartbeat_before_it_dispatches(self, database: Database) -> None:
        """A database of yesterday, with a charge that was ready then."""
        enqueue_all(database)
        beat(database)
        age(database, "1 day")
        kept = Kept()

        Relay(database.engine("relay"), kept, load_settings(), SystemClock()).round()

        assert [message.name for message in kept.batch] == [REMIND]
        assert paused(database) == GUARDED
        assert "24.0 h" in str(reasons(database))

    def test_tasks_dispatched_before_the_fleet_died_wait_too(self, database: Database) -> None:
        """Messages may be left on the broker: they are older than the guard's look."""
        enqueue_all(database)
        beat(database)
        kept = Kept()
        relay = Relay(database.engine("relay"), kept, load_settings(), SystemClock())
        relay.round()
        assert len(kept.batch) == len(TASKS)
        (charge,) = [message for message in kept.batch if message.name == CHARGE]
        age(database, "1 day")
        Relay(database.engine("relay"), kept, load_settings(), SystemClock()).round()

        with database.engine("billing").begin() as tx:
            claim = ledger.claim(tx, CHARGE, "billing", [charge.batch], seconds=60)

        assert claim.tasks == ()


class Leaping:
    """A clock that is advanced, and read by another process, just after it was read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now(self) -> datetime:
        read = datetime.now(UTC)
        with (
            contextlib.suppress(OperationalError),  # a relay that holds the row already
            self._database.engine("scheduler").begin() as tx,
        ):
            tx.execute(text("SET LOCAL lock_timeout = '100ms'"))
            guard.beat(tx, FixedClock(read + 5 * HOUR), VIRTUAL)
        return read


def test_leap_of_time_during_a_heartbeat_is_not_taken_for_time_that_goes_back(
    database: Database,
) -> None:
    beat(database)

    Relay(database.engine("relay"), Kept(), VIRTUAL, Leaping(database)).round()

    assert paused(database) == []


def test_fleet_on_yesterdays_backup_charges_nothing_until_a_person_resumes_it(
    embedded: Any, database: Database
) -> None:
    database.place(order("k-1"))
    beat(database)
    age(database, "1 day")

    fleet = embedded()
    wait_until(
        lambda: database.value("SELECT count(*) FROM tasks WHERE name = 'charge'"), "it is priced"
    )
    fleet.wait_until_idle(30)

    assert paused(database) == GUARDED
    assert database.value("SELECT count(*) FROM charges") == 0
    assert fleet.simulator.simulator.store.book(0, 10) == []

    with database.owner.begin() as tx:
        for lane in GUARDED:
            lanes.resume(tx, lane, guard=True)
    fleet.wait_until_idle(30)
    assert database.value("SELECT state FROM orders") == "delivered"
    assert_clean(fleet, database)


def test_too_many_ends_wait_for_a_person_before_any_service_is_suspended(life: Any) -> None:
    world = life(destructive_most=2, calls_at_once=16)
    first = world.order(*(line(quantity=10) for _ in range(3)))
    declines(world)

    world.pass_until(first, 6)

    assert {s.state for s in world.services()} == {"active"}
    assert {s.desired for s in world.services()} == {"active"}
    assert paused(world.database) == ["destructive"]
    assert "30 services would be suspended" in str(reasons(world.database))

    with world.fleet.owner.begin() as tx:
        lanes.resume(tx, "destructive", guard=True)
    world.fleet.settle(30)
    assert {s.state for s in world.services()} == {"suspended"}
    assert paused(world.database) == []


def test_service_paid_while_its_end_waited_for_a_person_stays(life: Any) -> None:
    world = life(destructive_most=1)
    first = world.order(line(quantity=2))
    declines(world)
    world.pass_until(first, 6)
    assert paused(world.database) == ["destructive"]
    world.fleet.simulator.simulator.faults.clear()
    one, other = world.services()

    world.renew(one)
    with world.fleet.owner.begin() as tx:
        lanes.resume(tx, "destructive", guard=True)
    world.fleet.settle(30)

    states = {s.id: s.state for s in world.services()}
    assert states == {one.id: "active", other.id: "suspended"}
