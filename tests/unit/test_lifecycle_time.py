"""The rule and time: daylight saving, ends of months; and that the rule reads no clock."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.clock import local_midnight
from schemas.rules.facts import NOTHING_YET, Cycle, Service
from schemas.rules.lifecycle import Step, due_notices, next_step, periods_to_reach
from schemas.rules.notices import End
from schemas.rules.policies import DEFAULT_POLICY, Policy
from schemas.values import Period, RenewalMode, ResourceState, ServiceState
from tests.unit.test_lifecycle import EARLY, NO_GRACE, PAYS, a_service, declined, notice, on

ENDS = (Step.SUSPEND, Step.TERMINATE)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ZONES = {
    "FR": "Europe/Paris",
    "IE": "Europe/Dublin",
    "CA": "America/Toronto",
    "AU": "Australia/Sydney",
}
subsidiaries = st.sampled_from(sorted(ZONES))
policies = st.sampled_from([DEFAULT_POLICY, NO_GRACE, EARLY])
days = st.dates(date(2024, 1, 1), date(2032, 12, 31))


def expiring(
    day: date,
    subsidiary: str = "FR",
    *,
    mode: RenewalMode = RenewalMode.AUTOMATIC,
    months: int = 1,
    cycle: Cycle = NOTHING_YET,
) -> Service:
    timezone = ZONES[subsidiary]
    return a_service(
        mode,
        months=months,
        subsidiary=subsidiary,
        timezone=timezone,
        expires_at=local_midnight(day, timezone),
        began_at=local_midnight(Period(months).end(day, -1), timezone),
        cycle=cycle,
    )


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def wall(moment: datetime, service: Service) -> datetime:
    """The local time of the customer."""
    return moment.astimezone(ZoneInfo(service.timezone)).replace(tzinfo=None)


class TestPeriodsToReach:
    def test_late_payment_counts_from_the_old_expiry_not_from_the_day_of_payment(self) -> None:
        # OVH's renewal guide: expired 2024-01-01, paid 2024-01-16, six months.
        anchor, half_a_year = date(2023, 7, 1), Period(6)
        paid = utc("2024-01-16T10:00")
        assert periods_to_reach(anchor, half_a_year, 1, "Europe/Paris", paid) == 1
        assert half_a_year.end(anchor, 1 + 1) == date(2024, 7, 1)

    @pytest.mark.parametrize(
        ("now", "periods"),
        [
            ("2017-02-27T22:59:59", 1),  # not even late
            ("2017-03-30T21:59:59", 1),
            ("2017-03-30T22:00:00", 2),  # midnight in Paris: what ends now is not in the future
            ("2017-04-29T21:59:59", 2),
            ("2017-04-29T22:00:00", 3),
        ],
    )
    def test_late_payment_buys_as_many_periods_as_reach_the_future(
        self, now: str, periods: int
    ) -> None:
        # Paid up to 2017-02-28, so that the next ones end on 03-31, 04-30 and 05-31.
        reached = periods_to_reach(date(2017, 1, 31), Period(1), 1, "Europe/Paris", utc(now))
        assert reached == periods

    @given(
        st.dates(date(2015, 1, 1), date(2030, 12, 31)),
        st.builds(Period, st.sampled_from([1, 2, 3, 6, 12, 24])),
        st.integers(0, 30),
        subsidiaries,
        st.datetimes(datetime(2015, 1, 1), datetime(2034, 1, 1), timezones=st.just(UTC)),
    )
    def test_number_of_periods_is_the_smallest_that_ends_in_the_future(
        self, anchor: date, period: Period, paid: int, subsidiary: str, now: datetime
    ) -> None:
        timezone = ZONES[subsidiary]
        ends = (local_midnight(period.end(anchor, paid + k), timezone) for k in range(1, 300))
        smallest = next(k for k, end in enumerate(ends, 1) if end > now)
        assert periods_to_reach(anchor, period, paid, timezone, now) == smallest


class TestLocalTime:
    @pytest.mark.parametrize(
        ("expires", "subsidiary", "requested", "retried", "reminder"),
        [
            # France: summer time begins on 2026-03-29, and ends on 2026-10-25.
            ("2026-04-01", "FR", "2026-03-28T23:00", "2026-03-30T22:00", "2026-03-29T06:00"),
            ("2026-03-29", "FR", "2026-03-25T23:00", "2026-03-27T23:00", "2026-03-26T07:00"),
            ("2026-10-28", "FR", "2026-10-24T22:00", "2026-10-26T23:00", "2026-10-25T07:00"),
            # Ontario: it begins on 2026-03-08, and ends on 2026-11-01.
            ("2026-03-11", "CA", "2026-03-08T05:00", "2026-03-10T04:00", "2026-03-08T12:00"),
            ("2026-11-04", "CA", "2026-11-01T04:00", "2026-11-03T05:00", "2026-11-01T13:00"),
            # New South Wales: it ends on 2026-04-05, and begins on 2026-10-04.
            ("2026-04-08", "AU", "2026-04-04T13:00", "2026-04-06T14:00", "2026-04-04T22:00"),
            ("2026-10-07", "AU", "2026-10-03T14:00", "2026-10-05T13:00", "2026-10-03T21:00"),
        ],
    )
    def test_charges_are_at_local_midnight_and_reminders_at_eight_local_time(
        self, expires: str, subsidiary: str, requested: str, retried: str, reminder: str
    ) -> None:
        cycle = Cycle(notices={notice("before-7"): utc("2026-01-01")})
        service = expiring(date.fromisoformat(expires), subsidiary, cycle=cycle)
        assert next_step(service, DEFAULT_POLICY, LONG_AGO) == (Step.REQUEST, utc(requested))
        manual = replace(service, mode=RenewalMode.MANUAL)
        assert next_step(manual, DEFAULT_POLICY, LONG_AGO) == (Step.REMIND, utc(reminder))
        told = {notice("before-1"): utc("2026-01-01"), notice("declined-1"): None}
        again = declined(utc(requested), notices=told)
        tried = next_step(replace(service, cycle=again), DEFAULT_POLICY, LONG_AGO)
        assert tried == (Step.CHARGE, utc(retried))

    @pytest.mark.parametrize(
        ("subsidiary", "suspended", "terminated"),
        [
            ("FR", "2026-03-30T22:00", "2026-04-24T22:00"),
            ("CA", "2026-03-31T04:00", "2026-04-25T04:00"),
            ("AU", "2026-03-30T13:00", "2026-04-24T14:00"),
        ],
    )
    def test_service_ends_at_local_midnight(
        self, subsidiary: str, suspended: str, terminated: str
    ) -> None:
        sent = utc("2026-03-01T12:00")
        cycle = Cycle(notices={notice("before-1"): sent, notice("suspended"): sent})
        service = expiring(date(2026, 3, 26), subsidiary, mode=RenewalMode.MANUAL, cycle=cycle)
        assert next_step(service, DEFAULT_POLICY, LONG_AGO) == (Step.SUSPEND, utc(suspended))
        service = replace(
            service,
            state=ServiceState.SUSPENDED,
            desired=ResourceState.SUSPENDED,
            suspended_at=sent,
        )
        assert next_step(service, DEFAULT_POLICY, LONG_AGO) == (Step.TERMINATE, utc(terminated))

    @pytest.mark.parametrize(
        ("anchor", "period", "paid", "first"),
        [
            # The year after a leap day ends on the 28th of February.
            ("2024-02-29", Period(12), 1, "2024-12-30 08:00"),
            ("2024-02-29", Period(12), 4, "2027-12-31 08:00"),
            ("2023-01-31", Period(1), 2, "2023-03-01 08:00"),
            # 28 or 29 days: 30 days before, there was still the period before.
            ("2023-02-01", Period(1), 1, "2023-02-14 08:00"),
            ("2023-12-31", Period(1), 2, "2024-02-14 08:00"),
        ],
    )
    def test_reminders_count_back_from_where_the_month_was_clamped(
        self, anchor: str, period: Period, paid: int, first: str
    ) -> None:
        start = date.fromisoformat(anchor)
        service = replace(
            expiring(period.end(start, paid), mode=RenewalMode.MANUAL, months=period.months),
            began_at=local_midnight(period.end(start, paid - 1), "Europe/Paris"),
        )
        next_ = next_step(service, DEFAULT_POLICY, LONG_AGO)
        assert next_ is not None
        assert wall(next_.at, service) == datetime.fromisoformat(first)

    @given(
        days,
        subsidiaries,
        st.sampled_from([1, 3, 6, 12]),
        st.sets(st.integers(1, 365), min_size=1, max_size=4),
        st.none() | st.just(4),
    )
    def test_reminder_is_possible_from_the_second_day_of_any_period_under_any_policy(
        self, day: date, subsidiary: str, months: int, before: set[int], contract: int | None
    ) -> None:
        policy = Policy(reminders=tuple(sorted(before, reverse=True)), reminders_for=())
        service = expiring(day, subsidiary, mode=RenewalMode.MANUAL, months=months)
        service = replace(service, missing_contract=contract)
        next_ = next_step(service, policy, LONG_AGO)
        assert next_ is not None
        assert next_.step is Step.REMIND
        assert next_.at < service.expires_at
        first = wall(next_.at, service)
        assert first.time() == time(8)
        assert first.date() > wall(service.began_at, service).date()
        # And not later than the policy says, where that is possible.
        newest = max((n for n in before if day - timedelta(days=n) == first.date()), default=None)
        earliest = wall(service.began_at, service).date() + timedelta(days=1)
        assert newest is not None or first.date() == earliest


minutes = st.integers(-60 * 24 * 60, 60 * 24 * 60)
moments = minutes.map(lambda shift: on(0) + timedelta(minutes=shift))
kinds = st.sampled_from(
    [
        *(notice(f"before-{days}") for days in (30, 15, 7, 3, 1)),
        notice("declined-1"),
        notice("declined-2"),
    ]
) | st.sampled_from([notice("stop"), notice("suspended"), notice("contract-4")])
cycles = st.builds(
    Cycle,
    notices=st.dictionaries(kinds, st.none() | moments),
    asked_at=st.none() | moments,
    requested=st.booleans(),
    charging=st.booleans(),
) | st.builds(
    lambda at, more, requested: declined(*sorted((at, more)), requested=requested),
    moments,
    moments,
    st.booleans(),
)
# Any facts, also those that no history leads to: the rule has to hold whatever it is told.
services = st.builds(
    a_service,
    st.sampled_from(RenewalMode),
    months=st.sampled_from([1, 3, 6, 12]),
    state=st.sampled_from(ServiceState),
    desired=st.sampled_from(ResourceState),
    missing_contract=st.none() | st.just(4),
    mode_changed_at=st.none() | moments,
    suspended_at=st.none() | moments,
    quiet_until=st.none() | moments,
    starts_at=st.none() | moments,
    cycle=cycles,
)


@st.composite
def not_switched_on(draw: st.DrawFn) -> tuple[Service, datetime]:
    """A service and a moment before its renewal begins, if it does."""
    service, now, wait = draw(services), draw(moments), draw(st.integers(1, 10_000))
    if service.starts_at is not None:
        service = replace(service, starts_at=now + timedelta(minutes=wait))
    return service, now


class TestWhateverTheFacts:
    @given(services, policies, moments, moments)
    def test_next_step_follows_from_the_facts_not_from_the_clock(
        self, service: Service, policy: Policy, one: datetime, other: datetime
    ) -> None:
        assume(service.starts_at is None or service.starts_at <= min(one, other))
        assert next_step(service, policy, one) == next_step(service, policy, other)

    @given(not_switched_on(), policies)
    def test_service_waits_only_for_its_rollout_before_renewal_is_switched_on(
        self, world: tuple[Service, datetime], policy: Policy
    ) -> None:
        service, now = world
        # But for a payment request from before it was switched off, which it has to come off.
        service = replace(service, cycle=replace(service.cycle, requested=False))
        wait = (Step.DECIDE, service.starts_at) if service.starts_at is not None else None
        assert next_step(service, policy, now) in (None, wait)

    @given(not_switched_on(), policies)
    def test_nothing_is_charged_and_nothing_ends_without_a_rollout(
        self, world: tuple[Service, datetime], policy: Policy
    ) -> None:
        service, now = world
        next_ = next_step(service, policy, now)
        assert next_ is None or next_.step in (Step.WITHDRAW, Step.DECIDE)

    @given(services, policies, moments)
    def test_only_notices_are_next_while_a_charge_is_undecided(
        self, service: Service, policy: Policy, now: datetime
    ) -> None:
        charging = replace(service, cycle=replace(service.cycle, charging=True))
        next_ = next_step(charging, policy, now)
        assert next_ is None or next_.step in (Step.REMIND, Step.DECIDE)

    @given(services, policies)
    def test_unasked_charge_needs_automatic_mode_and_an_accepted_contract(
        self, service: Service, policy: Policy
    ) -> None:
        service = replace(service, cycle=replace(service.cycle, asked_at=None))
        next_ = next_step(service, policy, on(400))
        if next_ is not None and next_.step in PAYS:
            assert service.mode is RenewalMode.AUTOMATIC
            assert service.missing_contract is None
            assert (next_.step is Step.CHARGE) == service.cycle.requested

    @given(services, policies)
    def test_service_does_not_end_before_its_expiry_or_without_a_notice_in_time(
        self, service: Service, policy: Policy
    ) -> None:
        next_ = next_step(service, policy, on(400))
        if next_ is None or next_.step not in ENDS:
            return
        stopped = service.mode is RenewalMode.STOP
        noticed_at = service.cycle.noticed_at(End.STOPPED if stopped else End.UNPAID)
        assert noticed_at is not None
        assert next_.at >= service.expires_at
        if service.mode is RenewalMode.STOP:
            assert next_.at >= noticed_at
        else:
            assert next_.at >= noticed_at + timedelta(days=policy.notice)

    @given(services, policies)
    def test_a_reminder_is_next_exactly_when_a_notice_falls_due(
        self, service: Service, policy: Policy
    ) -> None:
        service = replace(service, quiet_until=None)
        next_ = next_step(service, policy, on(400))
        if next_ is not None and next_.step is Step.REMIND:
            due = due_notices(service, policy, next_.at)
            assert due
            assert not due_notices(service, policy, next_.at - timedelta(microseconds=1))

    @given(services, policies, moments)
    def test_a_notice_is_due_once_and_of_reminders_at_most_one(
        self, service: Service, policy: Policy, now: datetime
    ) -> None:
        due = due_notices(service, policy, now)
        assert not set(due) & set(service.cycle.notices)
        assert sum(told.kind.collapses for told in due) <= 1
        claimed = dict.fromkeys(due) | dict(service.cycle.notices)
        again = replace(service, cycle=replace(service.cycle, notices=claimed))
        assert due_notices(again, policy, now) == []
