"""The next step of a service, given the facts. Time and lateness have files of their own."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from schemas.rules.facts import Cycle, Service
from schemas.rules.lifecycle import (
    NextStep,
    Step,
    due_notices,
    end_of_suspension,
    ends_because,
    next_step,
)
from schemas.rules.notices import End, Notice
from schemas.rules.policies import DEFAULT_POLICY, Policy, ReminderRule
from schemas.values import Period, RenewalMode, ResourceState, ServiceState

notice = Notice.parse
NO_GRACE = replace(DEFAULT_POLICY, code="no-grace", suspend=None)
# Its one reminder is before most periods begin.
EARLY = replace(DEFAULT_POLICY, code="early", reminders=(45,), reminders_for=())
EXPIRY = date(2026, 6, 20)
PAYS = (Step.REQUEST, Step.CHARGE)
SUSPENDED: dict[str, Any] = {
    "state": ServiceState.SUSPENDED,
    "desired": ResourceState.SUSPENDED,
}


def on(day: int, hour: int = 0, minute: int = 0) -> datetime:
    """A moment so many days after the expiry, in Paris, where it is summer time throughout."""
    wall = datetime(2026, 6, 20, hour, minute, tzinfo=ZoneInfo("Europe/Paris"))
    return (wall + timedelta(days=day)).astimezone(UTC)


def a_service(
    mode: RenewalMode = RenewalMode.AUTOMATIC, *, months: int = 1, **changes: Any
) -> Service:
    """An active service in France that expires on 2026-06-20."""
    began_on = Period(months).end(EXPIRY, -1)
    facts: dict[str, Any] = {
        "state": ServiceState.ACTIVE,
        "desired": ResourceState.ACTIVE,
        "subsidiary": "FR",
        "timezone": "Europe/Paris",
        "expires_at": on(0),
        "began_at": on((began_on - EXPIRY).days),
        "starts_at": datetime(2020, 1, 1, tzinfo=UTC),
    }
    return Service(mode=mode, period=Period(months), **(facts | changes))


def manual(**changes: Any) -> Service:
    return a_service(RenewalMode.MANUAL, **changes)


def stopped(**changes: Any) -> Service:
    return a_service(RenewalMode.STOP, **changes)


def declined(*moments: datetime, **changes: Any) -> Cycle:
    """Reminded 30 days before, requested, and declined at each of these moments."""
    facts: dict[str, Any] = {
        "notices": {notice("before-30"): on(-30, 8)}
        | {notice(f"declined-{len(moments)}"): on(-3, 8)},
        "requested": True,
        "declines": len(moments),
        "declined_at": moments[0],
        "last_declined_at": moments[-1],
    }
    return Cycle(**(facts | changes))


def what(service: Service, policy: Policy = DEFAULT_POLICY) -> NextStep | None:
    """The next step, as decided long before."""
    return next_step(service, policy, on(-400))


def reminded(service: Service, policy: Policy = DEFAULT_POLICY) -> Iterator[tuple[str, datetime]]:
    """The notices of a service, each sent when it is due, until another step is next."""
    while (next_ := what(service, policy)) is not None and next_.step is Step.REMIND:
        for kind in due_notices(service, policy, next_.at):
            yield kind, next_.at
            notices = {**service.cycle.notices, kind: next_.at}
            service = replace(service, cycle=replace(service.cycle, notices=notices))


class TestReminders:
    def test_a_customer_is_reminded_30_15_7_3_and_1_days_before_at_eight(self) -> None:
        assert list(reminded(manual(months=6))) == [
            (notice(f"before-{days}"), on(-days, 8)) for days in (30, 15, 7, 3, 1)
        ]

    def test_a_yearly_contract_is_announced_from_60_days_before_in_france(self) -> None:
        # Code de la consommation, L215-1: between three months and one month before.
        french = [at for _, at in reminded(manual(months=12))]
        assert french == [on(-days, 8) for days in (60, 30, 15, 7, 3, 1)]

    @pytest.mark.parametrize(("subsidiary", "months"), [("IE", 12), ("FR", 6), ("FR", 24)])
    def test_only_yearly_contracts_in_france_are_announced_that_early(
        self, subsidiary: str, months: int
    ) -> None:
        first = next(reminded(manual(subsidiary=subsidiary, months=months)))
        assert first == (notice("before-30"), on(-30, 8))

    def test_a_rule_of_law_holds_for_expiries_from_its_day_on(self) -> None:
        law = ReminderRule("FR", None, (90, 60), since=EXPIRY, source="a law")
        policy = Policy(reminders=(5,), reminders_for=(law,))
        days = [
            policy.reminder_days("FR", Period(1), EXPIRY + timedelta(days=after))
            for after in (-1, 0, 1)
        ]
        assert days == [(5,), (90, 60), (90, 60)]

    def test_first_exception_that_matches_applies(self) -> None:
        rules = (
            ReminderRule("IE", None, (10,)),
            ReminderRule(None, Period(3), (20, 2)),
            ReminderRule("IE", Period(3), (40,)),
        )
        policy = Policy(reminders=(5,), reminders_for=rules)
        days = {
            (subsidiary, months): policy.reminder_days(subsidiary, Period(months), EXPIRY)
            for subsidiary in ("IE", "FR")
            for months in (1, 3)
        }
        assert days == {
            ("IE", 1): (10,), ("IE", 3): (10,), ("FR", 1): (5,), ("FR", 3): (20, 2),
        }  # fmt: skip

    @pytest.mark.parametrize("began", [-28, -30])
    def test_no_reminder_is_sent_before_a_period_begins_or_on_that_day(self, began: int) -> None:
        service = manual(began_at=on(began))
        assert next(reminded(service)) == (notice("before-15"), on(-15, 8))
        assert due_notices(service, DEFAULT_POLICY, on(-15, 7, 59)) == []

    def test_customer_is_reminded_the_day_after_a_period_begins_if_it_is_due(self) -> None:
        assert next(reminded(manual(began_at=on(-31)))) == (notice("before-30"), on(-30, 8))

    @pytest.mark.parametrize(
        ("now", "due"),
        [
            (on(-30, 7, 59), []),
            (on(-30, 8), [notice("before-30")]),
            (on(-15, 7, 59), [notice("before-30")]),
            (on(-15, 8), [notice("before-15")]),
            (on(-2), [notice("before-3")]),
            (on(40), [notice("before-1")]),
        ],
    )
    def test_only_the_newest_of_missed_reminders_is_due(
        self, now: datetime, due: list[str]
    ) -> None:
        assert due_notices(manual(months=6), DEFAULT_POLICY, now) == due

    def test_older_missed_reminders_are_never_sent(self) -> None:
        service = manual(cycle=Cycle(notices={notice("before-3"): None}))
        assert due_notices(service, DEFAULT_POLICY, on(-2)) == []
        assert what(service) == (Step.REMIND, on(-1, 8))

    @pytest.mark.parametrize(
        ("at", "told"), [(on(-3), on(-3, 8)), (on(-3, 8), on(-3, 8)), (on(-3, 8, 1), on(-2, 8))]
    )
    def test_a_failed_charge_is_told_at_the_next_eight_in_the_morning(
        self, at: datetime, told: datetime
    ) -> None:
        service = a_service(cycle=declined(at, notices={notice("before-3"): on(-3, 8)}))
        assert what(service) == (Step.REMIND, told)
        assert due_notices(service, DEFAULT_POLICY, told) == [notice("declined-1")]

    def test_only_the_newest_of_several_failed_charges_is_told(self) -> None:
        cycle = declined(on(-3), on(-1), on(0), notices={notice("before-1"): on(-1, 8)})
        assert due_notices(a_service(cycle=cycle), DEFAULT_POLICY, on(2)) == [notice("declined-3")]

    def test_customer_who_got_a_mail_today_gets_the_next_tomorrow(self) -> None:
        service = manual(months=6, quiet_until=on(-29))
        assert what(service) == (Step.REMIND, on(-29))
        assert what(replace(service, quiet_until=on(-40))) == (Step.REMIND, on(-30, 8))

    def test_a_suspension_is_told_the_morning_after(self) -> None:
        service = a_service(
            **SUSPENDED, suspended_at=on(5, 9), cycle=declined(on(-3), on(-1), on(0), on(3), on(5))
        )
        assert what(service) == (Step.REMIND, on(6, 8))
        assert due_notices(service, DEFAULT_POLICY, on(6, 8)) == [notice("suspended")]

    def test_paid_service_that_is_being_resumed_is_not_announced_as_suspended(self) -> None:
        paid = manual(state=ServiceState.SUSPENDED, suspended_at=on(-25), months=6)
        assert what(paid) == (Step.REMIND, on(-30, 8))
        assert due_notices(paid, DEFAULT_POLICY, on(-30, 8)) == [notice("before-30")]

    def test_contract_to_accept_is_told_in_the_morning(self) -> None:
        # Given a first reminder that would be before the period: on the day after it began.
        service = manual(began_at=on(-28), missing_contract=4)
        assert what(service) == (Step.REMIND, on(-27, 8))
        assert due_notices(service, DEFAULT_POLICY, on(-27, 8)) == [notice("contract-4")]

    def test_contract_to_accept_is_told_with_the_first_reminder_where_there_is_one(self) -> None:
        service = manual(months=6, missing_contract=4)
        assert what(service) == (Step.REMIND, on(-30, 8))
        assert due_notices(service, DEFAULT_POLICY, on(-30, 8)) == [
            notice("contract-4"),
            notice("before-30"),
        ]

    def test_suspended_customer_is_told_of_a_contract_to_accept_the_morning_after(self) -> None:
        service = a_service(**SUSPENDED, suspended_at=on(5, 9), missing_contract=4)
        assert list(reminded(service)) == [
            (notice("suspended"), on(6, 8)),
            (notice("contract-4"), on(6, 8)),
        ]
        told = replace(service, cycle=Cycle(notices={notice("contract-4"): on(-30, 8)}))
        assert list(reminded(told)) == [(notice("suspended"), on(6, 8))]

    @pytest.mark.parametrize("days", [(30,), (60, 45, 30), (28,)])
    def test_customer_is_reminded_in_a_period_shorter_than_every_reminder(
        self, days: tuple[int, ...]
    ) -> None:
        # 28 days in February, under a policy that says 28 days before and nothing later.
        policy = replace(DEFAULT_POLICY, reminders=days)
        found = list(reminded(manual(began_at=on(-28)), policy))
        assert found == [(notice(f"before-{days[-1]}"), on(-27, 8))]

    def test_reminder_in_a_short_period_is_not_repeated_when_the_policy_gains_another(self) -> None:
        policy = replace(DEFAULT_POLICY, reminders=(45, 30))
        told = Cycle(notices={notice("before-45"): on(-27, 8)})
        assert list(reminded(manual(began_at=on(-28), cycle=told), policy)) == []


class TestPayment:
    def test_payment_is_requested_and_charged_3_days_before_at_midnight(self) -> None:
        service = a_service(cycle=Cycle(notices={notice("before-7"): on(-7, 8)}))
        assert what(service) == (Step.REQUEST, on(-3))

    @pytest.mark.parametrize(
        ("before", "after"), [(on(-3), on(-1)), (on(-1), on(0)), (on(0), on(3)), (on(3), on(5))]
    )
    def test_declined_charge_is_retried(self, before: datetime, after: datetime) -> None:
        cycle = declined(before + timedelta(minutes=5))
        service = a_service(
            cycle=replace(cycle, notices={**cycle.notices, notice("before-1"): None})
        )
        assert what(service) == (Step.CHARGE, after)

    def test_missed_retries_collapse_into_one(self) -> None:
        # Given the fleet was down from the first charge on, to the fourth day after expiry.
        cycle = declined(
            on(-3), notices={notice("before-1"): on(-4, 8), notice("declined-1"): on(4)}
        )
        assert what(a_service(cycle=cycle)) == (Step.CHARGE, on(-1))
        # When that is declined on the fourth, then only the one on the fifth is left.
        again = declined(
            on(-3), on(4), notices={notice("before-1"): on(-4, 8), notice("declined-2"): on(4, 8)}
        )
        assert what(a_service(cycle=again)) == (Step.CHARGE, on(5))

    def test_nothing_is_charged_after_the_last_retry(self) -> None:
        notices = {
            notice("before-3"): on(-3, 8),
            notice("before-1"): on(-1, 8),
            notice("declined-2"): on(5, 8),
        }
        cycle = declined(on(-3), on(5), notices=notices)
        assert what(a_service(cycle=cycle)) == (Step.SUSPEND, on(5))

    def test_customer_who_asks_to_renew_is_charged_at_once(self) -> None:
        for mode in RenewalMode:
            service = a_service(mode, cycle=Cycle(asked_at=on(-40)), months=6)
            assert what(service) == (Step.REQUEST, on(-40))

    def test_customer_who_asked_to_renew_is_charged_before_a_suspension(self) -> None:
        cycle = Cycle(notices={notice("before-1"): on(-1, 8)}, asked_at=on(20))
        assert what(manual(cycle=cycle)) == (Step.REQUEST, on(20))

    def test_stopped_service_is_taken_off_its_payment_request(self) -> None:
        withdrawn = what(stopped(cycle=declined(on(-3), notices={})))
        assert withdrawn is not None
        assert withdrawn.step is Step.WITHDRAW
        assert withdrawn.at <= on(-3)

    def test_service_with_a_newer_contract_to_accept_is_taken_off_its_payment_request(self) -> None:
        service = a_service(missing_contract=4, cycle=declined(on(-3)))
        withdrawn = what(service)
        assert withdrawn is not None
        assert withdrawn.step is Step.WITHDRAW

    def test_service_is_charged_at_once_when_its_contract_is_accepted_late(self) -> None:
        notices = {notice("before-1"): on(-1, 8), notice("contract-4"): on(-30, 8)}
        missing = a_service(missing_contract=4, cycle=Cycle(notices=notices))
        assert what(missing) == (Step.TERMINATE, on(0))
        request = next_step(replace(missing, missing_contract=None), DEFAULT_POLICY, on(-1, 12))
        assert request is not None
        assert request.step is Step.REQUEST
        assert request.at <= on(-1, 12)

    def test_service_is_charged_on_its_usual_day_when_its_contract_is_accepted_early(self) -> None:
        notices = {notice("before-7"): on(-7, 8), notice("contract-4"): on(-30, 8)}
        assert what(a_service(cycle=Cycle(notices=notices))) == (Step.REQUEST, on(-3))

    def test_nothing_is_charged_after_the_expiry_without_grace(self) -> None:
        told = {
            notice("before-30"): on(-30, 8),
            notice("before-1"): on(-1, 8),
            notice("declined-3"): on(0, 8),
        }
        cycle = declined(on(-3), on(-1), on(0), notices=told)
        assert what(a_service(cycle=cycle), NO_GRACE) == (Step.TERMINATE, on(0))
        assert what(a_service(cycle=cycle)) == (Step.CHARGE, on(3))

    def test_service_without_an_accepted_contract_is_not_charged(self) -> None:
        notices = {notice("before-15"): on(-15, 8), notice("contract-4"): on(-30, 8)}
        asked = manual(missing_contract=4, cycle=Cycle(notices=notices, asked_at=on(-10)))
        next_ = what(asked)
        assert next_ is not None
        assert next_.step not in PAYS
        # Nor does having asked put off an end that the contract is the reason of.
        told = {
            notice("before-15"): on(-15, 8),
            notice("before-1"): on(-1, 8),
            notice("contract-4"): on(-30, 8),
        }
        asked = manual(missing_contract=4, cycle=Cycle(notices=told, asked_at=on(-10)))
        assert what(asked) == (Step.TERMINATE, on(0))

    def test_customer_who_asked_to_renew_is_charged_once_the_contract_is_accepted(self) -> None:
        cycle = Cycle(notices={notice("contract-4"): on(-30, 8)}, asked_at=on(-40))
        missing = manual(missing_contract=4, cycle=cycle)
        assert not missing.is_asked
        accepted = replace(missing, missing_contract=None)
        assert accepted.is_asked
        assert what(accepted) == (Step.REQUEST, on(-40))


class TestStop:
    def test_stopped_service_is_told_once_7_days_before_and_ends_at_expiry(self) -> None:
        service = stopped(mode_changed_at=on(-20))
        assert list(reminded(service)) == [(notice("stop"), on(-7, 8))]
        told = replace(service, cycle=Cycle(notices={notice("stop"): on(-7, 8)}))
        assert what(told) == (Step.TERMINATE, on(0))

    def test_stop_clicked_late_is_told_at_once(self) -> None:
        service = stopped(
            mode_changed_at=on(-2), cycle=Cycle(notices={notice("before-3"): on(-3, 8)})
        )
        assert due_notices(service, DEFAULT_POLICY, on(-2)) == [notice("stop")]

    @pytest.mark.parametrize(
        ("clicked", "ends"), [(on(0), on(0)), (on(0, 0, 1), on(2)), (on(3, 14), on(5))]
    )
    def test_stop_clicked_after_the_expiry_ends_the_service_a_day_later(
        self, clicked: datetime, ends: datetime
    ) -> None:
        cycle = Cycle(notices={notice("before-1"): on(-1, 8), notice("stop"): clicked})
        assert what(stopped(mode_changed_at=clicked, cycle=cycle)) == (Step.TERMINATE, ends)
        suspended = stopped(mode_changed_at=clicked, cycle=cycle, **SUSPENDED)
        assert what(suspended) == (Step.TERMINATE, ends)

    def test_stopped_service_does_not_end_before_a_notice_was_sent(self) -> None:
        assert what(stopped(cycle=Cycle(notices={notice("stop"): None}))) is None

    def test_stopped_service_whose_notice_came_after_the_expiry_ends_a_day_after_it(self) -> None:
        late = Cycle(notices={notice("stop"): on(2)})
        assert what(stopped(cycle=late)) == (Step.TERMINATE, on(3))

    def test_resumed_service_needs_a_new_notice_before_it_is_suspended(self) -> None:
        # Given a stop that was told, undone on the day of expiry, and only then a reminder.
        notices = {notice("stop"): on(-7, 8), notice("before-1"): on(0, 12)}
        service = manual(mode_changed_at=on(0, 12), cycle=Cycle(notices=notices))
        assert what(service) == (Step.SUSPEND, on(8))
        # And without any, it waits for one.
        told = {notice("before-1"): None, notice("stop"): on(-7, 8)}
        assert what(replace(service, cycle=Cycle(notices=told))) is None

    def test_the_notice_of_a_stop_counts_for_a_stop_only(self) -> None:
        cycle = Cycle(
            notices={
                notice("stop"): on(-7, 8),
                notice("before-3"): on(-3, 8),
                notice("before-1"): None,
            }
        )
        assert cycle.noticed_at(End.STOPPED) == on(-7, 8)
        assert cycle.noticed_at(End.UNPAID) == on(-3, 8)
        assert Cycle(notices={notice("stop"): on(-7, 8)}).noticed_at(End.UNPAID) is None
        assert Cycle().noticed_at(End.STOPPED) is None


class TestEnd:
    @pytest.mark.parametrize("told", [on(6, 8), on(23), on(28, 8), on(60)])
    def test_the_mail_about_a_suspension_names_the_day_of_the_termination(
        self, told: datetime
    ) -> None:
        sent = {notice("before-1"): on(-1, 8), notice("suspended"): told}
        service = manual(**SUSPENDED, suspended_at=on(5), cycle=Cycle(notices=sent))
        announced = end_of_suspension(service, DEFAULT_POLICY, told)
        assert what(service) == (Step.TERMINATE, announced)
        not_yet = replace(service, suspended_at=None)
        assert end_of_suspension(not_yet, DEFAULT_POLICY, told) is None

    def test_unpaid_service_is_suspended_5_days_after_the_expiry(self) -> None:
        service = manual(
            cycle=Cycle(notices={notice("before-15"): on(-15, 8), notice("before-1"): on(-1, 8)})
        )
        assert what(service) == (Step.SUSPEND, on(5))

    def test_suspended_service_is_terminated_30_days_after_its_expiry(self) -> None:
        cycle = Cycle(notices={notice("before-15"): on(-15, 8), notice("suspended"): on(5, 8)})
        service = manual(**SUSPENDED, suspended_at=on(5), cycle=cycle)
        assert what(service) == (Step.TERMINATE, on(30))
        assert ends_because(service) == "unpaid"

    def test_suspension_waits_for_the_notice_period_after_the_first_notice_sent(self) -> None:
        cycle = Cycle(notices={notice("before-3"): None, notice("before-1"): on(2, 9)})
        assert what(manual(cycle=cycle)) == (Step.SUSPEND, on(10))
        unsent = Cycle(notices={notice("before-1"): None})
        assert what(manual(cycle=unsent)) is None

    def test_suspension_waits_for_8_days_after_the_first_decline(self) -> None:
        told = {notice("before-1"): on(-1, 8), notice("declined-2"): on(6, 8)}
        cycle = declined(on(3, 4), on(6), notices=told)
        assert what(a_service(cycle=cycle)) == (Step.SUSPEND, on(11))

    def test_termination_counts_from_the_real_day_of_suspension(self) -> None:
        cycle = Cycle(notices={notice("before-1"): on(-1, 8), notice("suspended"): on(13, 8)})
        service = manual(**SUSPENDED, suspended_at=on(12, 9), cycle=cycle)
        assert what(service) == (Step.TERMINATE, on(37))

    def test_termination_counts_from_the_day_the_suspension_was_told(self) -> None:
        cycle = Cycle(notices={notice("before-1"): on(-1, 8), notice("suspended"): on(28, 8)})
        service = manual(**SUSPENDED, suspended_at=on(5), cycle=cycle)
        assert what(service) == (Step.TERMINATE, on(36))
        untold = Cycle(notices={notice("before-1"): on(-1, 8), notice("suspended"): None})
        assert what(replace(service, cycle=untold)) is None

    def test_service_without_the_contract_ends_at_expiry(self) -> None:
        notices = {notice("before-1"): on(-1, 8), notice("contract-4"): on(-30, 8)}
        service = a_service(missing_contract=4, cycle=Cycle(notices=notices))
        assert what(service) == (Step.TERMINATE, on(0))
        assert ends_because(service) == "contract_not_accepted"

    def test_service_without_the_contract_ends_no_sooner_than_7_days_after_that_version_was_sent(
        self,
    ) -> None:
        notices = {
            notice("before-1"): on(-1, 8),
            notice("contract-3"): on(-30, 8),
            notice("contract-4"): on(-2, 8),
        }
        service = a_service(missing_contract=4, cycle=Cycle(notices=notices))
        assert what(service) == (Step.TERMINATE, on(6))
        assert due_notices(replace(service, missing_contract=5), DEFAULT_POLICY, on(-1)) == [
            notice("contract-5")
        ]
        assert what(replace(service, missing_contract=5)) == (Step.REMIND, on(-30, 8))

    def test_service_without_grace_ends_at_expiry(self) -> None:
        service = manual(
            cycle=Cycle(notices={notice("before-30"): on(-30, 8), notice("before-1"): on(-1, 8)})
        )
        assert what(service, NO_GRACE) == (Step.TERMINATE, on(0))
        assert ends_because(service) == "unpaid"

    def test_suspension_under_way_is_not_requested_again(self) -> None:
        cycle = Cycle(notices={notice("before-1"): on(-1, 8)})
        assert what(manual(desired=ResourceState.SUSPENDED, cycle=cycle)) is None


class TestRest:
    def test_service_with_a_later_rollout_is_decided_about_on_that_day(self) -> None:
        service = manual(starts_at=on(-10))
        assert next_step(service, DEFAULT_POLICY, on(-11, 23, 59)) == (Step.DECIDE, on(-10))
        assert next_step(service, DEFAULT_POLICY, on(-10)) == what(manual())

    @pytest.mark.parametrize(
        "changes",
        [
            {"state": state}
            for state in ServiceState
            if state not in (ServiceState.ACTIVE, ServiceState.SUSPENDED)
        ]
        + [{"desired": ResourceState.ABSENT}],
        ids=str,
    )
    def test_undelivered_and_ended_services_have_no_next_step(
        self, changes: dict[str, Any]
    ) -> None:
        for mode in RenewalMode:
            for cycle in (Cycle(), Cycle(asked_at=on(-1)), declined(on(-3))):
                assert what(a_service(mode, cycle=cycle, **changes)) is None

    def test_service_without_a_rollout_has_no_next_step(self) -> None:
        for mode in RenewalMode:
            for cycle in (Cycle(), Cycle(asked_at=on(-1)), declined(on(-3), requested=False)):
                assert what(a_service(mode, cycle=cycle, starts_at=None)) is None

    @pytest.mark.parametrize("late", [{"taken_over_at": on(-5, 15)}, {"starts_at": on(-5)}])
    @pytest.mark.parametrize("refused", [False, True])
    def test_what_comes_too_late_for_its_first_reminder_is_charged_days_after_its_first_e_mail(
        self, late: dict[str, datetime], refused: bool
    ) -> None:
        claimed = Cycle(notices={notice("before-7"): None})
        untold = a_service(cycle=claimed, **late)
        assert next_step(untold, DEFAULT_POLICY, on(40), reminders=False) is None

        if refused:
            told = replace(claimed, refused={notice("before-7"): on(2, 8)})
        else:
            told = Cycle(notices={notice("before-7"): on(2, 8), notice("before-3"): on(4, 8)})
        next_ = next_step(a_service(cycle=told, **late), DEFAULT_POLICY, on(40), reminders=False)
        assert next_ == NextStep(Step.REQUEST, on(9, 8))

    @pytest.mark.parametrize("starts_at", [None, on(10)])
    def test_service_no_longer_rolled_out_is_taken_off_its_payment_request(
        self, starts_at: datetime | None
    ) -> None:
        for mode in RenewalMode:
            service = a_service(mode, cycle=declined(on(-3)), starts_at=starts_at)
            assert next_step(service, DEFAULT_POLICY, on(-2)) == (Step.WITHDRAW, service.began_at)

    def test_service_no_longer_rolled_out_stays_on_its_request_while_a_charge_is_undecided(
        self,
    ) -> None:
        service = a_service(cycle=declined(on(-3), charging=True), starts_at=None)
        assert what(service) is None
        later = replace(service, starts_at=on(10))
        assert next_step(later, DEFAULT_POLICY, on(-2)) == (Step.DECIDE, on(10))
