"""What is next for a service and why, and what its renewal costs and when that is charged.

The rules decide (``schemas/rules``); this says their answers in codes and sentences.
"""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from producers.renewals.next_steps import Renewable
from schemas.clock import local_date
from schemas.errors import DataError
from schemas.rules import lifecycle, outlook
from schemas.rules.lifecycle import NextStep, Step
from schemas.rules.outlook import Decision
from schemas.rules.payable import PaymentMethod
from schemas.rules.quote import Quote
from schemas.values import DELIVERED, Money, RenewalMode, ResourceState, ServiceState

WHY = {
    "not_delivered": "It is on its way, and not delivered yet.",
    "ended": "It has ended.",
    "ending": "Its end is under way.",
    "not_rolled_out": "Renewal is not switched on for its brand and subsidiary.",
    "rollout_later": "Renewal is switched on for its brand and subsidiary later.",
    "charge_under_way": "A charge of its renewal is under way.",
    "notice_due": "Its customer is told what happens next.",
    "not_wanted_any_more": "It is on a payment request that does not ask for the right thing.",
    "customer_asked": "Its customer asked to renew it now.",
    "renews_automatically": "It is set to renew automatically.",
    "charge_again": "A charge was declined, and is tried again.",
    "unpaid": "Its renewal is not paid.",
    "stopped": "Its customer stopped it.",
    "contract_not_accepted": "Its contract has a version that its customer has not accepted.",
    "waits_for_contract": "Its customer has to accept a contract first.",
    "waits_for_customer": "It is renewed only if its customer asks.",
    "waits_for_payment": "It waits until its customer was told, or pays.",
}
"""Code -> what it means."""


@dataclass(frozen=True, slots=True)
class NextView:
    """What happens next by itself.

    Attributes:
        step: ``remind``, ``request``, ``charge``, ``suspend``, ``terminate``, ``withdraw``,
            ``decide``; None: nothing by itself.
        at: when; a moment that has passed means now.
        why: a stable code.
        text: the same as a sentence.
    """

    step: Step | None
    at: datetime | None
    why: str
    text: str


@dataclass(frozen=True, slots=True)
class QuoteView:
    """What renewing a service costs.

    Attributes:
        periods: how many it buys; more than one, if fewer would not reach the future.
        price: net of one period.
        rate: of the tax, in percent.
        paid_until: the local day on which it expires then.
        as_of: the local day that it is right for.
        stands_until: from when on it may be another one.
        charged_at: when it is charged by itself; None: it is not.
    """

    periods: int
    price: Money
    net: Money
    rate: Decimal
    tax: Money
    total: Money
    mention: str
    paid_until: date
    as_of: date
    stands_until: datetime
    charged_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Payer:
    """What of a customer decides about tax and payment."""

    country: str
    vat_number: str | None


def next_of(service: Renewable, now: datetime) -> NextView:
    """What is next for a delivered service, and why."""
    next_ = service.next_step(now)
    why = _why(service, next_, now)
    step, at = next_ if next_ is not None else (None, None)
    return NextView(step, at, why, WHY[why])


def next_before_delivery(state: ServiceState) -> NextView:
    """The same for one that was not delivered, or never will be."""
    why = "ended" if state is ServiceState.CANCELLED else "not_delivered"
    return NextView(None, None, why, WHY[why])


def _why(service: Renewable, next_: NextStep | None, now: datetime) -> str:
    view = service.view
    if view.state not in DELIVERED:
        return "ended"
    if view.desired is ResourceState.ABSENT:
        return "ending"
    if next_ is None:
        return _why_nothing(service)
    cycle = view.cycle
    match next_.step:
        case Step.DECIDE:
            return "rollout_later"
        case Step.REMIND:
            return "notice_due"
        case Step.WITHDRAW:
            return "not_wanted_any_more"
        case Step.SUSPEND:
            return "unpaid"
        case Step.TERMINATE:
            return lifecycle.ends_because(view)
        case Step.REQUEST | Step.CHARGE:
            if view.is_asked:
                return "customer_asked"
            return "charge_again" if cycle.declines else "renews_automatically"
    raise AssertionError(next_.step)


def _why_nothing(service: Renewable) -> str:
    view = service.view
    if view.cycle.charging:
        return "charge_under_way"
    if view.starts_at is None:
        return "not_rolled_out"
    if view.mode is RenewalMode.STOP:
        return "stopped"
    if view.missing_contract is not None:
        return "waits_for_contract"
    return "waits_for_customer" if view.mode is RenewalMode.MANUAL else "waits_for_payment"


def decision_of(service: Renewable, method: PaymentMethod | None, now: datetime) -> Decision:
    """What becomes of a service at its expiry if nobody changes anything."""
    today = local_date(now, service.view.timezone)
    return outlook.forecast(service.view, service.plan.policy, method, today)


def charged_at(service: Renewable, now: datetime) -> datetime | None:
    """When its renewal is charged next by itself; None: it is not."""
    view = service.view
    if view.state not in DELIVERED:
        return None
    if view.desired is ResourceState.ABSENT or view.starts_at is None or view.starts_at > now:
        return None
    payment = lifecycle.next_payment(view, service.plan.policy, now)
    return None if payment is None else max(payment.at, now)


def quote_now(service: Renewable, payer: Payer, now: datetime) -> QuoteView | None:
    """What renewing a service now costs; None: it has no price any more.

    Raises:
        DataError: the tax table has no rate for its customer.
    """
    quote = service.quote(payer.country, payer.vat_number, now)
    return None if quote is None else _view(quote, charged_at(service, now))


def quote_when_charged(service: Renewable, payer: Payer, now: datetime) -> QuoteView | None:
    """What will be charged by itself, as of the day on which that happens; now, if it never does.

    Raises:
        DataError: as :func:`quote_now`.
    """
    at = charged_at(service, now)
    quote = service.quote(payer.country, payer.vat_number, at or now)
    return None if quote is None else _view(quote, at)


def try_quote(service: Renewable, payer: Payer, now: datetime) -> tuple[QuoteView | None, str]:
    """:func:`quote_when_charged`, and the code of what is in its way, or nothing."""
    try:
        quote = quote_when_charged(service, payer, now)
    except DataError as error:
        return None, error.code
    return quote, "" if quote is not None else "price_gone"


def _view(quote: Quote, at: datetime | None) -> QuoteView:
    return QuoteView(
        periods=quote.periods,
        price=quote.price,
        net=quote.net,
        rate=quote.rate,
        tax=quote.tax,
        total=quote.gross,
        mention=quote.mention,
        paid_until=quote.paid_until,
        as_of=quote.as_of,
        stands_until=quote.stands_until,
        charged_at=at,
    )
