"""Composes the one mail with all notices of a customer and day, the most urgent first.

The sentences are in ``texts/LANGUAGE.toml``, the layout in ``templates/``.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache, lru_cache, reduce
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from schemas.errors import ConfigurationError, DataError
from schemas.rules.notices import Situation as Situation
from schemas.values import Money
from schemas.wording import LOCALES as LOCALES
from schemas.wording import Wording, one_line
from schemas.wording import wording as wording_of

HERE = Path(__file__).parent

LINKS = ("accept", "resume", "renew", "stop")
"""The actions a link may have, in the order they are shown."""

# A mail of more services sums them up by plan and day. Mail programs cut what is longer than 100 KB
# (Gmail: 102), and so many with their links take about 75.
MOST_ITEMS = 50

# Of what a driver says of a service.
MOST_FACTS = 10

_URGENCY = {situation: place for place, situation in enumerate(Situation)}


@dataclass(frozen=True, slots=True)
class Item:
    """One service in a mail.

    Attributes:
        name: of the plan.
        detail: tells it from others of the plan, e.g. a domain; may be empty.
        last_day: the last full day that is paid for.
        amount: gross price to be paid to renew it.
        periods: how many periods that buys; a late payment may buy more than one.
        on: the day of what the situation announces; of an end the last full day before it.
        links: action, one of ``LINKS`` -> absolute URL.
        is_held: we have suspended it, and no payment lifts that.
        facts: what its infrastructure says of it: name -> text.
    """

    situation: Situation
    name: str
    detail: str
    last_day: date
    amount: Money | None
    periods: int
    on: date | None
    links: Mapping[str, str]
    is_held: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail before it is composed.

    Attributes:
        id: becomes the Message-ID, so that a mail that is sent twice can be recognized.
        to: the address alone, without a name.
        language: one of ``LOCALES``, with or without a country; any other means English.
        customer: the customer's account, as shown to the customer.
        brand: the name the mail is sent under.
        all_services: where the customer sees all services.
    """

    id: uuid.UUID
    to: str
    language: str
    customer: str
    brand: str
    items: Sequence[Item]
    all_services: str


def compose(mail: Mail, sender: str, *, at: datetime | None = None) -> EmailMessage:
    """Compose a mail as text and HTML.

    Args:
        sender: an address, with or without a name; without one the brand is the name.
        at: the date of the mail; now by default.

    Raises:
        DataError: ``address_invalid``, or ``mail_empty`` for a mail without items.
        ConfigurationError: the sender is not an address.
    """
    if not mail.items:
        raise DataError("a mail without items", code="mail_empty")
    return _written(mail, _shown(mail, wording_of(HERE / "texts", mail.language)), sender, at)


def compose_link(mail: Mail, sender: str, *, at: datetime | None = None) -> EmailMessage:
    """Compose the mail with a new link to all services, of one without items.

    Raises:
        DataError: ``address_invalid``.
        ConfigurationError: the sender is not an address.
    """
    wording = wording_of(HERE / "texts", mail.language)
    group = {
        "heading": wording.say("new_link", "heading"),
        "explanation": wording.say("new_link", "explanation"),
        "items": [],
        "more": "",
    }
    shown = _around(mail, wording) | {
        "subject": wording.say("new_link", "heading"),
        "groups": [group],
        "all_services": (wording.say("all_services"), mail.all_services),
    }
    return _written(mail, shown, sender, at)


def _written(
    mail: Mail, shown: Mapping[str, Any], sender: str, at: datetime | None
) -> EmailMessage:
    """The message of what is shown."""
    address = _sender(sender)
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(
        one_line(address.display_name or mail.brand, 60), address.username, address.domain
    )
    message["To"] = _recipient(mail.to)
    message["Subject"] = shown["subject"]
    message["Date"] = at or datetime.now(UTC)
    message["Message-ID"] = f"<{mail.id}@{address.domain}>"
    # No List-Unsubscribe (RFC 8058): each of these e-mails is owed to its customer, see
    # docs/how-to/send-reminders.md.
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834, 5: no out-of-office answers
    # Quoted-printable passes every server, and keeps lines short whatever the names contain.
    message.set_content(_template("mail.txt.j2").render(shown), cte="quoted-printable")
    message.add_alternative(
        _template("mail.html.j2").render(shown), subtype="html", cte="quoted-printable"
    )
    # Set after the bodies: add_alternative would move a Content- header into the first part.
    message["Content-Language"] = shown["language"]
    return message


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _shown(mail: Mail, wording: Wording) -> dict[str, Any]:
    """The values for both templates: finished sentences only."""
    ordered = sorted(
        mail.items, key=lambda i: (_URGENCY[i.situation], i.last_day, i.name, i.detail)
    )
    groups = [
        (situation, list(items)) for situation, items in groupby(ordered, lambda i: i.situation)
    ]
    subject = _headline(*groups[0], wording)
    sum_up = len(ordered) > MOST_ITEMS
    others = len(ordered) - len(groups[0][1])
    if others:
        subject = wording.say("subject_more", subject=subject, count=others)
    return _around(mail, wording) | {
        "subject": subject,
        "groups": [
            {
                "heading": _headline(situation, items, wording),
                "explanation": wording.say("explanation", situation, count=len(items)),
                **_listed(items, wording, sum_up=sum_up),
            }
            for situation, items in groups
        ],
        "all_services": (wording.say("all_services"), mail.all_services) if sum_up else None,
    }


