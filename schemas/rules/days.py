"""Days of a customer's wall clock."""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from schemas.clock import local_date, local_midnight, zone
from schemas.values import Period

# Customers are written to in the morning, by the clock on their wall. Our own choice: no law names
# an hour for e-mails about a contract.
REMINDER_HOUR = 8


def days_after(moment: datetime, days: int, timezone: str) -> datetime:
    """The local midnight with which the day so many days later begins."""
    return local_midnight(local_date(moment, timezone) + timedelta(days=days), timezone)


def day_over(moment: datetime, timezone: str) -> datetime:
    """The first local midnight at or after ``moment``: what ends, ends with a full day."""
    day = local_date(moment, timezone)
    midnight = local_midnight(day, timezone)
    return midnight if midnight >= moment else local_midnight(day + timedelta(days=1), timezone)


def morning_after(moment: datetime, timezone: str) -> datetime:
    """The first hour of writing to customers at or after ``moment``."""
    today = local_date(moment, timezone)
    morning = hour_of(today, 0, REMINDER_HOUR, timezone)
    return morning if morning >= moment else hour_of(today, 1, REMINDER_HOUR, timezone)


@lru_cache(maxsize=16_384)
def day_of(expires_at: datetime, timezone: str) -> date:
    """Services expire at few moments, and each is asked for its day many times."""
    return local_date(expires_at, timezone)


@lru_cache(maxsize=16_384)
def periods_after(day: date, period: Period, periods: int, timezone: str) -> datetime:
    return local_midnight(period.end(day, periods), timezone)


@lru_cache(maxsize=16_384)
def hour_of(day: date, days: int, hour: int, timezone: str) -> datetime:
    local = datetime.combine(day + timedelta(days=days), time(hour), zone(timezone))
    return local.astimezone(UTC)
