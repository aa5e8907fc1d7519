"""What costs more than was announced is told first, and charged after the days of a notice."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.rules.facts import Cycle
from schemas.rules.lifecycle import NextStep, Step, due_notices, next_step
from schemas.rules.policies import DEFAULT_POLICY, Policy
from schemas.values import RenewalMode
from tests.unit.test_lifecycle import PAYS, SUSPENDED, a_service, manual, notice, on, stopped

LATER = on(40)
REMINDED: dict[str, Any] = {"notices": {notice("before-1"): on(-1, 8)}, "announced_at": on(-1, 8)}


def dearer(**changes: Any) -> Cycle:
    """Found to cost more on day 0."""
    return Cycle(**(REMINDED | {"dearer": 1, "dearer_at": on(0)} | changes))


def told(at: datetime, **changes: Any) -> Cycle:
    return dearer(announced_at=at, raised_at=at, **changes)


def payment(cycle: Cycle, now: datetime = LATER, **changes: Any) -> NextStep | None:
    return next_step(a_service(cycle=cycle, **changes), DEFAULT_POLICY, now, reminders=False)


def test_until_its_customer_is_told_it_is_not_charged_whatever_was_asked() -> None:
    assert payment(dearer()) is None
    assert payment(dearer(asked_at=on(-1))) is None


@pytest.mark.parametrize("state", [{}, {**SUSPENDED, "suspended_at": on(-2)}])
def test_its_customer_is_told_the_next_morning(state: dict[str, Any]) -> None:
    service = a_service(cycle=dearer(), **state)
    assert notice("dearer-1") not in due_notices(service, DEFAULT_POLICY, on(0, 7, 59))
    assert notice("dearer-1") in due_notices(service, DEFAULT_POLICY, on(0, 8))


def test_an_e_mail_of_the_very_moment_at_which_it_was_found_did_not_tell_it() -> None:
    assert payment(dearer(announced_at=on(0))) is None
    its_own = {**REMINDED["notices"], notice("dearer-1"): on(0)}
    told_then = dearer(announced_at=on(0), raised_at=on(0), notices=its_own)
    assert payment(told_then) == NextStep(Step.REQUEST, on(7))


def test_the_second_time_it_is_another_notice() -> None:
    cycle = dearer(dearer=2, notices={**REMINDED["notices"], notice("dearer-1"): on(-5)})
    assert notice("dearer-2") in due_notices(a_service(cycle=cycle), DEFAULT_POLICY, on(0, 8))


def test_of_what_is_stopped_nobody_is_told_a_price() -> None:
    due = due_notices(stopped(cycle=dearer()), DEFAULT_POLICY, on(1))
    assert due == [notice("stop")]


def test_of_what_is_stopped_and_asked_for_all_the_same_they_are_told() -> None:
    stop = {**REMINDED["notices"], notice("stop"): on(-7, 8)}
    service = stopped(cycle=dearer(asked_at=on(-1), notices=stop))
    assert due_notices(service, DEFAULT_POLICY, on(1)) == [notice("dearer-1")]
    assert next_step(service, DEFAULT_POLICY, LATER) == NextStep(Step.REMIND, on(0, 8))


def test_once_told_it_is_charged_after_the_days_of_a_notice() -> None:
    found = payment(told(on(0, 8)))
    assert found == NextStep(Step.REQUEST, on(7, 8))


def test_asked_for_again_after_it_was_told_it_is_charged_at_once() -> None:
    assert payment(told(on(0, 8), asked_at=on(0, 9))) == NextStep(Step.REQUEST, on(0, 9))
    assert payment(told(on(0, 8), asked_at=on(-1))) == NextStep(Step.REQUEST, on(7, 8))


def test_an_amount_that_fell_again_by_the_time_it_is_told_is_charged_without_waiting() -> None:
    cycle = dearer(announced_at=on(0, 8))  # told, and not raised
    assert payment(cycle) == NextStep(Step.REQUEST, on(-3))


def test_a_notice_of_a_price_licenses_no_end() -> None:
    service = manual(cycle=Cycle(notices={notice("dearer-1"): on(-30)}))
    assert next_step(service, DEFAULT_POLICY, LATER, reminders=False) is None


def test_a_request_that_asks_for_the_wrong_amount_by_then_is_made_anew() -> None:
    cycle = Cycle(**REMINDED, requested=True, last_declined_at=on(-3), stands_until=on(0))
    assert payment(cycle, now=on(-2)) == NextStep(Step.CHARGE, on(-1))
    # The charge of day -1 is done late, after the request ceased to stand.
    assert payment(cycle, now=on(0)) == NextStep(Step.REQUEST, on(-1))
    assert payment(replace(cycle, stands_until=None), now=on(0)) == NextStep(Step.CHARGE, on(-1))


def untellable(policy: Policy = DEFAULT_POLICY, refused_at: int = 0, **changes: Any) -> Any:
    """The step after the e-mail about the higher amount was refused for its recipient."""
    cycle = dearer(refused={notice("dearer-1"): on(refused_at, 8)}, **changes.pop("cycle", {}))
    service = a_service(**{"cycle": cycle, **changes})
    return next_step(service, policy, LATER, reminders=False)


def test_who_cannot_be_told_is_not_charged_and_ends_as_if_a_charge_was_declined_then() -> None:
    assert untellable() == NextStep(Step.SUSPEND, on(8))
    assert untellable(mode=RenewalMode.MANUAL) == NextStep(Step.SUSPEND, on(8))
    declined = {"declines": 1, "declined_at": on(-3), "last_declined_at": on(-3)}
    assert untellable(cycle=declined) == NextStep(Step.SUSPEND, on(8))


def test_who_asked_for_the_renewal_and_cannot_be_told_has_not_paid() -> None:
    assert untellable(cycle={"asked_at": on(-1)}) == NextStep(Step.SUSPEND, on(8))


@pytest.mark.parametrize("refused_at", [0, 60])
def test_nothing_ends_within_the_days_of_a_notice_after_the_refusal(refused_at: int) -> None:
    without_grace = replace(DEFAULT_POLICY, charges=(-5, -2, 0), suspend=None)
    end = untellable(without_grace, refused_at)
    assert end == NextStep(Step.TERMINATE, on(refused_at + 8))

    told = {"notices": {**REMINDED["notices"], notice("suspended"): on(6, 8)}, "asked_at": on(-1)}
    suspended = {**SUSPENDED, "suspended_at": on(5)}
    end = untellable(refused_at=refused_at, cycle=told, **suspended)
    assert end == NextStep(Step.TERMINATE, max(on(30), on(refused_at + 8)))


def test_a_refused_e_mail_that_was_sent_after_all_counts_as_any_other() -> None:
    its_own = {**REMINDED["notices"], notice("dearer-1"): on(3, 8)}
    told = {"notices": its_own, "announced_at": on(3, 8), "raised_at": on(3, 8)}
    assert untellable(cycle=told) == NextStep(Step.REQUEST, on(10, 8))


@pytest.mark.parametrize("asked_at", [None, on(-3)])
def test_a_request_that_is_taxed_otherwise_than_its_customer_is_withdrawn(
    asked_at: datetime | None,
) -> None:
    cycle = Cycle(**REMINDED, requested=True, basis_changed=True, asked_at=asked_at)
    service = a_service(cycle=cycle)
    assert payment(cycle) == NextStep(Step.WITHDRAW, service.began_at)
    assert payment(replace(cycle, requested=False)) == NextStep(Step.REQUEST, on(-3))
    assert payment(replace(cycle, charging=True)) is None


moments = st.integers(-30 * 24, 60 * 24).map(lambda hours: on(0, 0) + (on(1) - on(0)) * hours / 24)


@given(
    announced=moments, raised=st.none() | moments, found=st.none() | moments,
    asked=st.none() | moments, requested=st.booleans(), declined=st.none() | moments, now=moments,
)  # fmt: skip
def test_nothing_is_ever_paid_within_the_days_after_a_rise_unless_asked_for_since(
    announced: datetime, raised: datetime | None, found: datetime | None,
    asked: datetime | None, requested: bool, declined: datetime | None, now: datetime,
) -> None:  # fmt: skip
    cycle = Cycle(
        notices=REMINDED["notices"], announced_at=announced, raised_at=raised, dearer_at=found,
        dearer=int(found is not None), asked_at=asked, requested=requested,
        last_declined_at=declined, declined_at=declined,
    )  # fmt: skip
    next_ = next_step(a_service(cycle=cycle), DEFAULT_POLICY, now, reminders=False)
    if next_ is None or next_.step not in PAYS:
        return
    assert found is None or announced > found
    if raised is not None and (asked is None or asked < raised):
        assert (next_.at - raised).days >= DEFAULT_POLICY.notice


def test_what_is_unpaid_does_not_end_before_the_charge_that_was_announced() -> None:
    without_grace = replace(DEFAULT_POLICY, charges=(-5, -2, 0), suspend=None)
    declined = {"declines": 1, "declined_at": on(-5), "last_declined_at": on(-5)}
    noticed = {"notices": {notice("before-1"): on(-15), notice("declined-1"): on(-4)}}

    untold = Cycle(**{**declined, **noticed, "dearer": 1, "dearer_at": on(-2)})
    untold = replace(untold, announced_at=on(-4))
    service = a_service(cycle=untold)
    assert next_step(service, without_grace, LATER, reminders=False) is None

    its_own = {**noticed["notices"], notice("dearer-1"): on(-2, 8)}
    told_at = replace(untold, announced_at=on(-2, 8), raised_at=on(-2, 8), notices=its_own)
    charge = next_step(a_service(cycle=told_at), without_grace, LATER, reminders=False)
    assert charge == NextStep(Step.REQUEST, on(5, 8))
    again = replace(told_at, last_declined_at=on(5, 8), declines=2)
    end = next_step(a_service(cycle=again), without_grace, LATER, reminders=False)
    assert end == NextStep(Step.TERMINATE, on(6))
