"""Time, as the business sees it. Code never asks the system for it directly.

Leases, backoff and heartbeats use the database's clock; only business dates use this one.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo


class Clock(Protocol):
    def now(self) -> datetime:
        """This moment, UTC and aware."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class FixedClock:
    """A clock that stands until it is moved: for tests."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by


@cache
def zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def local_date(moment: datetime, timezone: str) -> date:
    """The date a customer of a subsidiary in ``timezone`` reads on the wall."""
    return moment.astimezone(zone(timezone)).date()


@lru_cache(maxsize=65_536)
def local_midnight(day: date, timezone: str) -> datetime:
    """The moment ``day`` begins in ``timezone``, in UTC."""
    return datetime.combine(day, time(), zone(timezone)).astimezone(UTC)
