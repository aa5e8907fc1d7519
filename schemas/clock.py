"""The time of the business. Code takes a Clock and never calls ``datetime.now()`` itself.

Leases, backoff and heartbeats use the database's clock; only business dates use this one.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo


class Clock(Protocol):
    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...

    def ahead(self) -> float:
        """By how many seconds this host's own clock is ahead of it; negative: behind."""
        ...


class SystemClock:
    """This host's own, for tests and for what has no database."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def ahead(self) -> float:
        return 0.0


class FixedClock:
    """A clock that stands still until it is advanced, for tests."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def ahead(self) -> float:
        return 0.0

    def advance(self, by: timedelta) -> None:
        self._now += by


@cache
def zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def local_date(moment: datetime, timezone: str) -> date:
    """The date in ``timezone`` (IANA name) at ``moment``."""
    return moment.astimezone(zone(timezone)).date()


@lru_cache(maxsize=65_536)
def local_midnight(day: date, timezone: str) -> datetime:
    """When ``day`` begins in ``timezone``, in UTC."""
    return datetime.combine(day, time(), zone(timezone)).astimezone(UTC)
