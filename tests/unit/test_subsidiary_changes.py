"""What speaks against a change of a subsidiary: pure rules."""

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import changes
from schemas.catalogue.changes import Change
from schemas.values import Period
from tests.support.given import CATALOGUE, FR, IE
from tests.support.moving import FRANCS, in_francs, to_francs

DAY = date(2026, 6, 1)
plans = st.sampled_from(["site", "vm", "old"])
priced = st.tuples(plans, st.sampled_from([Period(1), Period(3), Period(12)]))


def test_only_what_becomes_another_value_is_a_difference() -> None:
    wanted = {"currency": "EUR", "timezone": "Europe/London", "country": None}
    assert changes.differences(FR, wanted) == {"timezone": "Europe/London"}


def test_prices_of_files_are_those_of_the_subsidiary_alone() -> None:
    prices = changes.prices_of(in_francs(), "FR")
    assert prices["site", Period(1)] == prices["phone", Period(12)] == FRANCS
    assert {price.renewal.currency for price in prices.values()} == {"CHF"}
    assert changes.prices_of(CATALOGUE, "XX") == {}


@given(st.sets(priced), st.sets(priced))
def test_every_price_by_which_a_service_is_renewed_is_there_or_listed_once(
    renewed: set[tuple[str, Period]], there: set[tuple[str, Period]]
) -> None:
    change = replace(to_francs(DAY), prices=dict.fromkeys(there, FRANCS))
    listed = list(changes.missing(renewed, change))

    assert len(listed) == len(renewed - there)
    for plan, period in renewed - there:
        (line,) = [x for x in listed if x.startswith(f"plan {plan}: no price in CHF for {period} ")]
        assert line.endswith("in FR, and services are renewed by it")


@pytest.mark.parametrize(
    ("changed", "problems"),
    [
        ({}, []),
        ({"currency": "USD"}, ["subsidiary FR: currency: USD in these files, not CHF"]),
        ({"country": "CH"}, ["subsidiary FR: country: CH in these files, not FR"]),
        ({"entity": "Hosting AG", "language": "de"}, []),
    ],
)
def test_files_describe_the_subsidiary_as_it_becomes(
    changed: dict[str, str], problems: list[str]
) -> None:
    found = changes.contradictions(to_francs(DAY), in_francs(**changed), FR)
    assert list(found) == problems


def test_files_without_the_subsidiary_are_refused() -> None:
    elsewhere = Change("BG", DAY, {"currency": "EUR"})
    assert list(changes.contradictions(elsewhere, CATALOGUE, FR)) == [
        "subsidiary BG: not in these files"
    ]


def test_customers_that_a_country_does_not_sell_to_are_counted_by_reason() -> None:
    customers = [("FR", None), ("FR", None), ("DE", None), ("IE", "IE6388047V"), ("CH", None)]
    swiss = replace(FR, country="CH")
    found = list(changes.untaxed(swiss, customers, DAY))

    assert found[0] == (
        "subsidiary FR: FR does not sell to customers in DE: 1 customers could not be charged"
    )
    assert any("customers in FR: 2 customers" in line for line in found)
    assert list(changes.untaxed(IE, customers[:4], DAY)) == []


@pytest.mark.parametrize(
    ("definition", "refused"),
    [({"currency": "CHF"}, True), ({"country": "IE"}, True), ({"timezone": "Asia/Tokyo"}, False)],
)
def test_orders_that_are_not_priced_stand_in_the_way_of_money_alone(
    definition: dict[str, str], refused: bool
) -> None:
    change = Change("FR", DAY, definition)
    touched = changes.Touched(services=1, orders_not_priced=3, open_requests=0, announced=0)
    if not refused:
        changes.refuse_unpriced(change, touched)
        return
    with pytest.raises(changes.CannotApply, match="3 orders are accepted") as raised:
        changes.refuse_unpriced(change, touched)
    assert raised.value.code == "orders_not_priced"
    changes.refuse_unpriced(change, replace(touched, orders_not_priced=0))
