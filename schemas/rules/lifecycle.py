"""What happens to a service next: one pure function, and the policies it follows.

Everything else writes down facts (a notice was sent, a charge was declined, the customer clicked
stop) and asks this function again. Being late destroys nothing: what was missed collapses into
its newest, and an end counts from when the step before it really happened.
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from schemas.clock import local_midnight
from schemas.rules.days import REMINDER_HOUR, day_over, days_after, hour_of, morning_after
from schemas.rules.facts import Cycle, Service
from schemas.rules.notices import (
    BEFORE,
    BEHIND,
    CONTRACT,
    DEARER,
    DECLINED,
    STOP,
    SUSPENDED,
    End,
    Notice,
)
from schemas.rules.policies import Policy
from schemas.values import DELIVERED, Period, RenewalMode, ResourceState

# A stop that is clicked after the expiry can be undone for so long. Our own choice, too.
UNDO = timedelta(days=1)


class Step(StrEnum):
    """What can be next, in the order in which things that fall due at one moment are done."""

    DECIDE = "decide"  # nothing yet: look again then
    REMIND = "remind"
    WITHDRAW = "withdraw"  # take it off a payment request it is no longer wanted on
    REQUEST = "request"  # ask for the payment of its next period, and charge
    CHARGE = "charge"  # try the open payment request again
    SUSPEND = "suspend"
    TERMINATE = "terminate"


_ORDER = {step: number for number, step in enumerate(Step)}


class NextStep(NamedTuple):
    step: Step
    at: datetime


def next_step(
    service: Service, policy: Policy, now: datetime, *, reminders: bool = True
) -> NextStep | None:
    """What happens to a service next, and when; a moment that has passed means now.

    None: nothing by itself. It is not there yet or not any more, its renewal is not switched on,
    or it waits for something that is under way, whose end asks again.

    Args:
        reminders: False: leave out what is only to be said; it stands in the way of nothing.
    """
    if service.state not in DELIVERED:
        return None
    if service.desired is ResourceState.ABSENT:
        return None
    if service.starts_at is None or service.starts_at > now:
        if service.cycle.requested and not service.cycle.charging:
            return NextStep(Step.WITHDRAW, service.began_at)
        return NextStep(Step.DECIDE, service.starts_at) if service.starts_at else None
    steps = [
        *(_reminders(service, policy) if reminders else ()),
        *_payment(service, policy, now),
        *_end(service, policy),
    ]
    return min(steps, key=lambda next_: (next_.at, _ORDER[next_.step]), default=None)


def due_notices(service: Service, policy: Policy, now: datetime) -> list[Notice]:
    """The notices that are due and not claimed; of missed reminders only the newest."""
    due = [notice for at, notice in _notices(service, policy) if at <= now]
    missed = [notice for notice in due if notice.kind.collapses][:-1]
    return [notice for notice in due if notice not in missed]


def reminded_at(service: Service, policy: Policy) -> datetime | None:
    """When there is first something to be said that was not claimed; None: there is nothing."""
    return min((at for at, _ in _notices(service, policy)), default=None)


def next_payment(service: Service, policy: Policy, now: datetime) -> NextStep | None:
    """When its renewal is charged next by itself, if it is."""
    payments = (step for step in _payment(service, policy, now) if step.step is not Step.WITHDRAW)
    return next(payments, None)


def next_end(service: Service, policy: Policy) -> NextStep | None:
    """When it is suspended or terminated, if nothing is paid until then."""
    return next(_end(service, policy), None)


def charge_day(service: Service, policy: Policy, today: date) -> date:
    """The local day on which its renewal is first charged; today, if that day has passed."""
    return max(service.expires_on + timedelta(days=policy.charges[0]), today)


def ends_because(service: Service) -> str:
    """Why a service that is terminated now is, as a stable code for the history."""
    if service.mode is RenewalMode.STOP:
        return "stopped"
    if service.missing_contract is not None and not service.is_suspended:
        return "contract_not_accepted"
    return "unpaid"


def periods_to_reach(
    anchor: date, period: Period, paid_periods: int, timezone: str, now: datetime
) -> int:
    """How many more periods it takes for the expiry to lie in the future: one, or more if late."""
    periods = 1
    while local_midnight(period.end(anchor, paid_periods + periods), timezone) <= now:
        periods += 1
    return periods


def _reminder_days(service: Service, policy: Policy) -> tuple[int, ...]:
    return policy.reminder_days(service.subsidiary, service.period, service.expires_on)


def _reminders(service: Service, policy: Policy) -> Iterator[NextStep]:
    for at, _ in _notices(service, policy):
        yield NextStep(Step.REMIND, max(at, service.quiet_until or at))


def _notices(service: Service, policy: Policy) -> Iterator[tuple[datetime, Notice]]:
    """Notices that are not claimed, with their moment; reminders in the order of theirs."""
    cycle = service.cycle
    claimed = cycle.notices
    stopped = service.mode is RenewalMode.STOP
    if stopped and Notice(STOP) not in claimed:
        at = _morning(service, -policy.stop_reminder)
        yield max(at, morning_after(service.began_at, service.timezone)), Notice(STOP)
    asked = service.is_asked or not stopped
    if cycle.dearer_at is not None and cycle.is_to_be_told_more and asked:
        dearer = Notice(DEARER, cycle.dearer)
        if dearer not in claimed:
            yield morning_after(cycle.dearer_at, service.timezone), dearer
    if stopped:
        return
    contract = Notice(CONTRACT, service.missing_contract)
    untold = service.missing_contract is not None and contract not in claimed
    if service.is_suspended:
        if service.suspended_at is not None:
            at = morning_after(service.suspended_at, service.timezone)
            if Notice(SUSPENDED) not in claimed:
                yield at, Notice(SUSPENDED)
            if untold:
                yield at, contract
        return
    if cycle.last_declined_at is not None:
        declined = Notice(DECLINED, cycle.declines)
        if declined not in claimed:
            yield morning_after(cycle.last_declined_at, service.timezone), declined
    behind_at = service.behind_at(policy)
    by_itself = service.mode is RenewalMode.AUTOMATIC and not service.is_asked
    if by_itself and behind_at is not None and Notice(BEHIND) not in claimed:
        yield morning_after(behind_at, service.timezone), Notice(BEHIND)
    # Nobody is reminded on the day on which the period begins.
    settled = service.began_at + timedelta(days=1)
    earliest = morning_after(settled, service.timezone)
    reminders = _reminder_days(service, policy)
    if untold:
        yield max(_morning(service, -reminders[0]), earliest), contract
    told = {notice.number for notice in claimed if notice.kind is BEFORE}
    newest = min((days for days in reminders if days in told), default=None)
    for days in reminders:
        at = _morning(service, -days)
        if newest is None and days == reminders[-1]:
            at = max(at, earliest)  # in a period that is shorter than all of them
        if at >= settled and (newest is None or days < newest):
            yield at, Notice(BEFORE, days)


def _payment(service: Service, policy: Policy, now: datetime) -> Iterator[NextStep]:
    cycle = service.cycle
    by_itself = service.mode is RenewalMode.AUTOMATIC and service.missing_contract is None
    behind_at = service.behind_at(policy)
    if cycle.charging:
        return
    wanted = service.is_asked or by_itself
    if cycle.requested and (cycle.basis_changed or not wanted):
        yield NextStep(Step.WITHDRAW, service.began_at)
    elif not cycle.is_to_be_told_more:
        if cycle.asked_at is not None and service.is_asked:
            yield NextStep(Step.REQUEST, after_a_rise(cycle, policy, cycle.asked_at))
        elif by_itself:
            yield from _unless_behind(_charge(service, policy, now), behind_at, now)
    if cycle.requested and by_itself and behind_at is not None and not service.is_asked:
        yield NextStep(Step.WITHDRAW, behind_at)


def _unless_behind(
    steps: Iterable[NextStep], behind_at: datetime | None, now: datetime
) -> Iterator[NextStep]:
    return (step for step in steps if behind_at is None or max(step.at, now) < behind_at)


def _charge(service: Service, policy: Policy, now: datetime) -> Iterator[NextStep]:
    cycle = service.cycle
    if cycle.requested and cycle.method_changed:
        yield NextStep(Step.REQUEST, after_a_rise(cycle, policy, service.began_at))
        return
    last = cycle.last_declined_at
    moments = (service.day(days) for days in _charges(policy))
    at = next((moment for moment in moments if last is None or moment > last), None)
    if at is not None:
        since = _late_since(service, policy)
        if since is not None:
            if cycle.told_at is None:
                return
            at = max(at, max(since, cycle.told_at) + timedelta(days=policy.notice))
        at = after_a_rise(cycle, policy, at)
        again = cycle.requested and cycle.stands_at(max(at, now))
        yield NextStep(Step.CHARGE if again else Step.REQUEST, at)


def after_a_rise(cycle: Cycle, policy: Policy, at: datetime) -> datetime:
    """A customer who was told of a higher amount than before has the days of a notice before it
    is charged, unless the renewal was asked for since."""
    raised_at = cycle.raised_at
    if raised_at is None or (cycle.asked_at is not None and cycle.asked_at >= raised_at):
        return at
    return max(at, raised_at + timedelta(days=policy.notice))


def _late_since(service: Service, policy: Policy) -> datetime | None:
    """Since when it is ours to renew, if that was too late for its first reminder: taken over, or
    switched on. Its customer has the days of a notice from the first e-mail on."""
    reminders = _reminder_days(service, policy)
    since = max((at for at in (service.starts_at, service.taken_over_at) if at), default=None)
    if since is None or since <= service.day(-reminders[0]):
        return None
    return since


def _charges(policy: Policy) -> Iterator[int]:
    """Without a grace nothing is charged after the expiry."""
    return (days for days in policy.charges if policy.suspend is not None or days <= 0)


def _end(service: Service, policy: Policy) -> Iterator[NextStep]:
    """Suspension and termination: never without a notice that was sent, or that cannot be delivered
    for the days that the policy says; never while money may be on its way; never within a day that
    the customer was told of."""
    cycle = service.cycle
    stopped = service.mode is RenewalMode.STOP
    noticed_at = cycle.noticed_at(End.STOPPED if stopped else End.UNPAID, policy)
    if noticed_at is None or cycle.charging:
        return
    if service.is_asked and cycle.cannot_be_told_more_since is None:
        return
    if stopped:
        yield NextStep(Step.TERMINATE, end_of_stopped(service, noticed_at))
    elif service.is_suspended:
        told_at = cycle.noticed_at(End.SUSPENDED, policy)
        at_ = end_of_suspension(service, policy, told_at) if told_at else None
        if at_ is not None:
            at_ = _after_a_refusal(cycle, policy, at_)
            yield NextStep(Step.TERMINATE, day_over(at_, service.timezone))
    elif service.desired is ResourceState.SUSPENDED:
        return  # under way
    elif service.missing_contract is not None:
        told_at = cycle.given_at(Notice(CONTRACT, service.missing_contract), policy)
        if told_at is not None:
            yield NextStep(Step.TERMINATE, end_without_contract(service, policy, told_at))
    else:
        yield from _end_of_grace(service, policy, noticed_at)


def _end_of_grace(service: Service, policy: Policy, noticed_at: datetime) -> Iterator[NextStep]:
    """Unpaid: suspended, or terminated under a policy without grace.

    A customer who cannot be told of a higher amount is not charged, and has not paid either.
    """
    cycle, days = service.cycle, policy.suspend or 0
    at = max(service.day(days), noticed_at + timedelta(days=policy.notice))
    if service.mode is RenewalMode.AUTOMATIC:
        refused_at = cycle.cannot_be_told_more_since
        if cycle.is_to_be_told_more and refused_at is None:
            return
        unpaid_since = cycle.declined_at or refused_at
        told_behind_at = cycle.given_at(Notice(BEHIND), policy)
        if unpaid_since is not None:
            at = max(at, days_after(unpaid_since, days - policy.charges[0], service.timezone))
        elif told_behind_at is not None:
            at = max(at, told_behind_at + timedelta(days=policy.notice))
        else:
            return
        # Not before the charge that a higher amount was announced for; it comes first.
        at = after_a_rise(cycle, policy, at)
    step = Step.TERMINATE if policy.suspend is None else Step.SUSPEND
    yield NextStep(step, day_over(_after_a_refusal(cycle, policy, at), service.timezone))


def _after_a_refusal(cycle: Cycle, policy: Policy, at: datetime) -> datetime:
    """A person has the days of a notice to mend what keeps a customer from being told."""
    since = cycle.cannot_be_told_more_since
    return at if since is None else max(at, since + timedelta(days=policy.notice))


def end_of_stopped(service: Service, told_at: datetime) -> datetime:
    """When what its customer stopped is terminated.

    Args:
        told_at: when its customer was told of that day; for an e-mail, when it is sent.
    """
    at = service.expires_at
    if service.mode_changed_at is not None and service.mode_changed_at > at:
        at = service.mode_changed_at + UNDO
    if told_at > service.expires_at:  # told late: time to resume it, or to save its data
        told_at += UNDO
    return day_over(max(at, told_at), service.timezone)


def end_without_contract(service: Service, policy: Policy, told_at: datetime) -> datetime:
    """When what misses a contract is terminated, if nobody accepts it; ``told_at`` as above."""
    at = max(service.expires_at, told_at + timedelta(days=policy.notice))
    return day_over(at, service.timezone)


def end_of_suspension(service: Service, policy: Policy, told_at: datetime) -> datetime | None:
    """When what is suspended is terminated, if it stays unpaid; None: it is not suspended yet.

    Args:
        told_at: when its customer was told of that day; for an e-mail, when it is sent.
    """
    if service.suspended_at is None:
        return None
    grace = policy.terminate - (policy.suspend or 0)
    warned = told_at + timedelta(days=policy.notice)
    after_grace = days_after(service.suspended_at, grace, service.timezone)
    at = max(service.day(policy.terminate), after_grace, warned)
    return day_over(at, service.timezone)


def _morning(service: Service, days: int) -> datetime:
    return hour_of(service.expires_on, days, REMINDER_HOUR, service.timezone)
