"""What may be sold in a subsidiary, and what is only renewed there."""

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import Catalogue, Option, Plan, Price
from schemas.rules import sellable
from schemas.values import Money, Period
from tests.support.given import CATALOGUE, FR, TERMS

MONTH, QUARTER, YEAR = Period(1), Period(3), Period(12)
SITE = CATALOGUE.plans["site"]
PRICE = Price(Money(0, "EUR"), Money(100, "EUR"))
# Sold for a month; a quarter is only renewed.
FADING = replace(SITE, prices={("FR", MONTH): PRICE}, last_prices={("FR", QUARTER): PRICE})

periods = st.sampled_from([MONTH, QUARTER, YEAR])
places = st.sampled_from(["FR", "IE", "PL"])
offers = st.dictionaries(st.tuples(places, periods), st.just(PRICE))


def codes(obstacles: object) -> list[tuple[str, str]]:
    return [(code, about) for code, about, message in obstacles if message]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("subsidiary", "period", "renewed", "expected"),
    [
        ("FR", MONTH, False, []),
        ("FR", QUARTER, False, [("period_not_offered", "period")]),
        ("FR", QUARTER, True, []),
        ("FR", YEAR, True, [("period_not_offered", "period")]),
        ("IE", MONTH, True, [("plan_not_sold", "plan")]),
        ("IE", None, False, [("plan_not_sold", "plan")]),
        ("FR", None, False, []),
    ],
)
def test_what_is_only_renewed_can_be_taken_over_and_not_ordered(
    subsidiary: str, period: Period | None, renewed: bool, expected: list[tuple[str, str]]
) -> None:
    assert codes(sellable.of_period(FADING, subsidiary, period, renewed=renewed)) == expected


@given(offers, offers, places, periods)
def test_what_can_be_sold_has_a_price_and_can_be_renewed(
    prices: dict[tuple[str, Period], Price],
    last: dict[tuple[str, Period], Price],
    place: str,
    period: Period,
) -> None:
    plan: Plan = replace(SITE, prices=prices, last_prices=last)
    sold = not list(sellable.of_period(plan, place, period))
    renewed = not list(sellable.of_period(plan, place, period, renewed=True))
    assert sold == (plan.price(place, period) is not None)
    assert renewed == (plan.renewal(place, period) is not None)
    assert renewed or not sold


@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 50))
def test_a_quantity_is_refused_outside_its_bounds(least: int, more: int, quantity: int) -> None:
    plan = replace(SITE, quantity_min=least, quantity_max=least + more)
    refused = codes(sellable.of_quantity(plan, quantity))
    assert bool(refused) == (not least <= quantity <= least + more)
    assert set(refused) <= {("quantity_out_of_bounds", "quantity")}


def test_options_are_needed_chosen_from_and_known() -> None:
    options = {"region": Option(required=True, values=("eu", "us")), "domain": Option(False)}
    plan = replace(SITE, options=options)
    assert codes(sellable.of_options(plan, {"region": "eu", "domain": "x"})) == []
    assert codes(sellable.of_options(plan, {"region": "mars", "color": "red"})) == [
        ("option_invalid", "configuration.region"),
        ("option_unknown", "configuration.color"),
    ]
    assert codes(sellable.of_options(plan, {})) == [("option_missing", "configuration.region")]


def test_a_customer_whose_tax_is_not_in_the_table_is_refused() -> None:
    day = date(2026, 3, 2)
    assert codes(sellable.of_customer(FR, "FR", None, day)) == []
    assert codes(sellable.of_customer(FR, "US", None, day)) == [("tax_not_supported", "country")]
    assert codes(sellable.of_customer(FR, "DE", "FR40303265045", day)) == [
        ("vat_number_invalid", "vat_number")
    ]


@given(st.none() | st.integers(0, 5))
def test_a_contract_is_missing_until_its_current_version_is_accepted(agreed: int | None) -> None:
    catalogue = Catalogue([FR], [TERMS], [SITE])
    missing = sellable.missing_contract(SITE, agreed, catalogue)
    assert missing == (None if (agreed or 0) >= TERMS.version else TERMS.version)
    assert sellable.missing_contract(replace(SITE, contract=None), agreed, catalogue) is None
