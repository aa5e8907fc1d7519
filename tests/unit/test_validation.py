import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from producers.intake.validation import problems_of
from schemas.catalogue import Catalogue
from schemas.messages import OrderDocument

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

SERVER = {"plan": "server", "period": "P1M", "quantity": 2, "configuration": {"region": "europe"}}
SERVERS_AGREED = {"contract": "servers", "version": 2}


def order(document: dict[str, Any], **changes: Any) -> OrderDocument:
    """The document with changes; those of the customer are named ``customer_…``."""
    changed = copy.deepcopy(document)
    for name, value in changes.items():
        if name.startswith("customer_"):
            changed["customer"][name.removeprefix("customer_")] = value
        else:
            changed[name] = value
    return OrderDocument.model_validate(changed)


def found(order: OrderDocument, catalogue: Catalogue, now: datetime = NOON) -> list[Any]:
    problems = problems_of(order, catalogue, now)
    assert all(problem.message for problem in problems)
    return [(problem.code, problem.path) for problem in problems]


def test_valid_order_has_no_problems(document: dict[str, Any], catalogue: Catalogue) -> None:
    assert found(order(document), catalogue) == []


def test_a_year_is_twelve_months(document: dict[str, Any], catalogue: Catalogue) -> None:
    lines = [{"plan": "web-perso", "period": "P1Y"}]
    assert found(order(document, lines=lines), catalogue) == []


@pytest.mark.parametrize(
    ("changes", "code", "path"),
    [
        ({"customer_subsidiary": "XX"}, "subsidiary_unknown", "customer.subsidiary"),
        ({"customer_country": "US"}, "tax_not_supported", "customer.country"),
        ({"customer_country": "AQ"}, "tax_not_supported", "customer.country"),
        (
            {"customer_country": "DE", "customer_vat_number": "FR40303265045"},
            "vat_number_invalid",
            "customer.vat_number",
        ),
        (
            {"customer_country": "DE", "customer_vat_number": "DE136695975"},
            "vat_number_invalid",
            "customer.vat_number",
        ),
        ({"lines": [{"plan": "nothing", "period": "P1M"}]}, "plan_unknown", "lines.0.plan"),
        ({"lines": [{"plan": "voip", "period": "P1M"}]}, "plan_not_sold", "lines.0.plan"),
        (
            {"lines": [{"plan": "web-perso", "period": "P3M"}]},
            "period_not_offered",
            "lines.0.period",
        ),
        ({"lines": [{"plan": "web-perso", "period": "P500M"}]}, "period_invalid", "lines.0.period"),
        (
            {"lines": [{"plan": "web-perso", "period": "P1M", "quantity": 11}]},
            "quantity_out_of_bounds",
            "lines.0.quantity",
        ),
        ({"contracts": []}, "contract_missing", "contracts.web"),
        (
            {"contracts": [{"contract": "servers", "version": 3}]},
            "contract_missing",
            "contracts.web",
        ),
        ({"contracts": [{"contract": "web", "version": 2}]}, "contract_outdated", "contracts.web"),
        ({"contracts": [{"contract": "web", "version": 4}]}, "contract_outdated", "contracts.web"),
        (
            {"lines": [{"plan": "web-perso", "period": "P1M", "configuration": {"x": "y"}}]},
            "option_unknown",
            "lines.0.configuration.x",
        ),
    ],
)
def test_a_problem_has_its_code_and_its_path(
    document: dict[str, Any], catalogue: Catalogue, changes: dict[str, Any], code: str, path: str
) -> None:
    assert found(order(document, **changes), catalogue) == [(code, path)]


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        ({"configuration": {}}, "option_missing", "lines.0.configuration.region"),
        ({"configuration": {"region": "mars"}}, "option_invalid", "lines.0.configuration.region"),
        ({"quantity": 1}, "quantity_out_of_bounds", "lines.0.quantity"),
        ({"quantity": 6}, "quantity_out_of_bounds", "lines.0.quantity"),
    ],
)
def test_a_plan_has_its_own_options_and_bounds(
    document: dict[str, Any], catalogue: Catalogue, change: dict[str, Any], code: str, path: str
) -> None:
    lines, contracts = [SERVER | change], [SERVERS_AGREED]
    assert found(order(document, lines=lines, contracts=contracts), catalogue) == [(code, path)]


@pytest.mark.parametrize(
    "change", [{"quantity": 2}, {"quantity": 5}, {"configuration": {"region": "canada"}},
               {"configuration": {"region": "europe", "label": "anything at all"}}]
)  # fmt: skip
def test_offered_options_can_be_chosen(
    document: dict[str, Any], catalogue: Catalogue, change: dict[str, Any]
) -> None:
    lines, contracts = [SERVER | change], [SERVERS_AGREED]
    assert found(order(document, lines=lines, contracts=contracts), catalogue) == []


def test_telecom_is_sold_in_france(document: dict[str, Any], catalogue: Catalogue) -> None:
    lines = [{"plan": "voip", "period": "P1M"}]
    in_france = order(
        document, lines=lines, customer_subsidiary="FR", customer_country="FR", contracts=[]
    )
    assert found(in_france, catalogue) == []


