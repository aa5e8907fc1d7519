"""What a customer is told in one mail: everything that is due, the most urgent first.

The sentences are in ``texts/LANGUAGE.toml``, the layout in ``templates/``.
"""

import tomllib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_currency
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from schemas.errors import ConfigurationError, DataError
from schemas.rules.notices import Situation as Situation
from schemas.values import CURRENCY_DIGITS, Money

HERE = Path(__file__).parent

# Of English, the one that writes the day before the month.
LOCALES = {"en": "en_GB", "fr": "fr", "cs": "cs"}

LINKS = ("accept", "resume", "renew", "stop")
"""What a link may do, in the order they are shown."""

# What a customer calls a thing can be longer than anybody wants to read.
_LONGEST = 200


_URGENCY = {situation: place for place, situation in enumerate(Situation)}


@dataclass(frozen=True, slots=True)
class Item:
    """One service a mail speaks of.

    Attributes:
        name: of the plan.
        detail: which one it is, e.g. a domain; may be empty.
        amount: gross price of what has to be paid to renew it.
        periods: how many periods that buys; late payers may need more than one.
        on: when what the situation announces will be done.
        links: absolute URLs by what they do, among ``LINKS``; only what is there is shown.
    """

    situation: Situation
    name: str
    detail: str
    expires_on: date
    amount: Money | None
    periods: int
    on: date | None
    links: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mail:
    """What is told to whom.

    Attributes:
        id: makes the Message-ID, so that a mail sent again is known to be the same.
        to: the address, nothing else.
        language: one of ``LOCALES``, with or without a country; anything else is English.
        customer: what the customer knows the account by.
        brand: who writes.
    """

    id: uuid.UUID
    to: str
    language: str
    customer: str
    brand: str
    items: Sequence[Item]


def compose(mail: Mail, sender: str, *, at: datetime | None = None) -> EmailMessage:
    """The mail as text and as HTML.

    Args:
        sender: an address, with or without a name; without one the brand is the name.
        at: what the mail is dated; now if not given.

    Raises:
        DataError: ``address_invalid``, or ``mail_empty`` where there is nothing to tell.
        ConfigurationError: the sender is no address.
    """
    if not mail.items:
        raise DataError("a mail without items", code="mail_empty")
    wording = _wording(mail.language)
    shown = _shown(mail, wording)
    address = _sender(sender)

    message = EmailMessage(policy=SMTP)
    message["From"] = Address(
        _line(address.display_name or mail.brand, 60), address.username, address.domain
    )
    message["To"] = _recipient(mail.to)
    message["Subject"] = shown["subject"]
    message["Date"] = at or datetime.now(UTC)
    message["Message-ID"] = f"<{mail.id}@{address.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834, 5: no out-of-office answers
    # Quoted-printable is read by every server and keeps lines short whatever the names hold.
    message.set_content(_template("mail.txt.j2").render(shown), cte="quoted-printable")
    message.add_alternative(
        _template("mail.html.j2").render(shown), subtype="html", cte="quoted-printable"
    )
    # After the bodies: what starts with Content- would move into the first of them.
    message["Content-Language"] = wording.language
    return message


class Wording:
    """The sentences, dates and amounts of one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.locale = Locale.parse(LOCALES[language])
        path = HERE / "texts" / f"{language}.toml"
        self.sentences: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))

    def say(self, *key: str, count: int = 1, **values: str) -> str:
        """The sentence under a key, in the form that the number asks for."""
        sentence: Any = self.sentences
        for part in key:
            sentence = sentence[part]
        if isinstance(sentence, dict):
            sentence = sentence.get(self.locale.plural_form(count), sentence["other"])
        return str(sentence).format_map({"count": count, **values})

    @lru_cache(1000)  # noqa: B019 - there is one of each language, for ever
    def date(self, day: date) -> str:
        written = format_date(day, "long", locale=self.locale)
        if self.language == "fr" and day.day == 1:
            # CLDR writes "1 mai"; French does not (Lexique de l'Imprimerie nationale).
            return f"1er{written.removeprefix('1')}"
        return written

    def money(self, money: Money) -> str:
        amount = Decimal(money.amount).scaleb(-CURRENCY_DIGITS[money.currency])
        return format_currency(amount, money.currency, locale=self.locale)


def _wording(language: str) -> Wording:
    primary = language.replace("_", "-").partition("-")[0].lower()
    return _loaded(primary if primary in LOCALES else "en")


@cache
def _loaded(language: str) -> Wording:
    return Wording(language)


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
    """What both templates are given: nothing but finished sentences."""
    ordered = sorted(
        mail.items, key=lambda i: (_URGENCY[i.situation], i.expires_on, i.name, i.detail)
    )
    groups = [
        (situation, list(items)) for situation, items in groupby(ordered, lambda i: i.situation)
    ]
    subject = _headline(*groups[0], wording)
    others = len(ordered) - len(groups[0][1])
    if others:
        subject = wording.say("subject_more", subject=subject, count=others)
    return {
        "language": wording.language,
        "subject": subject,
        "greeting": wording.say("greeting"),
        "groups": [
            {
                "heading": _headline(situation, items, wording),
                "explanation": wording.say("explanation", situation, count=len(items)),
                "items": [_item(item, wording) for item in items],
            }
            for situation, items in groups
        ],
        "closing": wording.say("closing", brand=_line(mail.brand)),
        "account": wording.say("account", customer=_line(mail.customer)),
        "automatic": wording.say("automatic"),
    }


def _headline(situation: Situation, items: Sequence[Item], wording: Wording) -> str:
    """How many services are in which situation, and by when something has to be done."""
    count = len(items)
    match situation:
        case Situation.SUSPENDED:
            days = [item.on for item in items if item.on]
            if not days:
                return wording.say("headline", "suspended_undated", count=count)
        case Situation.RENEWS | Situation.METHOD | Situation.DEARER:
            days = [item.on or item.expires_on for item in items]
        case _:
            days = [item.expires_on for item in items]
    return wording.say("headline", situation, count=count, date=wording.date(min(days)))


def _item(item: Item, wording: Wording) -> dict[str, Any]:
    name, detail = _line(item.name), _line(item.detail)
    ends = item.situation in (Situation.STOPS, Situation.ACCEPT)
    facts = [wording.say("ends" if ends else "expires", date=wording.date(item.expires_on))]
    if item.on is not None:
        planned = wording.sentences["planned"]
        if item.situation in planned:
            facts.append(wording.say("planned", item.situation, date=wording.date(item.on)))
    elif item.situation is Situation.DECLINED:
        facts.append(wording.say("not_again"))
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


@lru_cache(16)
def check_sender(sender: str) -> None:
    """Raises ConfigurationError if it is no sender's address."""
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
    """An address whose domain is spelt as every server knows it (RFC 5890)."""
    address = Address(addr_spec=text)
    if not address.username or not address.domain:
        raise ValueError(text)
    return Address("", address.username, address.domain.encode("idna").decode())


def _line(text: str, longest: int = _LONGEST) -> str:
    """One line of what a person can read: no controls, no halves of characters, no reordering."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 5 * longest])
    line = " ".join(printable.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
