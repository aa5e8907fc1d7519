"""What a customer is told about a service: its situation, what its renewal costs, and when.

E-mails and pages say the same, because both ask here. Facts and a moment in, values out.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from producers.renewals.next_steps import Renewable
from schemas.clock import local_date
from schemas.rules import lifecycle, outlook
from schemas.rules.notices import CONTRACT, DEARER, End, Notice, Situation
from schemas.rules.outlook import Decision
from schemas.rules.payable import PaymentMethod
from schemas.rules.quote import Quote

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Payer:
    """What of a customer decides about the tax and the payment of a service."""

    country: str
    vat_number: str | None
    method: PaymentMethod | None


def situation_of(service: Renewable, method: PaymentMethod | None, now: datetime) -> Situation:
    """What is true of a service now, whatever was due to be said."""
    view = service.view
    today = local_date(now, view.timezone)
    decision = outlook.decision(view, service.plan.policy, method, today)
    if decision is Decision.WILL_STOP:
        return Situation.STOPS
    if view.is_suspended:
        return Situation.SUSPENDED
    if decision is Decision.UNDECIDED_CONTRACT:
        return Situation.ACCEPT
    if decision is Decision.UNDECIDED_BEHIND or _will_be_behind(service, decision, now):
        return Situation.BEHIND
    if view.cycle.last_declined_at is not None:
        return Situation.DECLINED
    if decision is Decision.UNDECIDED_MANUAL:
        return Situation.PAY
    return Situation.METHOD if decision is Decision.UNDECIDED_PAYMENT else Situation.RENEWS


def _will_be_behind(service: Renewable, decision: Decision, now: datetime) -> bool:
    """Whether it is behind by the first moment at which it may be charged by itself."""
    cycle, policy = service.view.cycle, service.plan.policy
    if decision is not Decision.WILL_RENEW or cycle.last_declined_at is not None:
        return False
    if service.view.behind_at(policy) is None or service.view.is_asked or cycle.is_to_be_told_more:
        return False
    return charged_at(service, None, now) is None


def announcement(service: Renewable, payer: Payer, now: datetime) -> Quote | None:
    """What renewing a service costs now, or on the day on which it is charged, whichever is more:
    the tax rate may change in between, and both may happen at what was announced.

    An amount above the one before it puts the charge off by the days of a notice: then it is what
    it costs on that day.
    """
    most: Quote | None = None
    for at in (now, charged_at(service, None, now)):
        most = _dearer(most, service.quote(payer.country, payer.vat_number, at or now))
    put_off = charged_at(service, most, now)
    return _dearer(most, service.quote(payer.country, payer.vat_number, put_off or now))


def _dearer(one: Quote | None, other: Quote | None) -> Quote | None:
    return max((q for q in (one, other) if q), key=lambda quote: quote.gross.amount, default=None)


def charged_at(service: Renewable, told: Quote | None, now: datetime) -> datetime | None:
    """When it is charged next by itself, once its customer was told now; None: it is not."""
    cycle = service.view.cycle
    said = {**cycle.notices, Notice(DEARER, cycle.dearer): now}
    cycle = replace(cycle, notices=said, announced_at=now)
    if told is not None and told.is_dearer_than(service.announced):
        cycle = replace(cycle, raised_at=now)
    payment = lifecycle.next_payment(replace(service.view, cycle=cycle), service.plan.policy, now)
    return None if payment is None else max(payment.at, now)


def day_of(
    service: Renewable, situation: Situation, quote: Quote | None, now: datetime
) -> date | None:
    """The day on which what the situation announces will be done; of an end, the last full day
    before it."""
    view, policy = service.view, service.plan.policy
    cycle = view.cycle
    today = local_date(now, view.timezone)
    end: datetime | None = None
    match situation:
        case Situation.RENEWS | Situation.DECLINED | Situation.DEARER | Situation.CONVERTED:
            at = charged_at(service, quote, now)
            return None if at is None else local_date(at, view.timezone)
        case Situation.SUSPENDED:
            told_at = cycle.noticed_at(End.SUSPENDED)
            end = lifecycle.end_of_suspension(view, policy, told_at or now)
        case Situation.ACCEPT:
            told_at = cycle.notices.get(Notice(CONTRACT, view.missing_contract))
            end = lifecycle.end_without_contract(view, policy, told_at or now)
        case Situation.STOPS:
            end = lifecycle.end_of_stopped(view, cycle.noticed_at(End.STOPPED) or now)
        case Situation.PAY | Situation.METHOD | Situation.BEHIND:
            if today < view.expires_on:
                return None  # by the last day that is paid for
            next_end = lifecycle.next_end(view, policy)
            warned = max(view.behind_at(policy) or now, now) + timedelta(days=policy.notice)
            end = next_end.at if next_end is not None else warned
    return None if end is None else max(local_date(end, view.timezone) - ONE_DAY, today)
