"""Being late ends no service: a simulated fleet that is down at random times follows the rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.clock import local_date, local_midnight
from schemas.rules.facts import Service
from schemas.rules.lifecycle import Step, due_notices, next_step
from schemas.rules.notices import End
from schemas.rules.policies import DEFAULT_POLICY, Policy
from schemas.values import RenewalMode, ResourceState, ServiceState
from tests.unit.test_lifecycle import NO_GRACE, PAYS, a_service, notice, on
from tests.unit.test_lifecycle_time import (
    ENDS,
    LONG_AGO,
    days,
    expiring,
    policies,
    subsidiaries,
    wall,
)

Click = Callable[[Service], Service]


@dataclass
class Fleet:
    """Does each step when it is due or, if it is down then, as soon as it is up again.

    Attributes:
        accepted: the number of the charge that is accepted; None: every one is declined.
        down: from when and for how long.
        takes: how long sending, charging and suspending take.
        clicks: what the customer does, and when, the earliest first.
    """

    service: Service
    policy: Policy
    accepted: int | None = None
    down: Sequence[tuple[datetime, timedelta]] = ()
    takes: timedelta = timedelta()
    clicks: list[tuple[datetime, Click]] = field(default_factory=list)
    log: list[tuple[Step, datetime]] = field(default_factory=list)

    def play(self, now: datetime) -> str:
        """Run until the service has ended or rests; returns how."""
        for _ in range(100):
            next_ = next_step(self.service, self.policy, now)
            due = self._up(max(now, next_.at)) if next_ is not None else None
            if self.clicks and (due is None or self.clicks[0][0] <= due):
                at, click = self.clicks.pop(0)
                now = max(now, at)
                self.service = click(self.service)
            elif next_ is None or due is None:
                return "at rest"
            else:
                assert next_step(self.service, self.policy, due) == next_ or (
                    next_.step is Step.DECIDE
                )
                end = self._do(next_.step, due)
                if end is not None:
                    return end
                now = due + self.takes
        raise AssertionError(f"no end: {self.log}")

    def times(self, *steps: Step) -> list[datetime]:
        return [at for step, at in self.log if step in steps]

    def _up(self, moment: datetime) -> datetime:
        for start, length in sorted(self.down):
            if start <= moment < start + length:
                moment = start + length
        return moment

    def _do(self, step: Step, now: datetime) -> str | None:
        self.log.append((step, now))
        done, cycle = now + self.takes, self.service.cycle
        match step:
            case Step.REMIND:
                kinds = due_notices(self.service, self.policy, now)
                assert kinds
                assert not set(kinds) & set(cycle.notices)
                self._know(notices={**cycle.notices, **dict.fromkeys(kinds, done)})
            case Step.WITHDRAW:
                self._know(requested=False)
            case Step.REQUEST | Step.CHARGE:
                if cycle.asked_at is None:
                    assert (step is Step.CHARGE) == cycle.requested
                    self._check_announcement(now)
                assert self.service.missing_contract is None
                assert self.service.mode is RenewalMode.AUTOMATIC or cycle.asked_at is not None
                if len(self.times(*PAYS)) == self.accepted:
                    return "renewed"
                self._know(
                    requested=True,
                    asked_at=None,
                    declines=cycle.declines + 1,
                    declined_at=cycle.declined_at or done,
                    last_declined_at=done,
                )
            case Step.SUSPEND:
                self._check_suspension(now)
                self.service = replace(
                    self.service,
                    state=ServiceState.SUSPENDED,
                    desired=ResourceState.SUSPENDED,
                    suspended_at=done,
                )
            case Step.TERMINATE:
                self._check_termination(now)
                return "terminated"
        return None

    def _know(self, **facts: object) -> None:
        cycle = replace(self.service.cycle, **facts)  # type: ignore[arg-type]
        self.service = replace(self.service, cycle=cycle)

    def _days(self, since: datetime, now: datetime) -> int:
        timezone = self.service.timezone
        return (local_date(now, timezone) - local_date(since, timezone)).days

    def _check_notice(self, now: datetime) -> None:
        noticed_at = self.service.cycle.noticed_at(End.UNPAID)
        assert noticed_at is not None
        assert now - noticed_at >= timedelta(days=self.policy.notice)

    def _check_announcement(self, now: datetime) -> None:
        """What was switched on after its first reminder is charged by itself after a notice."""
        service = self.service
        first, *_ = self.policy.reminder_days(
            service.subsidiary, service.period, service.expires_on
        )
        assert service.starts_at is not None
        if service.starts_at > service.day(-first):
            self._check_notice(now)

    def _check_suspension(self, now: datetime) -> None:
        assert self.service.state is ServiceState.ACTIVE
        assert now >= self.service.day(5)
        self._check_notice(now)
        if self.service.mode is RenewalMode.AUTOMATIC:
            declined_at = self.service.cycle.declined_at
            told_at = self.service.cycle.notices.get(notice("behind"))
            assert declined_at is not None or told_at is not None
            assert declined_at is None or self._days(declined_at, now) >= 8
            assert declined_at or now - told_at >= timedelta(days=self.policy.notice)

    def _check_termination(self, now: datetime) -> None:
        service, notices = self.service, self.service.cycle.notices
        assert now >= service.expires_at
        if service.mode is RenewalMode.STOP:
            assert notices[notice("stop")] is not None
            return
        self._check_notice(now)
        if service.state is ServiceState.SUSPENDED:
            told_at = notices[notice("suspended")]
            assert service.suspended_at is not None
            assert told_at is not None
            assert self._days(service.suspended_at, now) >= 25
            assert now - told_at >= timedelta(days=self.policy.notice)
        elif service.missing_contract is not None:
            told_at = notices[notice(f"contract-{service.missing_contract}")]
            assert told_at is not None
            assert now - told_at >= timedelta(days=self.policy.notice)
        else:
            assert self.policy.suspend is None
            if service.mode is RenewalMode.AUTOMATIC:
                assert service.cycle.declined_at is not None


def accept(service: Service) -> Service:
    return replace(service, missing_contract=None)


def publish(service: Service) -> Service:
    """Publish a newer contract."""
    return replace(service, missing_contract=(service.missing_contract or 0) + 1)


def ask(at: datetime) -> Click:
    return lambda service: replace(service, cycle=replace(service.cycle, asked_at=at))


def choose(mode: RenewalMode, at: datetime) -> Click:
    return lambda service: replace(service, mode=mode, mode_changed_at=at)


offsets = st.integers(-70 * 24, 70 * 24).map(lambda hours: timedelta(hours=hours))


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Fleet, datetime]:
    """A fleet with outages, its one service, and from when on."""
    service = replace(
        expiring(
            draw(days),
            draw(subsidiaries),
            mode=draw(st.sampled_from(RenewalMode)),
            months=draw(st.sampled_from([1, 3, 6, 12])),
        ),
        missing_contract=draw(st.none() | st.just(4)),
    )
    at = service.expires_at
    service = replace(
        service,
        starts_at=draw(st.just(LONG_AGO) | offsets.map(lambda offset: at + offset)),
    )
    outages = st.tuples(
        offsets.map(lambda offset: at + offset),
        st.integers(1, 60 * 24).map(lambda hours: timedelta(hours=hours)),
    )
    accepted = draw(st.none() | offsets) if service.missing_contract is not None else None
    fleet = Fleet(
        service,
        draw(policies),
        accepted=draw(st.none() | st.integers(1, 5)),
        down=draw(st.lists(outages, max_size=4)),
        takes=timedelta(minutes=draw(st.sampled_from([0, 1, 7, 600]))),
        clicks=[(at + accepted, accept)] if accepted is not None else [],
    )
    return fleet, service.began_at


class TestLateness:
    def test_unpaid_service_of_a_punctual_fleet_follows_the_policy_to_the_day(self) -> None:
        service = a_service(months=6)
        fleet = Fleet(service, DEFAULT_POLICY)
        assert fleet.play(service.began_at) == "terminated"
        assert fleet.times(Step.REQUEST) == [on(-3)]
        assert fleet.times(Step.CHARGE) == [on(day) for day in (-1, 0, 3, 5)]
        assert fleet.times(Step.SUSPEND) == [on(5)]
        assert fleet.times(Step.TERMINATE) == [on(30)]
        reminders = [on(day, 8) for day in (-30, -15, -7, -3, -1, 0, 3, 5)]
        assert fleet.times(Step.REMIND) == reminders
        assert set(fleet.service.cycle.notices) == {
            *(notice(f"before-{days}") for days in (30, 15, 7, 3, 1)),
            *(notice(f"declined-{number}") for number in (1, 2, 3, 4)),
            notice("suspended"),
        }

    def test_renewal_due_while_the_fleet_was_down_is_done_once_when_it_is_up(
        self,
    ) -> None:
        # Lago issue 354: down from 1 to 11 April, due on the 10th.
        up = local_midnight(date(2026, 4, 11), "Europe/Paris") + timedelta(hours=9)
        down = local_midnight(date(2026, 4, 1), "Europe/Paris")
        service = expiring(date(2026, 4, 13), months=6)
        fleet = Fleet(service, DEFAULT_POLICY, accepted=1, down=[(down, up - down)])
        assert fleet.play(service.began_at) == "renewed"
        assert fleet.times(*PAYS) == [up]
        # Of what was missed meanwhile, 7 and 3 days before, one reminder.
        assert len([at for at in fleet.times(Step.REMIND) if at >= down]) <= 1

    @pytest.mark.parametrize("mode", RenewalMode)
    def test_a_fleet_that_was_down_for_two_months_still_gives_notice(
        self, mode: RenewalMode
    ) -> None:
        service = a_service(mode, months=6)
        fleet = Fleet(service, DEFAULT_POLICY, down=[(on(-40), timedelta(days=60))])
        assert fleet.play(service.began_at) == "terminated"
        if mode is RenewalMode.STOP:
            assert fleet.log == [(Step.REMIND, on(20)), (Step.TERMINATE, on(21))]
        elif mode is RenewalMode.MANUAL:
            assert set(fleet.service.cycle.notices) == {notice("before-1"), notice("suspended")}
            assert fleet.times(*ENDS) == [on(27), on(52)]
        else:
            assert fleet.times(*PAYS) == [on(20)]
            assert fleet.times(*ENDS) == [on(28), on(53)]

    @pytest.mark.parametrize("day", range(-35, 31))
    @pytest.mark.parametrize("policy", [DEFAULT_POLICY, NO_GRACE], ids=["grace", "no grace"])
    def test_service_ends_as_it_should_after_an_outage_of_any_length_from_any_day(
        self, day: int, policy: Policy
    ) -> None:
        for mode in RenewalMode:
            for length in (1, 2, 3, 5, 8, 13, 21, 34, 90):
                service = a_service(mode, months=6)
                fleet = Fleet(service, policy, down=[(on(day, 3), timedelta(days=length))])
                assert fleet.play(service.began_at) == "terminated"

    @settings(max_examples=400)
    @given(st.data())
    def test_random_outages_never_end_a_service_early_twice_or_never(
        self, data: st.DataObject
    ) -> None:
        fleet, start = data.draw(fleets())
        end = fleet.play(start)
        assert end in ("terminated", "renewed")
        if fleet.accepted is None:
            assert end == "terminated"
        assert len(fleet.times(Step.REQUEST)) <= 1
        assert len(fleet.times(*PAYS)) <= len(fleet.policy.charges)
        assert len(fleet.times(Step.SUSPEND)) <= 1

    @settings(max_examples=400)
    @given(st.data())
    def test_random_outages_and_clicks_never_end_a_service_early_twice_or_never(
        self, data: st.DataObject
    ) -> None:
        fleet, start = data.draw(fleets())
        for offset in data.draw(st.lists(offsets, max_size=4)):
            at = fleet.service.expires_at + offset
            clicks = [accept, publish, ask(at), *(choose(mode, at) for mode in RenewalMode)]
            fleet.clicks.append((at, data.draw(st.sampled_from(clicks))))
        fleet.clicks.sort(key=lambda click: click[0])
        assert fleet.play(start) in ("terminated", "renewed")

    @given(
        days,
        subsidiaries,
        st.sampled_from([1, 3, 6, 12]),
        policies,
        st.sampled_from(RenewalMode),
        st.none() | st.just(4),
    )
    def test_reminders_are_at_eight_and_charges_at_midnight_local_time_on_any_day(
        self,
        day: date,
        subsidiary: str,
        months: int,
        policy: Policy,
        mode: RenewalMode,
        contract: int | None,
    ) -> None:
        service = expiring(day, subsidiary, mode=mode, months=months)
        service = replace(service, missing_contract=contract)
        fleet = Fleet(service, policy)
        fleet.play(service.began_at)
        for step, at in fleet.log:
            hour = wall(at, service).strftime("%H:%M")
            if step is Step.REMIND:
                assert hour == "08:00"
                assert wall(at, service).date() > wall(service.began_at, service).date()
            elif step in PAYS:
                assert hour == "00:00"
