from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import BUNDLED, load
from schemas.clock import FixedClock, SystemClock, local_date, local_midnight

PARIS, TORONTO, SYDNEY = "Europe/Paris", "America/Toronto", "Australia/Sydney"

zones = st.sampled_from(
    sorted({subsidiary.timezone for subsidiary in load([BUNDLED]).subsidiaries.values()})
)
days = st.dates(date(2000, 1, 1), date(2100, 12, 31))


@pytest.mark.parametrize(
    ("moment", "timezone", "day"),
    [
        ("2026-01-31T22:59:59+00:00", PARIS, "2026-01-31"),
        ("2026-01-31T23:00:00+00:00", PARIS, "2026-02-01"),
        ("2026-07-31T21:59:59+00:00", PARIS, "2026-07-31"),
        ("2026-07-31T22:00:00+00:00", PARIS, "2026-08-01"),
        ("2026-01-01T04:59:59+00:00", TORONTO, "2025-12-31"),
        ("2026-01-01T05:00:00+00:00", TORONTO, "2026-01-01"),
        ("2026-07-01T03:59:59+00:00", TORONTO, "2026-06-30"),
        ("2026-07-01T04:00:00+00:00", TORONTO, "2026-07-01"),
        ("2026-01-31T12:59:59+00:00", SYDNEY, "2026-01-31"),
        ("2026-01-31T13:00:00+00:00", SYDNEY, "2026-02-01"),
        ("2026-07-31T13:59:59+00:00", SYDNEY, "2026-07-31"),
        ("2026-07-31T14:00:00+00:00", SYDNEY, "2026-08-01"),
        # An aware moment of any zone is the same moment.
        ("2026-02-01T00:30:00+01:00", TORONTO, "2026-01-31"),
    ],
)
def test_local_date_is_that_of_the_time_zone(moment: str, timezone: str, day: str) -> None:
    assert local_date(datetime.fromisoformat(moment), timezone).isoformat() == day


@pytest.mark.parametrize(
    ("day", "timezone", "begins"),
    [
        # France: summer time from 2024-03-31 to 2024-10-27.
        ("2024-03-31", PARIS, "2024-03-30T23:00:00"),
        ("2024-04-01", PARIS, "2024-03-31T22:00:00"),
        ("2024-10-27", PARIS, "2024-10-26T22:00:00"),
        ("2024-10-28", PARIS, "2024-10-27T23:00:00"),
        # Ontario: from 2024-03-10 to 2024-11-03.
        ("2024-03-10", TORONTO, "2024-03-10T05:00:00"),
        ("2024-03-11", TORONTO, "2024-03-11T04:00:00"),
        ("2024-11-03", TORONTO, "2024-11-03T04:00:00"),
        ("2024-11-04", TORONTO, "2024-11-04T05:00:00"),
        # New South Wales: to 2024-04-07, and again from 2024-10-06.
        ("2024-04-07", SYDNEY, "2024-04-06T13:00:00"),
        ("2024-04-08", SYDNEY, "2024-04-07T14:00:00"),
        ("2024-10-06", SYDNEY, "2024-10-05T14:00:00"),
        ("2024-10-07", SYDNEY, "2024-10-06T13:00:00"),
    ],
)
def test_local_midnight_is_right_across_daylight_saving_time(
    day: str, timezone: str, begins: str
) -> None:
    midnight = local_midnight(date.fromisoformat(day), timezone)
    assert midnight == datetime.fromisoformat(begins).replace(tzinfo=UTC)
    assert midnight.utcoffset() == timedelta(0)


@given(days, zones)
def test_local_midnight_is_the_first_moment_of_its_day(day: date, timezone: str) -> None:
    midnight = local_midnight(day, timezone)
    assert local_date(midnight, timezone) == day
    assert local_date(midnight - timedelta(microseconds=1), timezone) == day - timedelta(days=1)


@given(days, zones)
def test_a_day_lasts_about_a_day(day: date, timezone: str) -> None:
    length = local_midnight(day + timedelta(days=1), timezone) - local_midnight(day, timezone)
    assert timedelta(hours=23) <= length <= timedelta(hours=25)


def test_the_system_clock_is_aware_and_in_utc() -> None:
    now = SystemClock().now()
    assert now.utcoffset() == timedelta(0)
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_fixed_clock_stands_until_it_is_moved() -> None:
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    assert clock.now() == clock.now() == datetime(2026, 1, 1, tzinfo=UTC)
    clock.advance(timedelta(days=31))
    assert clock.now() == datetime(2026, 2, 1, tzinfo=UTC)