def test_all_problems_of_all_lines_are_reported_at_once(
    document: dict[str, Any], catalogue: Catalogue
) -> None:
    # Given an order in which everything is wrong that can be at once
    everything = order(
        document,
        customer_country="US",
        contracts=[{"contract": "web", "version": 1}],
        lines=[
            {"plan": "web-perso", "period": "P6M", "quantity": 99, "configuration": {"x": "y"}},
            {"plan": "no-such-plan", "period": "P1M"},
            {"plan": "voip", "period": "P1M", "quantity": 99},
            SERVER | {"period": "P500M", "configuration": {"region": "mars"}},
        ],
    )
    # Then each is named once.
    assert sorted(found(everything, catalogue)) == [
        ("contract_missing", "contracts.servers"),
        ("contract_outdated", "contracts.web"),
        ("option_invalid", "lines.3.configuration.region"),
        ("option_unknown", "lines.0.configuration.x"),
        ("period_invalid", "lines.3.period"),
        ("period_not_offered", "lines.0.period"),
        ("plan_not_sold", "lines.2.plan"),
        ("plan_unknown", "lines.1.plan"),
        ("quantity_out_of_bounds", "lines.0.quantity"),
        ("quantity_out_of_bounds", "lines.2.quantity"),
        ("tax_not_supported", "customer.country"),
    ]


def test_missing_contract_is_reported_once_however_many_lines_need_it(
    document: dict[str, Any], catalogue: Catalogue
) -> None:
    twice = order(document, contracts=[], lines=document["lines"] * 2)
    assert found(twice, catalogue) == [("contract_missing", "contracts.web")]


def test_every_missing_contract_is_reported(document: dict[str, Any], catalogue: Catalogue) -> None:
    both = order(document, contracts=[], lines=[*document["lines"], SERVER])
    assert found(both, catalogue) == [
        ("contract_missing", "contracts.web"),
        ("contract_missing", "contracts.servers"),
    ]


@pytest.mark.parametrize("versions", [(3, 2), (2, 3), (3, 4), (3, 3)])
def test_customer_who_accepted_several_versions_accepted_the_current_one(
    document: dict[str, Any], catalogue: Catalogue, versions: tuple[int, int]
) -> None:
    contracts = [{"contract": "web", "version": version} for version in versions]
    assert found(order(document, contracts=contracts), catalogue) == []


def test_unknown_subsidiary_does_not_hide_problems_that_do_not_depend_on_it(
    document: dict[str, Any], catalogue: Catalogue
) -> None:
    # Given an order of a subsidiary that does not exist
    somewhere = order(
        document,
        customer_subsidiary="XX",
        customer_country="US",
        contracts=[],
        lines=[
            {"plan": "nothing", "period": "P1M"},
            SERVER | {"period": "P3M", "quantity": 6, "configuration": {"region": "mars"}},
            {"plan": "web-perso", "period": "P500M"},
        ],
    )
    # Then plans, quantities, options and contracts are looked at; where it is sold, for how long
    # and with which tax is not.
    assert sorted(found(somewhere, catalogue)) == [
        ("contract_missing", "contracts.servers"),
        ("contract_missing", "contracts.web"),
        ("option_invalid", "lines.1.configuration.region"),
        ("period_invalid", "lines.2.period"),
        ("plan_unknown", "lines.0.plan"),
        ("quantity_out_of_bounds", "lines.1.quantity"),
        ("subsidiary_unknown", "customer.subsidiary"),
    ]


def test_an_order_has_at_most_a_thousand_services(
    document: dict[str, Any], catalogue: Catalogue
) -> None:
    ten = {"plan": "web-perso", "period": "P1M", "quantity": 10}
    assert found(order(document, lines=[ten] * 100), catalogue) == []
    one_more = [*[ten] * 99, ten | {"quantity": 11}]
    assert found(order(document, lines=one_more), catalogue) == [
        ("order_too_large", "lines"),
        ("quantity_out_of_bounds", "lines.99.quantity"),
    ]


def test_a_message_says_what_would_be_accepted(
    document: dict[str, Any], catalogue: Catalogue
) -> None:
    def message(**changes: Any) -> str:
        (problem,) = problems_of(order(document, **changes), catalogue, NOON)
        return problem.message

    assert "P1M, P12M" in message(lines=[{"plan": "web-perso", "period": "P3M"}])
    assert "CA, FR, IE" in message(customer_subsidiary="XX")
    assert "web version 3 (https://example.com/w)" in message(contracts=[])
    too_many = {"plan": "web-perso", "period": "P1M", "quantity": 11}
    assert "1 to 10" in message(lines=[too_many])


def test_a_consumer_of_another_member_state_may_buy(
    document: dict[str, Any], catalogue: Catalogue
) -> None:
    assert found(order(document, customer_country="GR"), catalogue) == []


def test_a_business_of_another_member_state_may_buy(
    document: dict[str, Any], catalogue: Catalogue
) -> None:
    business = order(document, customer_country="GR", customer_vat_number="EL094259216")
    assert found(business, catalogue) == []


def test_order_on_a_day_without_a_tax_rate_is_refused(
    document: dict[str, Any], catalogue: Catalogue
) -> None:
    then = datetime(1990, 1, 1, tzinfo=UTC)
    assert found(order(document), catalogue, then) == [("tax_not_supported", "customer.country")]
