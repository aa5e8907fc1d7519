"""Business time is the database's, whatever a host's own clock says."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event

from producers.control import own_clock
from producers.control.own_clock import WrongClock
from producers.scheduler.scheduler import Scheduler
from schemas import database_clock, virtual_clock
from schemas.catalogue.store import CatalogueCache
from schemas.database_clock import FRESH_SECONDS, DatabaseClock
from schemas.settings import load_settings
from tests.conftest import Database

DAY = 86400.0


class Host:
    """Two clocks of a host: the one on its wall, and one that measures what has passed."""

    def __init__(self) -> None:
        self.wall = self.passed = 0.0

    def time(self) -> float:
        return time.time() + self.wall

    def measure(self) -> float:
        return time.monotonic() + self.passed


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(database_clock, "time", SimpleNamespace(time=host.time))
    monkeypatch.setattr(database_clock, "_passed", host.measure)
    return host


@pytest.fixture
def asked(database: Database) -> Iterator[list[str]]:
    """The statements so far."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(database.owner, "before_cursor_execute", note)
    yield statements
    event.remove(database.owner, "before_cursor_execute", note)


def is_true(moment: datetime, tolerance: float = 0.5) -> bool:
    return abs((moment - datetime.now(UTC)).total_seconds()) < tolerance


@pytest.mark.parametrize("off", [40 * DAY, 14 * 3600.0, -14 * 3600.0, 90.0])
def test_a_host_whose_clock_is_wrong_has_the_right_time(
    database: Database, host: Host, off: float
) -> None:
    host.wall = off
    clock = DatabaseClock(database.owner)

    assert is_true(clock.now())
    assert clock.ahead() == pytest.approx(off, abs=0.5)


def test_the_database_is_asked_now_and_then(
    database: Database, host: Host, asked: list[str]
) -> None:
    clock = DatabaseClock(database.owner)
    first = [clock.now() for _ in range(1000)]
    assert first == sorted(first)
    assert len(asked) == 2  # the first one finds a connection

    host.passed = host.wall = FRESH_SECONDS + 1
    clock.now()
    assert len(asked) == 4


def test_a_machine_that_slept_asks_again(database: Database, host: Host) -> None:
    clock = DatabaseClock(database.owner)
    clock.now()
    host.passed = -3600.0  # what it measures stood still meanwhile
    host.wall = 0.0
    assert is_true(clock.now())


def test_a_clock_that_was_set_is_noticed_at_once(database: Database, host: Host) -> None:
    clock = DatabaseClock(database.owner)
    settings = load_settings()
    own_clock.check(clock, settings)

    host.wall = 40 * DAY

    with pytest.raises(WrongClock, match=r"40\.0 days ahead of the database's"):
        own_clock.check(clock, settings)
    assert is_true(clock.now())


@pytest.mark.parametrize(
    ("off", "words"), [(-7300.0, "2.0 h behind"), (90.0, "90.0 s ahead of"), (300.0, "5.0 min")]
)
def test_a_wrong_clock_is_told_in_words(
    database: Database, host: Host, off: float, words: str
) -> None:
    host.wall = off
    with pytest.raises(WrongClock, match=words):
        own_clock.check(DatabaseClock(database.owner), load_settings())


def test_a_clock_that_is_off_by_less_than_the_setting_is_good(
    database: Database, host: Host
) -> None:
    host.wall = 50.0
    own_clock.check(DatabaseClock(database.owner), load_settings())
    own_clock.check(DatabaseClock(database.owner), load_settings(clock_skew_seconds=49 + 2))
    with pytest.raises(WrongClock):
        own_clock.check(DatabaseClock(database.owner), load_settings(clock_skew_seconds=40))


def test_a_scheduler_with_a_wrong_clock_does_nothing_and_pauses_nothing(
    database: Database, host: Host
) -> None:
    engine = database.engine("scheduler")
    scheduler = Scheduler(engine, CatalogueCache(), DatabaseClock(engine), load_settings())
    host.wall = 40 * DAY

    with pytest.raises(WrongClock):
        scheduler.round()

    assert database.all("SELECT * FROM lane_pauses") == []
    assert database.all("SELECT * FROM heartbeat") == []
    host.wall = 0.0
    assert scheduler.round() == 0
    assert len(database.all("SELECT * FROM heartbeat")) == 1


def test_the_virtual_clock_is_the_databases_too(database: Database) -> None:
    with database.owner.begin() as tx:
        virtual_clock.start(tx, timedelta(days=3))
    now = virtual_clock.clock_of(database.owner, virtual=True).now()
    assert is_true(now - timedelta(days=3))
