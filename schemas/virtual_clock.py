"""A clock for the whole fleet that can be advanced, for demos and tests.

It is the database's clock plus an offset, and advances only while no task is ready or under
way. A database that holds services never gets one.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, text

from schemas.clock import Clock
from schemas.database_clock import DatabaseClock
from schemas.errors import AutorenewError, ConfigurationError

_NOW = text("SELECT clock_timestamp() + ahead FROM virtual_clock")
_AHEAD = text("SELECT ahead FROM virtual_clock")


class ClockBusy(AutorenewError):
    """The clock cannot advance while there are tasks to do."""

    code = "clock_busy"


class VirtualClock:
    """Shows every process of the fleet the same time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        with self._engine.connect() as tx:
            now: datetime = tx.execute(_NOW).scalar_one()
        return now.astimezone(UTC)

    def ahead(self) -> float:
        return 0.0


def clock_of(engine: Engine, *, virtual: bool) -> Clock:
    """The clock a process works by.

    Raises:
        ConfigurationError: the database has the other kind of clock.
    """
    with engine.connect() as tx:
        moved = tx.execute(_AHEAD).first() is not None
    if moved and not virtual:
        raise ConfigurationError(
            "this database lives on a virtual clock: AUTORENEW_CLOCK must be virtual"
        )
    if virtual and not moved:
        raise ConfigurationError(
            "AUTORENEW_CLOCK is virtual, but this database lives on the real clock"
        )
    return VirtualClock(engine) if virtual else DatabaseClock(engine)


def start(tx: Connection, ahead: timedelta = timedelta()) -> None:
    """Put a database on a virtual clock.

    Args:
        ahead: how far it starts ahead of real time.

    Raises:
        ConfigurationError: the database holds services already.
    """
    if tx.execute(text("SELECT 1 FROM services LIMIT 1")).first() is not None:
        raise ConfigurationError("a database with services is never put on a virtual clock")
    tx.execute(
        text("INSERT INTO virtual_clock (sole, ahead) VALUES (true, :ahead)"), {"ahead": ahead}
    )


# Nothing waits for events: an endpoint that fails for days must not hold time up.
_BUSY = text("""
    SELECT name FROM tasks
    WHERE state <> 'failed' AND name <> 'deliver'
      AND lane NOT IN (SELECT lane FROM lane_pauses) LIMIT 1
""")


def busy(tx: Connection) -> str | None:
    """The name of a task that is ready or under way; failed and paused ones do not count, nor do
    deliveries of events."""
    return tx.execute(_BUSY).scalar()


def advance(tx: Connection, by: timedelta) -> None:
    """Move the clock of the whole fleet forward.

    Raises:
        ClockBusy: a task is ready or under way.
    """
    if by < timedelta():
        raise ValueError("time does not go back")
    if (name := busy(tx)) is not None:
        raise ClockBusy(f"there are tasks to do first, such as {name}")
    tx.execute(text("UPDATE virtual_clock SET ahead = ahead + :by"), {"by": by})
