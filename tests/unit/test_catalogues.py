import pytest

from autorenew.catalogues import bundled
from schemas.catalogue import Catalogue
from schemas.values import Universe


@pytest.fixture(scope="module")
def sold() -> Catalogue:
    return bundled()


def test_there_are_more_than_150_plans(sold: Catalogue) -> None:
    assert len(sold.plans) > 150


def test_all_universes_and_three_brands_are_there(sold: Catalogue) -> None:
    assert {plan.universe for plan in sold.plans.values()} == set(Universe)
    assert {plan.brand for plan in sold.plans.values()} == {"ovh", "kimsufi", "soyoustart"}


def test_contracts_and_policies_of_every_plan_exist(sold: Catalogue) -> None:
    for plan in sold.plans.values():
        assert plan.contract is None or sold.contract(plan.contract) is not None
        assert {subsidiary for subsidiary, _ in plan.prices} <= set(sold.subsidiaries)


def test_no_plan_is_lost_to_another_of_the_same_code(sold: Catalogue) -> None:
    assert all(plan.code == code for code, plan in sold.plans.items())
    assert sum(plan.universe is Universe.DEDICATED for plan in sold.plans.values()) == 146


def test_unknown_plan_is_none(sold: Catalogue) -> None:
    assert sold.plan("no-such-plan") is None
    assert sold.contract("no-such-contract") is None
    with pytest.raises(KeyError):
        sold.subsidiary("XX")
