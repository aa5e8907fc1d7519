"""Rows and effects as finished sentences, for the templates."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from producers.pages.rows import Action, Effect, Row
from schemas.catalogue import Contract
from schemas.rules.notices import Situation
from schemas.values import Money
from schemas.wording import LOCALES, Wording, language_of, one_line
from schemas.wording import wording as wording_in

TEXTS = Path(__file__).parent / "texts"

# Situations whose day, if none is set, is the last one that is paid for.
_BY_THE_LAST_DAY = (Situation.PAY, Situation.METHOD, Situation.BEHIND)
_UNDATED = (Situation.RENEWS, Situation.DECLINED, Situation.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Said:
    """One service on a page.

    Attributes:
        label: what tells it from the others: its name, and its detail if it has one.
        facts: finished sentences.
        contract: what to read, and where; None: nothing.
        actions: what can be chosen for it.
        is_wrong: the first of the facts says why something cannot be done.
    """

    id: str
    name: str
    detail: str
    facts: list[str] = field(default_factory=list)
    contract: tuple[str, str] | None = None
    actions: tuple[Action, ...] = ()
    is_wrong: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


def wording(language: str) -> Wording:
    """The wording of the pages in a language, with or without a country."""
    return wording_in(TEXTS, language)


def preferred(accept_language: str) -> str:
    """The language of whoever is not known, by the header ``Accept-Language`` (RFC 9110, 12.5.4).

    >>> preferred("de-AT, fr;q=0.7, cs;q=0.9, en;q=0")
    'cs'
    """
    wishes: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept_language[:500].split(",")):
        tag, _, parameter = part.partition(";")
        name, _, weight = parameter.strip().partition("=")
        try:
            quality = float(weight) if name.strip() == "q" else 1.0
        except ValueError:
            continue
        primary = tag.strip().partition("-")[0].lower()
        if primary in LOCALES and 0 < quality <= 1:
            wishes.append((-quality, place, primary))
    return min(wishes)[2] if wishes else language_of("")


def row_said(row: Row, words: Wording) -> Said:
    """A service as it is."""
    facts = []
    if row.last_day is not None and row.state is not Situation.STOPS:
        facts.append(words.say("fact", "paid_until", date=words.date(row.last_day)))
    facts.append(words.say("fact", "next", what=next_said(row, words)))
    if row.is_held:
        facts.append(words.say("held"))
    return _said(row, facts, words)


def effect_said(effect: Effect, action: Action, words: Wording) -> Said:
    """What a click does to a service."""
    row = effect.row
    if effect.problem is not None:
        said = row_said(row, words)
        problem = problem_said(effect.problem, words)
        return Said(
            said.id, said.name, said.detail, [problem, *said.facts], said.contract, (), True
        )
    facts = []
    if effect.is_so:
        facts += [words.say("effect", _ALREADY[action]), *row_said(row, words).facts]
        return _said(row, facts, words)
    match action:
        case Action.STOP:
            facts.append(words.say("effect", "stop", date=_day(row.on or row.last_day, words)))
        case Action.RESUME:
            facts.append(words.say("effect", "resume", what=next_said(row, words)))
        case Action.RENEW | Action.ACCEPT:
            if effect.quote is not None:
                facts.append(
                    words.say(
                        "effect",
                        "renew",
                        amount=_amount(effect.quote.gross, effect.quote.rate != 0, words),
                        date=_day(row.last_day, words),
                    )
                )
                if effect.quote.periods > 1:
                    facts.append(words.say("periods", count=effect.quote.periods))
            if effect.announced is not None:
                facts.append(words.say("dearer", amount=words.money(effect.announced)))
    if row.is_held:
        facts.append(words.say("held"))
    return _said(row, facts, words)


_ALREADY = {
    Action.STOP: "stopped_already",
    Action.RESUME: "resumed_already",
    Action.RENEW: "renewed_already",
    Action.ACCEPT: "renewed_already",
}


def next_said(row: Row, words: Wording) -> str:
    """What happens to a service next, by itself."""
    day = row.on
    if day is None and row.state in _BY_THE_LAST_DAY:
        day = row.last_day
    key = f"{row.state}_undated" if day is None and row.state in _UNDATED else str(row.state)
    amount = "" if row.amount is None else _amount(row.amount, row.is_taxed, words)
    return words.say("next", key, date=_day(day, words), amount=amount)


def problem_said(code: str, words: Wording) -> str:
    return words.say("problem", code if words.has("problem", code) else "any")


def contract_said(contract: Contract, words: Wording) -> tuple[str, str]:
    """What to read, and where."""
    title = one_line(contract.title, 80)
    text = words.say("read_contract", title=title, version=str(contract.version))
    return text, contract.url


def _said(row: Row, facts: list[str], words: Wording) -> Said:
    return Said(
        id=str(row.id),
        name=one_line(row.name),
        detail=one_line(row.detail),
        facts=facts,
        contract=contract_said(row.contract, words) if row.contract else None,
        actions=row.actions,
    )


def _day(day: date | None, words: Wording) -> str:
    return "" if day is None else words.date(day)


def _amount(amount: Money, is_taxed: bool, words: Wording) -> str:
    if amount.amount == 0:
        return words.say("free")
    return words.say("amount" if is_taxed else "amount_untaxed", amount=words.money(amount))
