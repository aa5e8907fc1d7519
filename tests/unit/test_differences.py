"""How what a driver shows differs from what should be there. Pure."""

from dataclasses import dataclass
from datetime import date

import pytest

from schemas.values import ResourceState
from workers.provisioning.differences import Kind, difference_of
from workers.provisioning.drivers.port import Resource

ABSENT, ACTIVE, SUSPENDED = ResourceState
ANCHOR, PAID = date(2026, 1, 31), date(2026, 3, 31)


@dataclass
class Row:
    """A service for which two months were paid."""

    desired: ResourceState = ACTIVE
    confirmed_until: date | None = PAID
    anchor: date | None = ANCHOR
    period_months: int = 1
    paid_periods: int = 2


@pytest.mark.parametrize("desired", ResourceState)
@pytest.mark.parametrize("seen", ResourceState)
def test_only_what_is_as_desired_differs_in_nothing(
    desired: ResourceState, seen: ResourceState
) -> None:
    kind = difference_of(Row(desired), Resource("r-1", seen, 1, PAID))

    if desired is seen:
        assert kind is None
    elif desired is ABSENT:
        assert kind is Kind.ORPHAN
    else:
        assert kind is (Kind.MISSING if seen is ABSENT else Kind.STATE)


@pytest.mark.parametrize(
    ("seen", "confirmed", "kind"),
    [
        (PAID, PAID, None),
        (None, PAID, None),
        (date(2026, 3, 30), PAID, Kind.PAID_UNTIL),
        (date(2026, 4, 1), PAID, Kind.LONGER),
        # A far side that rounds up to the end of a month said so when it was confirmed.
        (date(2026, 4, 30), date(2026, 4, 30), None),
        (PAID, date(2026, 4, 30), None),
        (date(2026, 5, 1), date(2026, 4, 30), Kind.LONGER),
        (date(2026, 3, 30), date(2026, 4, 30), Kind.PAID_UNTIL),
        (PAID, None, None),
    ],
)
def test_how_long_it_lasts_is_compared_with_what_was_paid_and_confirmed(
    seen: date | None, confirmed: date | None, kind: Kind | None
) -> None:
    row = Row(confirmed_until=confirmed)

    assert difference_of(row, Resource("r-1", ACTIVE, 1, seen)) is kind
