import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.faults import ANSWERS, KINDS, ONLY, Faults, Rule

KEYS = [f"key-{number}" for number in range(1000)]
BODY = {"customer": "c-1", "plan": "web-perso", "configuration": {"domain": "example.com"}}


def strikes(faults: Faults, fault: str) -> bool:
    """Whether the next try of one key is struck, at a far side that can do that."""
    target = ONLY.get(fault, "gateway")
    operation = "charge" if target == "gateway" else "create"
    return faults.draw(target, operation, "k", BODY) is not None


def struck(faults: Faults, keys: list[str] = KEYS) -> set[str]:
    return {key for key in keys if faults.draw("gateway", "charge", key, BODY) is not None}


def test_no_rule_means_no_fault() -> None:
    assert struck(Faults()) == set()


@given(st.integers(), st.floats(0, 1))
def test_same_seed_gives_the_same_faults(seed: int, rate: float) -> None:
    rules = [{"fault": "error", "rate": rate}]
    keys = KEYS[:50]
    in_any_order = list(reversed(keys))
    assert struck(Faults(rules, seed), keys) == struck(Faults(rules, seed), in_any_order)


def test_another_seed_gives_other_faults() -> None:
    rules = [{"fault": "error", "rate": 0.5}]
    assert struck(Faults(rules, 1)) != struck(Faults(rules, 2))


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_rate_is_the_share_of_keys_with_a_fault(rate: float) -> None:
    share = len(struck(Faults([{"fault": "error", "rate": rate}]))) / len(KEYS)
    assert abs(share - rate) < 0.05


def test_rate_0_gives_no_fault_and_rate_1_always_one() -> None:
    assert struck(Faults([{"fault": "error", "rate": 0}])) == set()
    assert struck(Faults([{"fault": "error", "rate": 1}])) == set(KEYS)


def test_two_rules_draw_independently() -> None:
    # Given two rules with the same rate
    first = struck(Faults([{"fault": "error", "rate": 0.5}]))
    both = struck(Faults([{"fault": "error", "rate": 0.5}, {"fault": "slow", "rate": 0.5}]))
    # Then the second strikes about half of those the first let go.
    assert first < both
    assert abs(len(both) / len(KEYS) - 0.75) < 0.05


def test_first_rule_that_applies_wins() -> None:
    faults = Faults(
        [{"fault": "slow", "operation": "refund"}, {"fault": "error"}, {"fault": "late"}]
    )
    rule = faults.draw("gateway", "charge", "k", BODY)
    assert rule is not None
    assert rule.fault == "error"


@pytest.mark.parametrize("fault", [kind for kind in KINDS if kind not in ANSWERS])
def test_fault_happens_to_the_first_try_of_a_key_only(fault: str) -> None:
    faults = Faults([{"fault": fault}])
    assert [strikes(faults, fault) for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("fault", ANSWERS)
def test_decline_stays_the_same_however_often_it_is_repeated(fault: str) -> None:
    faults = Faults([{"fault": fault}])
    assert all(strikes(faults, fault) for _ in range(100))


def test_fault_happens_to_as_many_tries_as_the_rule_says() -> None:
    faults = Faults([{"fault": "error", "times": 3}])
    for key in ("one", "other"):
        tries = [faults.draw("gateway", "charge", key, BODY) is not None for _ in range(5)]
        assert tries == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("rule", "strikes"),
    [
        ({}, True),
        ({"target": "gateway"}, True),
        ({"target": "infrastructure"}, False),
        ({"operation": "charge"}, True),
        ({"operation": "create"}, False),
        ({"operation": "charge", "target": "gateway"}, True),
        ({"customer": "c-1"}, True),
        ({"customer": "c-*"}, True),
        ({"customer": "d-*"}, False),
        ({"plan": "web-*"}, True),
        ({"plan": "WEB-*"}, False),
        ({"plan": "web-*", "customer": "d-*"}, False),
        ({"configuration": {}}, True),
        ({"configuration": {"domain": "*.com"}}, True),
        ({"configuration": {"domain": "*.net"}}, False),
        ({"configuration": {"domain": "*.com", "size": "*"}}, False),
    ],
)
def test_rule_can_be_restricted_to_some_calls(rule: dict[str, Any], strikes: bool) -> None:
    drawn = Faults([{"fault": "error"} | rule]).draw("gateway", "charge", "k", BODY)
    assert (drawn is not None) is strikes


def test_a_gateway_is_not_struck_by_what_only_an_infrastructure_does() -> None:
    assert Faults([{"fault": "forbid"}]).draw("gateway", "charge", "k", BODY) is None


def test_only_charges_can_be_declined() -> None:
    faults = Faults([{"fault": "decline"}])
    assert faults.draw("infrastructure", "create", "k", BODY) is None
    assert faults.draw("gateway", "charge", "k", BODY) is not None


def test_rules_can_be_added_and_taken_away() -> None:
    faults = Faults()
    faults.add({"fault": "error"})
    assert faults.draw("gateway", "charge", "k", BODY) is not None
    faults.clear()
    assert faults.draw("gateway", "charge", "other", BODY) is None


@pytest.mark.parametrize(
    "rule",
    [
        {}, {"fault": "explode"}, {"fault": None}, {"fault": []}, {"fault": "error", "rate": 1.1},
        {"fault": "error", "rate": -0.1}, {"fault": "error", "rate": "often"},
        {"fault": "error", "rate": float("nan")}, {"fault": "error", "rate": None},
        {"fault": "error", "target": "us"}, {"fault": "error", "colour": "red"}, "error", 5, None,
        ["error"], {"fault": "error", "rate": True}, {"fault": "error", "target": None},
        {"fault": "slow", "seconds": "x"}, {"fault": "slow", "seconds": -1},
        {"fault": "slow", "seconds": float("inf")}, {"fault": "slow", "seconds": None},
        {"fault": "slow", "times": "x"}, {"fault": "slow", "times": 0},
        {"fault": "slow", "times": 1.5}, {"fault": "slow", "customer": 5},
        {"fault": "slow", "plan": None},
        {"fault": "slow", "operation": 5}, {"fault": "slow", "operation": "chrage"},
        {"fault": "slow", "operation": "create", "target": "gateway"},
        {"fault": "refuse", "reason": 5}, {"fault": "refuse", "reason": []},
        {"fault": "refuse", "words": 5}, {"fault": "refuse", "configuration": "example.com"},
        {"fault": "refuse", "configuration": {"domain": 5}},
        {"fault": "refuse", "configuration": []}, {"fault": "in_progress", "target": "gateway"},
        {"fault": "decline", "target": "infrastructure"},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_invalid_rule_is_refused(rule: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Faults().add(rule)


def test_decline_and_refusal_give_their_reason() -> None:
    assert Rule("decline").reason == "insufficient_funds"
    assert Rule("refuse").reason == "out_of_stock"
    assert Rule("in_progress").reason is None  # it is done in the end
    assert Rule("decline", reason="stolen_card").reason == "stolen_card"
