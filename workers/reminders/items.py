"""What an e-mail says about one service: its situation, what it costs, when, and what can be done.

Facts and a moment in, an item out; nothing is read or sent here.
"""

from collections.abc import Sequence
from datetime import datetime

from producers.intake.links import Links, Purpose
from producers.renewals.announcing import (
    ONE_DAY,
    Payer,
    announcement,
    day_of,
    situation_of,
)
from producers.renewals.next_steps import Renewable
from schemas.catalogue import Catalogue
from schemas.rules import notices as notices_rule
from schemas.rules import sellable
from schemas.rules.notices import DEARER, Notice
from workers.reminders.mail import Item, Situation


def item_of(
    service: Renewable,
    notices: Sequence[Notice],
    payer: Payer,
    links: Links | None,
    catalogue: Catalogue,
    now: datetime,
    *,
    begun_at: datetime | None = None,
) -> Item:
    """What a mail says about a service, as it is now.

    Args:
        notices: what was due to be said about it.
        links: makes its links; None: it is to have none.
        begun_at: when the mail was first begun, if it was; one that is sent again says the same.

    Raises:
        DataError: the tax table has no rate for its customer.
    """
    service = _once_sent(service, notices, now)
    quote = announcement(service, payer, now)
    is_dearer = quote is not None and quote.is_dearer_than(service.announced)
    said = [notice for notice in notices if notice.kind is not DEARER or is_dearer]
    situation = notices_rule.situation(said, situation_of(service, payer.method, now))
    if (
        situation is Situation.DEARER
        and quote is not None
        and quote.is_in_another_currency_than(service.announced)
    ):
        situation = Situation.CONVERTED
    return Item(
        situation=situation,
        name=service.plan.name,
        detail=service.detail,
        last_day=service.view.expires_on - ONE_DAY,
        is_held=service.is_held,
        amount=None if quote is None or situation is Situation.STOPS else quote.gross,
        periods=quote.periods if quote is not None else service.periods_to_reach(now),
        on=day_of(service, situation, quote, now),
        links=_links(service, situation, links, catalogue, _seen_at(service, begun_at or now))
        if links is not None
        else {},
    )


def _once_sent(service: Renewable, notices: Sequence[Notice], now: datetime) -> Renewable:
    """The service as it is when its customer has read these notices."""
    known = service.view.cycle.notices
    return service.with_cycle(notices={**known, **{n: known.get(n) or now for n in notices}})


def _seen_at(service: Renewable, begun_at: datetime) -> datetime:
    """The moment whose mode the mail knows: a change since it was begun is known as well."""
    return max(begun_at, service.view.mode_changed_at or begun_at)


def _links(
    service: Renewable, situation: Situation, links: Links, catalogue: Catalogue, at: datetime
) -> dict[str, str]:
    id_ = str(service.id)
    whose = {"customer": service.customer_id}
    renew = {
        "command": "renew",
        **whose,
        "services": [{"id": id_, "expires_on": service.view.expires_on.isoformat()}],
    }
    if situation is Situation.STOPS:
        resume = {"command": "resume", **whose, "services": [id_]}
        return {"resume": links.url(Purpose.RESUME, resume, at)}
    stop = links.url(Purpose.STOP, {"command": "stop", **whose, "services": [id_]}, at)
    contract = sellable.contract_of(service.plan, catalogue)
    if service.view.missing_contract is not None and contract is not None:
        agreed = [{"contract": contract.code, "version": contract.version}]
        accept = links.url(Purpose.ACCEPT, {**renew, "contracts": agreed}, at)
        return {"accept": accept, "stop": stop}
    return {"renew": links.url(Purpose.RENEW, renew, at), "stop": stop}
