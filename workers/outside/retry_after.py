"""``Retry-After`` (RFC 9110, 10.2.3): seconds, or a date."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# A far side that asks for more is asked again after an hour: one wrong header must not stop a lane
# for ever.
MOST_SECONDS = 3600.0

_DIGITS = re.compile(r"[0-9]+", re.ASCII)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """For how long the far side asks not to be called, in seconds above 0; None: it does not, or
    what it says is neither of the two forms.

    A date is compared with that of the answer, so that a far side whose clock is wrong is
    understood, too.
    """
    value = headers.get("Retry-After", "").strip()
    if _DIGITS.fullmatch(value):
        seconds = float(value)  # of any length
    else:
        until = _date(value)
        if until is None:
            return None
        now = _date(headers.get("Date", "")) or datetime.now(UTC)
        seconds = (until - now).total_seconds()
    return min(seconds, MOST_SECONDS) if seconds > 0 else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
