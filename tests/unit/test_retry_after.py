from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.outside.retry_after import MOST_SECONDS, retry_after

NOON = "Sun, 29 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        (" 30 ", 30.0),
        ("0030", 30.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("9" * 5000, 3600.0),
        ("0", None),
        ("-5", None),
        ("1.5", None),
        ("٣٠", None),
        ("soon", None),
        ("", None),
        ("Sun, 29 Nov 2026 12:00:30 GMT", 30.0),
        ("Sunday, 29-Nov-26 12:00:30 GMT", 30.0),
        ("Sun, 29 Nov 2026 13:00:30 +0100", 30.0),
        ("Sun Nov 29 12:00:30 2026", 30.0),
        ("Mon, 30 Nov 2026 12:00:00 GMT", 3600.0),
        ("Sun, 29 Nov 2026 11:59:00 GMT", None),
        ("Sun, 99 Nov 2026 12:00:30 GMT", None),
        ("Sun, 29 Nov 99999999999999999999 12:00:30 GMT", None),
    ],
)
def test_both_forms_are_understood_and_bounded(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value, "Date": NOON}) == seconds


def test_no_header_means_no_wish() -> None:
    assert retry_after({"Date": NOON}) is None


@pytest.mark.parametrize("date", [{}, {"Date": "yesterday"}])
def test_date_without_that_of_the_answer_is_compared_with_our_clock(date: dict[str, str]) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    seconds = retry_after({"Retry-After": until} | date)
    assert seconds is not None
    assert 90 < seconds <= 100


@given(st.text(), st.text())
def test_no_header_is_an_error(value: str, date: str) -> None:
    seconds = retry_after({"Retry-After": value, "Date": date})
    assert seconds is None or 0 < seconds <= MOST_SECONDS
