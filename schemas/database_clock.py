"""The clock of the whole fleet: the database's.

A host's clock that is wrong would date invoices into another year, charge what is not due, and end
services too early. So no business time comes from it: a process asks the database now and then, and
adds the time that it measured since. What a process does on such a host is for
``producers/control/own_clock.py``.
"""

import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

# How long a reading is used. Oscillators differ by less than 100 us/s: 1 ms in this time.
FRESH_SECONDS = 10.0
# A host whose clock moved by more against the time that passed was asleep, or was set.
MOVED_SECONDS = 0.5

_NOW = text("SELECT clock_timestamp()")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the clocks said at one moment: the database's, and two of this host's in seconds."""

    at: datetime
    passed: float
    wall: float

    def is_fresh(self, passed: float, wall: float) -> bool:
        since = passed - self.passed
        return 0 <= since < FRESH_SECONDS and abs(wall - self.wall - since) < MOVED_SECONDS


class DatabaseClock:
    """Shows every process of the fleet the same time; shared by all threads of a process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._reading: _Reading | None = None

    def now(self) -> datetime:
        """The current time, aware, in UTC.

        Raises:
            SQLAlchemyError: the database was to be asked, and cannot be.
        """
        reading, passed = self._read()
        return reading.at + timedelta(seconds=passed - reading.passed)

    def ahead(self) -> float:
        """By how many seconds this host's own clock is ahead of it; negative: behind.

        Raises:
            SQLAlchemyError: as :meth:`now`.
        """
        reading, _ = self._read()
        return reading.wall - reading.at.timestamp()

    def _read(self) -> tuple[_Reading, float]:
        """A fresh reading, and what the measuring clock says now."""
        passed, wall = _passed(), time.time()
        reading = self._reading
        if reading is not None and reading.is_fresh(passed, wall):
            return reading, passed
        with self._lock:
            passed, wall = _passed(), time.time()
            if self._reading is None or not self._reading.is_fresh(passed, wall):
                self._reading = self._ask()
            return self._reading, max(_passed(), self._reading.passed)

    def _ask(self) -> _Reading:
        with self._engine.connect() as tx:
            tx.execute(_NOW)  # a connection that has to be opened takes long
            before, wall = _passed(), time.time()
            at = tx.execute(_NOW).scalar_one()
            half = (_passed() - before) / 2
        return _Reading(at.astimezone(UTC), before + half, wall + half)


def _passed() -> float:
    """Seconds that have passed, also while this machine slept."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
