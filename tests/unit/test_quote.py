"""What a renewal costs: periods, net, tax, currency, as of a day, and for how long that stands."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import Subsidiary
from schemas.clock import local_midnight
from schemas.rules.quote import Quote, quote
from schemas.rules.tax import tax_on
from schemas.values import Money, Period
from tests.support.given import FR, IE

DE = Subsidiary("DE", "Hosting GmbH", "DE", "EUR", "Europe/Berlin", "de")
PRICE = Money(3787, "EUR")
ANCHOR = date(2026, 5, 20)


def quoted(now: datetime, **changes: Any) -> Quote:
    """The renewal of a service of a month that expires on 2026-06-20."""
    facts: dict[str, Any] = {
        "anchor": ANCHOR,
        "period": Period(1),
        "paid_periods": 1,
        "price": PRICE,
        "subsidiary": FR,
        "country": "FR",
        "vat_number": None,
    }
    return quote(now=now, **(facts | changes))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_before_the_expiry_it_buys_one_period_at_the_rate_of_the_day() -> None:
    # 37.87 EUR net, 45.44 gross in FR: the example of OVH's API renewal guide.
    found = quoted(at("2026-06-10T12:00"))

    assert (found.periods, found.net, found.gross) == (1, PRICE, Money(4544, "EUR"))
    assert (found.rate, found.paid_until) == (Decimal(20), date(2026, 7, 20))
    assert found.as_of == date(2026, 6, 10)


def test_paid_late_it_buys_the_periods_that_reach_the_future() -> None:
    found = quoted(at("2026-07-25T12:00"))

    assert (found.periods, found.gross) == (2, Money(9089, "EUR"))
    assert found.paid_until == date(2026, 8, 20)


def test_it_stands_until_one_more_period_would_be_needed() -> None:
    found = quoted(at("2026-06-10T12:00"))

    assert found.stands_until == local_midnight(date(2026, 7, 20), FR.timezone)
    assert quoted(found.stands_until - timedelta(microseconds=1)).periods == 1
    assert quoted(found.stands_until).periods == 2


def test_it_stands_until_the_rate_of_tax_changes() -> None:
    # In Germany 19 %, from 2020-07-01 on 16 %, from 2021-01-01 on 19 % again.
    facts = {"subsidiary": DE, "country": "DE", "anchor": date(2020, 5, 20)}
    found = quoted(at("2020-06-10T12:00"), **facts)

    assert found.rate == 19
    assert found.stands_until == local_midnight(date(2020, 7, 1), DE.timezone)
    assert quoted(found.stands_until, **facts).rate == 16


def test_under_reverse_charge_no_rate_changes() -> None:
    found = quoted(
        at("2020-06-10T12:00"), anchor=date(2020, 5, 20), country="DE", vat_number="DE136695976"
    )

    assert (found.rate, found.tax.amount) == (0, 0)
    assert found.stands_until == local_midnight(date(2020, 7, 20), FR.timezone)


@pytest.mark.parametrize(
    ("announced", "dearer"),
    [
        (None, False),
        (Money(4544, "EUR"), False),
        (Money(4545, "EUR"), False),
        (Money(4543, "EUR"), True),
        (Money(9999, "CZK"), True),
    ],
)
def test_it_is_dearer_than_less_or_than_an_amount_in_another_currency(
    announced: Money | None, dearer: bool
) -> None:
    assert quoted(at("2026-06-10T12:00")).is_dearer_than(announced) is dearer


moments = st.datetimes(datetime(2019, 1, 1), datetime(2031, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)
anchors = st.dates(date(2018, 1, 1), date(2030, 12, 31))
sellers = st.sampled_from([FR, IE, DE])


@given(moments, anchors, sellers, st.sampled_from([1, 3, 12]), st.integers(0, 10**7),
       st.floats(0, 0.999))  # fmt: skip
def test_whenever_it_is_asked_again_while_it_stands_the_answer_is_the_same(
    now: datetime, anchor: date, seller: Subsidiary, months: int, amount: int, part: float
) -> None:
    facts: dict[str, Any] = {
        "anchor": anchor,
        "period": Period(months),
        "price": Money(amount, "EUR"),
        "subsidiary": seller,
        "country": seller.country,
    }
    first = quoted(now, **facts)
    assert first.stands_until > now
    again = quoted(now + (first.stands_until - now) * part, **facts)

    assert (again.periods, again.rate, again.gross, again.paid_until, again.stands_until) == (
        first.periods, first.rate, first.gross, first.paid_until, first.stands_until,
    )  # fmt: skip


@given(moments, anchors, sellers, st.sampled_from([1, 3, 12]), st.integers(0, 10**7))
def test_its_gross_is_its_net_and_the_tax_of_each_period_and_it_reaches_the_future(
    now: datetime, anchor: date, seller: Subsidiary, months: int, amount: int
) -> None:
    found = quoted(
        now, anchor=anchor, period=Period(months), price=Money(amount, "EUR"), subsidiary=seller,
        country=seller.country,
    )  # fmt: skip

    assert found.net.amount == found.periods * amount
    assert found.gross.amount == found.net.amount + tax_on(found.periods * amount, found.rate)
    assert local_midnight(found.paid_until, seller.timezone) > now
    if found.periods > 1:
        one_less = Period(months).end(anchor, found.periods)
        assert local_midnight(one_less, seller.timezone) <= now
