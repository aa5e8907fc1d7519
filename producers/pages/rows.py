"""What a page says about one service: as it is, and as it would be after a click.

Facts and a moment in, values out; nothing is read or written here.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum

from producers.intake.commands import is_asked_already, why_not_renewed
from producers.renewals import announcing
from producers.renewals.announcing import ONE_DAY, Payer
from producers.renewals.next_steps import Renewable
from schemas.catalogue import Catalogue, Contract
from schemas.clock import local_date
from schemas.errors import DataError
from schemas.rules import lifecycle, sellable, tax
from schemas.rules.notices import End, Situation
from schemas.rules.payable import Obstacle, obstacle
from schemas.rules.quote import Quote
from schemas.values import Money, RenewalMode, ResourceState


class Action(StrEnum):
    """What a customer can have done about services; the purposes of links that do something."""

    RENEW = "renew"
    ACCEPT = "accept"
    STOP = "stop"
    RESUME = "resume"


class Status(StrEnum):
    """What is to be said of a service where its situation is not."""

    ARRIVING = "arriving"  # not delivered yet
    ENDING = "ending"  # is being deleted
    ASKED = "asked"  # its renewal was asked for, and is being paid
    RESTS = "rests"  # renewal is not switched on where it is
    UNQUOTED = "unquoted"  # what it costs is not known


@dataclass(frozen=True, slots=True)
class Row:
    """One service as it is.

    Attributes:
        state: the situation that e-mails know, or what else is to be said.
        last_day: the last full day that is paid for; None: not delivered.
        on: the day of what its situation announces; of an end the last full day before it.
        amount: with tax, of what is to be paid next; None: nothing is.
        is_taxed: there is a tax in it.
        periods: how many that buys.
        is_held: we have suspended it, and no payment lifts that.
        contract: what is to be accepted.
    """

    id: uuid.UUID
    name: str
    detail: str
    state: Situation | Status
    last_day: date | None = None
    on: date | None = None
    amount: Money | None = None
    is_taxed: bool = True
    periods: int = 1
    is_held: bool = False
    contract: Contract | None = None
    actions: tuple[Action, ...] = ()


def row_of(service: Renewable, payer: Payer, catalogue: Catalogue, now: datetime) -> Row:
    """What is so about a delivered service, and what can be done about it."""
    view = service.view
    row = Row(
        id=service.id,
        name=service.plan.name,
        detail=service.detail,
        state=Status.RESTS,
        last_day=view.expires_on - ONE_DAY,
        is_held=service.is_held,
        contract=sellable.contract_of(service.plan, catalogue) if view.missing_contract else None,
    )
    if view.desired is ResourceState.ABSENT:
        return replace(row, state=Status.ENDING)
    if view.starts_at is None or view.starts_at > now:
        return row
    actions = actions_of(service, payer, catalogue, now)
    situation = announcing.situation_of(service, payer.method, now)
    if situation is Situation.STOPS:
        on = announcing.day_of(service, situation, None, now)
        return replace(row, state=situation, on=on, actions=actions)
    try:
        quote = announcing.announcement(service, payer, now)
    except DataError:
        return replace(row, state=Status.UNQUOTED, actions=actions)
    if quote is None:
        return replace(row, state=Status.UNQUOTED, actions=actions)
    paid = replace(
        row,
        amount=quote.gross,
        is_taxed=quote.rate != 0,
        periods=quote.periods,
        actions=actions,
    )
    if view.is_asked and is_asked_already(service) and view.cycle.last_declined_at is None:
        return replace(paid, state=Status.ASKED)
    on = announcing.day_of(service, situation, quote, now)
    return replace(paid, state=situation, on=on)


def actions_of(
    service: Renewable, payer: Payer, catalogue: Catalogue, now: datetime
) -> tuple[Action, ...]:
    """What its customer can have done about it now."""
    view = service.view
    if view.desired is ResourceState.ABSENT:
        return ()
    if view.mode is RenewalMode.STOP:
        return (Action.RESUME,)
    if view.missing_contract is not None:
        accepted = accepting(service)
        possible = _may_be_renewed(accepted, payer, catalogue, now)
        return (Action.ACCEPT, Action.STOP) if possible else (Action.STOP,)
    if _may_be_renewed(service, payer, catalogue, now):
        return (Action.RENEW, Action.STOP)
    return (Action.STOP,)


def _may_be_renewed(service: Renewable, payer: Payer, catalogue: Catalogue, now: datetime) -> bool:
    if is_asked_already(service) and service.view.cycle.last_declined_at is None:
        return False
    seen = service.view.expires_on
    return not (
        any(why_not_renewed(service, seen, "", catalogue, now))
        or _obstacle(service, payer, now) is not None
    )


def _obstacle(service: Renewable, payer: Payer, now: datetime) -> Obstacle | None:
    """Why a charge of today would be declined without asking the gateway."""
    if service.view.is_free:
        return None
    return obstacle(payer.method, local_date(now, service.view.timezone))


def accepting(service: Renewable) -> Renewable:
    """The service once its contract is accepted."""
    return replace(service, view=replace(service.view, missing_contract=None))


@dataclass(frozen=True, slots=True)
class Effect:
    """What a click does to one service.

    Attributes:
        problem: the code of why it is refused; None: it is not.
        is_so: it is so already, nothing changes.
        row: the service as it would be then; as it is, where nothing changes.
        quote: what is charged now; None: nothing is.
        announced: what its customer was told before, where that was less: they are told first.
    """

    row: Row
    problem: str | None = None
    is_so: bool = False
    quote: Quote | None = None
    announced: Money | None = None


def stopping(
    service: Renewable, payer: Payer, catalogue: Catalogue, as_of: datetime, now: datetime
) -> Effect:
    row = row_of(service, payer, catalogue, now)
    if problem := _gone(service):
        return Effect(row, problem)
    if service.view.mode is RenewalMode.STOP:
        return Effect(row, is_so=True)
    if _is_outdated(service, as_of):
        return Effect(row, "link_outdated")
    view = replace(service.view, mode=RenewalMode.STOP, mode_changed_at=now)
    told_at = view.cycle.noticed_at(End.STOPPED)
    if told_at is None:
        due_at = lifecycle.reminded_at(view, service.plan.policy)
        told_at = max(due_at or now, now)
    end = lifecycle.end_of_stopped(view, told_at)
    last_day = max(local_date(end, view.timezone) - ONE_DAY, local_date(now, view.timezone))
    return Effect(replace(row, state=Situation.STOPS, on=last_day, amount=None, contract=None))


def resuming(
    service: Renewable,
    before: RenewalMode,
    payer: Payer,
    catalogue: Catalogue,
    as_of: datetime,
    now: datetime,
) -> Effect:
    """
    Args:
        before: its mode before it was stopped.
    """
    row = row_of(service, payer, catalogue, now)
    if problem := _gone(service):
        return Effect(row, problem)
    if service.view.mode is not RenewalMode.STOP:
        return Effect(row, is_so=True)
    if _is_outdated(service, as_of):
        return Effect(row, "link_outdated")
    view = replace(service.view, mode=before, mode_changed_at=now)
    return Effect(row_of(replace(service, view=view), payer, catalogue, now))


def renewing(
    service: Renewable,
    seen: date,
    payer: Payer,
    catalogue: Catalogue,
    as_of: datetime,
    now: datetime,
    *,
    accepts: Mapping[str, int],
) -> Effect:
    """
    Args:
        seen: the expiry that the customer saw.
        accepts: contract -> version, accepted before.
    """
    row = row_of(service, payer, catalogue, now)
    if problem := _gone(service):
        return Effect(row, problem)
    if seen < service.view.expires_on:
        return Effect(row, is_so=True)
    contract = row.contract
    if contract is not None and accepts.get(contract.code) == contract.version:
        service = accepting(service)
    problems = [p.code for p in why_not_renewed(service, seen, "", catalogue, now)]
    if not problems and (why := _obstacle(service, payer, now)) is not None:
        problems = [str(why)]
    if problems:
        return Effect(row, problems[0])
    if is_asked_already(service):
        return Effect(row, is_so=True)
    if service.view.mode is RenewalMode.STOP and _is_outdated(service, as_of):
        return Effect(row, "link_outdated")
    try:
        quote = service.quote(payer.country, payer.vat_number, now)
    except DataError as error:
        return Effect(row, error.code)
    if quote is None:
        return Effect(row, "price_gone")
    announced = service.announced
    is_dearer = quote.is_dearer_than(announced)
    paid = replace(row, last_day=quote.paid_until - ONE_DAY, periods=quote.periods)
    return Effect(paid, quote=quote, announced=announced if is_dearer else None)


def _gone(service: Renewable) -> str | None:
    return "service_ended" if service.view.desired is ResourceState.ABSENT else None


def _is_outdated(service: Renewable, as_of: datetime) -> bool:
    changed_at = service.view.mode_changed_at
    return changed_at is not None and changed_at > as_of


def totals(charged: Iterable[tuple[Renewable, Quote]]) -> list[Money]:
    """What services that are charged together cost, with tax, by currency: as their payment
    requests round it, once for what one method pays in a subsidiary."""
    nets: dict[tuple[object, ...], int] = {}
    quotes: dict[tuple[object, ...], Quote] = {}
    for service, quote in charged:
        key: tuple[object, ...] = (
            service.subsidiary.code,
            quote.currency,
            service.payment_method_id,
            quote.rate,
        )
        nets[key] = nets.get(key, 0) + quote.net.amount
        quotes[key] = quote
    sums: dict[str, int] = {}
    for part, net in nets.items():
        quote = quotes[part]
        gross = net + tax.tax_on(net, quote.rate)
        sums[quote.currency] = sums.get(quote.currency, 0) + gross
    return [Money(amount, currency) for currency, amount in sorted(sums.items())]
