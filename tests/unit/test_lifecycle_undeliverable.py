"""A notice that cannot be delivered counts as given after the days that the policy says."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from schemas.rules.facts import Cycle
from schemas.rules.lifecycle import NextStep, Step, next_step
from schemas.rules.policies import DEFAULT_POLICY
from schemas.values import RenewalMode
from tests.unit.test_lifecycle import SUSPENDED, a_service, notice, on

LATER = on(90)


def refused(
    named: str, at: datetime, mode: RenewalMode = RenewalMode.MANUAL, **facts: Any
) -> NextStep | None:
    """The step after a notice was refused for its recipient, and nothing was ever sent."""
    notices = {notice(named): None, **facts.pop("notices", {})}
    refusals = {notice(named): at, **facts.pop("refusals", {})}
    cycle = Cycle(notices=notices, refused=refusals)
    service = a_service(mode, cycle=cycle, **facts)
    return next_step(service, DEFAULT_POLICY, LATER, reminders=False)


def test_an_unpaid_service_ends_although_its_customer_cannot_be_written_to() -> None:
    assert refused("before-30", on(-30, 8)) == NextStep(Step.SUSPEND, on(5))


def test_it_has_the_days_of_a_notice_after_those() -> None:
    # 14 days of trying from the day before the expiry on, then 7 days of notice.
    assert refused("before-1", on(-1, 8)) == NextStep(Step.SUSPEND, on(21))


def test_the_policy_says_how_many_days() -> None:
    cycle = Cycle(notices={notice("before-1"): None}, refused={notice("before-1"): on(-1, 8)})
    service = a_service(RenewalMode.MANUAL, cycle=cycle)
    soon = replace(DEFAULT_POLICY, undeliverable=3)
    assert next_step(service, soon, LATER, reminders=False) == NextStep(Step.SUSPEND, on(10))


def test_a_notice_that_was_neither_sent_nor_refused_ends_nothing() -> None:
    cycle = Cycle(notices={notice("before-30"): None})
    service = a_service(RenewalMode.MANUAL, cycle=cycle)
    assert next_step(service, DEFAULT_POLICY, LATER, reminders=False) is None


def test_one_that_was_sent_after_all_counts_from_then() -> None:
    assert refused("before-1", on(-1, 8), notices={notice("before-3"): on(-3, 8)}) == NextStep(
        Step.SUSPEND, on(5)
    )


def test_what_was_suspended_is_terminated_although_nobody_could_be_told() -> None:
    step = refused(
        "before-30", on(-30, 8), **SUSPENDED, suspended_at=on(5),
        notices={notice("suspended"): None}, refusals={notice("suspended"): on(6, 8)},
    )  # fmt: skip
    assert step == NextStep(Step.TERMINATE, on(30))


@pytest.mark.parametrize(("at", "end"), [(on(-7, 8), on(9)), (on(-30, 8), on(0))])
def test_what_its_customer_stopped_ends(at: datetime, end: datetime) -> None:
    assert refused("stop", at, RenewalMode.STOP) == NextStep(Step.TERMINATE, end)


def test_what_misses_a_contract_ends() -> None:
    step = refused("contract-3", on(-30, 8), RenewalMode.AUTOMATIC, missing_contract=3)
    assert step == NextStep(Step.TERMINATE, on(0))