def _around(mail: Mail, wording: Wording) -> dict[str, Any]:
    """What every mail begins and ends with."""
    return {
        "language": wording.language,
        "greeting": wording.say("greeting"),
        "closing": wording.say("closing", brand=one_line(mail.brand)),
        "account": wording.say("account", customer=one_line(mail.customer)),
        "automatic": wording.say("automatic"),
    }


def _headline(situation: Situation, items: Sequence[Item], wording: Wording) -> str:
    """How many services are in a situation, and the earliest day that matters."""
    count = len(items)
    match situation:
        case Situation.SUSPENDED:
            days = [item.on for item in items if item.on]
            if not days:
                return wording.say("headline", "suspended_undated", count=count)
        case Situation.DECLINED:
            days = [item.last_day for item in items]
        case _:
            days = [item.on or item.last_day for item in items]
    return wording.say("headline", situation, count=count, date=wording.date(min(days)))


def _listed(items: Sequence[Item], wording: Wording, *, sum_up: bool) -> dict[str, Any]:
    """The services of a situation, one by one or summed up."""
    shown = _summed_up(items, wording) if sum_up else items
    rest = len(shown) - MOST_ITEMS
    return {
        "items": [_item(item, wording) for item in shown[:MOST_ITEMS]],
        "more": wording.say("more", count=rest) if rest > 0 else "",
    }


def _summed_up(items: Sequence[Item], wording: Wording) -> list[Item]:
    """One item for all services of a plan and day, with what they cost together."""
    alike: dict[tuple[object, ...], list[Item]] = {}
    for item in items:
        currency = item.amount and item.amount.currency
        key = (item.name, item.last_day, item.on, item.periods, item.is_held, currency)
        alike.setdefault(key, []).append(item)
    return [
        replace(
            theirs[0],
            detail=wording.say("services", count=len(theirs)),
            amount=_total(theirs),
            links={},
            facts={},
        )
        for theirs in alike.values()
    ]


def _total(items: Iterable[Item]) -> Money | None:
    """What services of one currency cost together; None: nothing is to be paid."""
    amounts = [item.amount for item in items if item.amount is not None]
    return reduce(Money.__add__, amounts) if amounts else None


def _item(item: Item, wording: Wording) -> dict[str, Any]:
    name, detail = one_line(item.name), one_line(item.detail)
    ends = item.situation in (Situation.STOPS, Situation.ACCEPT)
    day = (item.on or item.last_day) if ends else item.last_day
    facts = [_fact(key, value, wording) for key, value in item.facts.items()][:MOST_FACTS]
    if item.situation is not Situation.UNDELIVERED:
        facts.append(wording.say("ends" if ends else "paid_until", date=wording.date(day)))
    if item.on is not None:
        planned = wording.sentences["planned"]
        if item.situation in planned:
            facts.append(wording.say("planned", item.situation, date=wording.date(item.on)))
    elif item.situation is Situation.DECLINED:
        facts.append(wording.say("not_again"))
    if item.is_held:
        facts.append(wording.say("held"))
    if item.amount is not None:
        amount = wording.money(item.amount)
        facts.append(wording.say("amount", amount=amount))
        if item.periods > 1:
            facts.append(wording.say("periods", count=item.periods))
    return {
        "name": name,
        "detail": detail,
        "facts": facts,
        "links": [
            (wording.say("link", link), item.links[link]) for link in LINKS if link in item.links
        ],
    }


def _fact(name: str, value: str, wording: Wording) -> str:
    known = name if name in wording.sentences["fact"] else "any"
    return wording.say("fact", known, name=one_line(name, 60), value=one_line(value))


@lru_cache(16)
def check_sender(sender: str) -> None:
    """Check the setting of the sender.

    Raises:
        ConfigurationError: it is not an address, with or without a name.
    """
    _sender(sender)


def _sender(sender: str) -> Address:
    try:
        if not sender.isprintable():
            raise ValueError(sender)
        (named,) = SMTP.header_factory("From", sender).addresses
        address = _address(named.addr_spec)
    except (ValueError, IndexError, MessageError):
        raise ConfigurationError(
            f"{sender!r} is not a sender such as billing@example.com or Name <billing@example.com>"
        ) from None
    return Address(named.display_name, address.username, address.domain)


def _recipient(to: str) -> Address:
    try:
        return _address(to)
    except (ValueError, IndexError, MessageError):
        raise DataError(f"{to!r} is not an address", code="address_invalid") from None


def _address(text: str) -> Address:
    """An address with its domain in ASCII (RFC 5890), as every server accepts it."""
    address = Address(addr_spec=text)
    if not address.username or not address.domain:
        raise ValueError(text)
    return Address("", address.username, address.domain.encode("idna").decode())
