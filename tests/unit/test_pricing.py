import uuid
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import Catalogue, Plan, Price, Subsidiary
from schemas.errors import DataError
from schemas.rules.tax import TaxKind, tax_on
from schemas.values import Money, Period, Universe
from workers.orders.pricing import Order, OrderLine, PricedOrder, price

DAY = date(2026, 3, 2)
MONTH = Period(1)


def line(plan: str, *, number: int = 1, quantity: int = 1, period: Period = MONTH) -> OrderLine:
    return OrderLine(number, plan, period, quantity, {})


def order(*lines: OrderLine, **changes: Any) -> Order:
    facts: dict[str, Any] = {
        "id": uuid.UUID(int=7),
        "customer_id": "c-1",
        "subsidiary": "IE",
        "country": "IE",
        "vat_number": None,
        "payment_method_id": uuid.UUID(int=8),
    }
    return Order(**(facts | changes), lines=lines)


def test_setup_and_the_first_period_are_priced_with_the_tax_of_the_day(
    catalogue: Catalogue,
) -> None:
    priced = price(order(line("server")), catalogue, DAY)
    # 23 % in Ireland of 97.86 is 22.5078; of 59.99 alone 13.7977.
    assert [(p.period_number, p.net, p.tax) for p in priced.lines] == [
        (0, 5999, 1380),
        (1, 3787, 871),
    ]
    assert (priced.net, priced.tax, priced.currency) == (9786, 2251, "EUR")
    assert (priced.treatment.kind, priced.treatment.rate) == (TaxKind.DOMESTIC, Decimal(23))


def test_price_of_the_example_in_ovhs_renewal_guide(catalogue: Catalogue) -> None:
    # 37.87 EUR at France's 20 %: 7.57 tax, 45.44 in all.
    sold = order(line("server"), country="FR")
    first_period = price(sold, catalogue, DAY).lines[1]
    assert (first_period.net, first_period.tax) == (3787, 757)
    assert first_period.net + first_period.tax == 4544


def test_plan_without_a_setup_fee_has_no_line_for_it(catalogue: Catalogue) -> None:
    priced = price(order(line("web-perso")), catalogue, DAY)
    assert [(p.period_number, p.net) for p in priced.lines] == [(1, 359)]


def test_line_texts_name_the_plan_and_the_period(catalogue: Catalogue) -> None:
    priced = price(order(line("server")), catalogue, DAY)
    assert [p.description for p in priced.lines] == ["Server, setup", "Server, P1M"]


def test_a_quantity_of_n_is_n_services_each_with_its_own_lines(catalogue: Catalogue) -> None:
    priced = price(order(line("server", quantity=3)), catalogue, DAY)
    assert [service.unit for service in priced.services] == [1, 2, 3]
    assert len({service.id for service in priced.services}) == 3
    for service in priced.services:
        own = [(p.period_number, p.net) for p in priced.lines if p.service_id == service.id]
        assert own == [(0, 5999), (1, 3787)]


def test_an_order_of_several_lines_prices_each(catalogue: Catalogue) -> None:
    sold = order(
        line("web-perso", number=1, quantity=2),
        line("web-perso", number=2, period=Period(12)),
        line("server", number=3),
    )
    priced = price(sold, catalogue, DAY)
    assert [(s.line.number, s.unit) for s in priced.services] == [(1, 1), (1, 2), (2, 1), (3, 1)]
    assert len({service.id for service in priced.services}) == 4
    assert priced.net == 2 * 359 + 3877 + 5999 + 3787


def test_pricing_again_gives_the_same_lines_and_ids(catalogue: Catalogue) -> None:
    sold = order(line("server", quantity=2))
    assert price(sold, catalogue, DAY) == price(sold, catalogue, DAY)


def test_two_orders_share_no_line_id(catalogue: Catalogue) -> None:
    one = price(order(line("server")), catalogue, DAY)
    other = price(order(line("server"), id=uuid.UUID(int=9)), catalogue, DAY)
    assert one.request_id != other.request_id
    assert one.services[0].id != other.services[0].id
    assert one.request_id != one.services[0].id


def test_the_tax_is_that_of_the_customer_and_the_day(catalogue: Catalogue) -> None:
    def rate(day: date, **changes: Any) -> tuple[TaxKind, str]:
        treatment = price(order(line("web-perso"), **changes), catalogue, day).treatment
        return treatment.kind, str(treatment.rate)

    assert rate(date(2020, 12, 31), country="DE") == (TaxKind.EU_CONSUMER, "16")
    assert rate(date(2021, 1, 1), country="DE") == (TaxKind.EU_CONSUMER, "19")
    assert rate(DAY, country="DE", vat_number="DE136695976") == (TaxKind.REVERSE_CHARGE, "0")


def test_reverse_charge_leaves_the_net_price(catalogue: Catalogue) -> None:
    sold = order(line("server"), country="DE", vat_number="DE136695976")
    priced = price(sold, catalogue, DAY)
    assert (priced.net, priced.tax) == (9786, 0)


def test_the_currency_is_the_subsidiarys(catalogue: Catalogue) -> None:
    priced = price(order(line("web-perso"), subsidiary="CA", country="CA"), catalogue, DAY)
    assert (priced.currency, priced.net, priced.tax) == ("CAD", 499, 25)


@pytest.mark.parametrize(
    "gone",
    [
        line("no-such-plan"),
        line("voip"),  # not sold in Ireland
        line("web-perso", period=Period(3)),
    ],
)
def test_plan_off_sale_is_an_error(catalogue: Catalogue, gone: OrderLine) -> None:
    with pytest.raises(DataError, match=f"line 1: {gone.plan} is not sold in IE") as refused:
        price(order(gone), catalogue, DAY)
    assert refused.value.code == "plan_gone"


def test_sale_without_a_tax_rate_is_an_error(catalogue: Catalogue) -> None:
    with pytest.raises(DataError) as refused:
        price(order(line("web-perso"), country="US"), catalogue, DAY)
    assert refused.value.code == "tax_not_supported"


def _priced(setup: int, renewal: int, quantities: list[int]) -> PricedOrder:
    offer = Price(Money(setup, "EUR"), Money(renewal, "EUR"))
    plan = Plan("p", "P", Universe.WEB, "ovh", "web", None, {("IE", MONTH): offer})
    ireland = Subsidiary("IE", "E", "IE", "EUR", "Europe/Dublin", "en")
    lines = [line("p", number=n, quantity=q) for n, q in enumerate(quantities, 1)]
    return price(order(*lines), Catalogue([ireland], [], [plan]), DAY)


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_net_is_the_sum_of_the_lines_and_tax_is_rounded_once_for_all(
    setup: int, renewal: int, quantities: list[int]
) -> None:
    # EN 16931, BR-CO-10 and BR-CO-17
    priced = _priced(setup, renewal, quantities)
    units = sum(quantities)
    assert len(priced.services) == units
    assert priced.net == units * (setup + renewal)
    assert priced.tax == sum(p.tax for p in priced.lines) == (2 * priced.net * 23 + 100) // 200
    assert all(abs(p.tax - tax_on(p.net, Decimal(23))) <= 1 for p in priced.lines)
    # Every service has exactly one first period.
    paid = [p.service_id for p in priced.lines if p.period_number == 1]
    assert sorted(paid) == sorted(service.id for service in priced.services)
    assert len(set(paid)) == units
