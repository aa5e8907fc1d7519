"""What expired so long ago that its customer decides, not the calendar."""

from dataclasses import replace
from datetime import date, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.clock import local_midnight
from schemas.rules.facts import Cycle
from schemas.rules.lifecycle import NextStep, Step, due_notices, next_step, periods_to_reach
from schemas.rules.policies import DEFAULT_POLICY
from schemas.values import Period, RenewalMode
from tests.unit.test_lifecycle import PAYS, a_service, notice, on

TIMEZONE = "Europe/Paris"
TOLD: dict[str, Any] = {"notices": {notice("before-1"): on(-1, 8)}, "announced_at": on(-1, 8)}
# A month after the 20th of June, and one more.
BEHIND = local_midnight(date(2026, 8, 20), TIMEZONE)
NEXT_MORNING = datetime.fromisoformat("2026-08-20T08:00+02:00")


def at(now: datetime, **cycle: Any) -> NextStep | None:
    service = a_service(cycle=Cycle(**(TOLD | cycle)))
    return next_step(service, DEFAULT_POLICY, now, reminders=False)


def test_up_to_two_periods_are_charged_by_themselves() -> None:
    last = BEHIND - (on(1) - on(0)) / 24
    assert at(last) == NextStep(Step.REQUEST, on(-3))
    assert at(BEHIND) is None


def test_the_policy_says_how_many() -> None:
    service = a_service(cycle=Cycle(**TOLD))
    patient = replace(DEFAULT_POLICY, catch_up=120)
    assert next_step(service, patient, BEHIND, reminders=False) == NextStep(Step.REQUEST, on(-3))


def test_what_its_customer_asks_for_is_charged_however_late() -> None:
    assert at(BEHIND, asked_at=BEHIND) == NextStep(Step.REQUEST, BEHIND)


def test_what_costs_nothing_is_never_behind() -> None:
    service = a_service(is_free=True, cycle=Cycle(**TOLD))
    step = next_step(service, DEFAULT_POLICY, BEHIND, reminders=False)
    assert step == NextStep(Step.REQUEST, on(-3))


def test_it_comes_off_its_open_request() -> None:
    assert at(on(40), requested=True, last_declined_at=on(5)) == NextStep(Step.WITHDRAW, BEHIND)


def test_a_new_payment_method_does_not_charge_it() -> None:
    requested = {"requested": True, "method_changed": True}
    assert at(on(40), **requested) == NextStep(Step.REQUEST, a_service().began_at)
    assert at(BEHIND, **requested) == NextStep(Step.WITHDRAW, BEHIND)


def test_its_customer_is_told_the_next_morning_and_it_is_suspended_days_after_that() -> None:
    service = a_service(cycle=Cycle(**TOLD))
    assert notice("behind") not in due_notices(service, DEFAULT_POLICY, BEHIND)
    assert notice("behind") in due_notices(service, DEFAULT_POLICY, NEXT_MORNING)

    notices = {**TOLD["notices"], notice("behind"): NEXT_MORNING}
    told = replace(service, cycle=Cycle(**(TOLD | {"notices": notices})))
    end = next_step(told, DEFAULT_POLICY, NEXT_MORNING, reminders=False)
    assert end == NextStep(Step.SUSPEND, local_midnight(date(2026, 8, 28), TIMEZONE))


def test_who_renews_it_by_hand_is_told_nothing_of_that() -> None:
    service = a_service(RenewalMode.MANUAL)
    assert notice("behind") not in due_notices(service, DEFAULT_POLICY, BEHIND)


@given(
    anchor=st.dates(date(2024, 1, 1), date(2026, 12, 31)), months=st.sampled_from([1, 3, 12]),
    paid=st.integers(1, 30), catch_up=st.integers(1, 12), late=st.integers(0, 900),
)  # fmt: skip
def test_nothing_is_ever_charged_by_itself_for_more_periods_than_the_policy_says(
    anchor: date, months: int, paid: int, catch_up: int, late: int
) -> None:
    period = Period(months)
    expires_at = local_midnight(period.end(anchor, paid), TIMEZONE)
    began_at = local_midnight(period.end(anchor, paid - 1), TIMEZONE)
    now = expires_at + (on(1) - on(0)) * late
    service = replace(
        a_service(months=months, cycle=Cycle(notices={notice("before-1"): began_at})),
        expires_at=expires_at, began_at=began_at, starts_at=began_at,
    )  # fmt: skip
    policy = replace(DEFAULT_POLICY, catch_up=catch_up)
    next_ = next_step(service, policy, now, reminders=False)
    if next_ is not None and next_.step in PAYS:
        assert periods_to_reach(anchor, period, paid, TIMEZONE, max(now, next_.at)) <= catch_up
