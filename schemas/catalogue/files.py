"""Catalogue files: TOML, written by hand or by an importer.

Every problem is collected before any is reported; a line names file, plan and field.
"""

import tomllib
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas.catalogue.models import Catalogue, Contract, Option, Plan, Price, Subsidiary
from schemas.errors import CatalogueError
from schemas.fields import Country, CurrencyCode, Language, OptionName, Text
from schemas.rules.policies import DEFAULT_POLICY as DEFAULT
from schemas.rules.policies import Policy, ReminderRule
from schemas.values import Money, Period, Universe

BUNDLED = Path(__file__).parent / "bundled"
"""The sample catalogue that comes with the project."""

TELECOM_SUBSIDIARIES = {"FR"}

Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Days = Annotated[int, Field(ge=1, le=365)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Subsidiary(_Entry):
    code: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    entity: Text
    country: Country
    currency: CurrencyCode
    timezone: str
    language: Language
    delivery_emails: bool = False


class _Contract(_Entry):
    code: Code
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    title: Text
    url: Text


class _Price(_Entry):
    setup: str = "0"
    renewal: str


class _Option(_Entry):
    required: bool = False
    values: list[Text] = []


class _Reminders(_Entry):
    subsidiary: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    period: str | None = None
    days: list[Days]
    since: date | None = None
    source: Text | None = None


class _Policy(_Entry):
    code: Code
    reminders: list[Days] = list(DEFAULT.reminders)
    reminders_for: list[_Reminders] | None = None
    charges: list[Annotated[int, Field(ge=-90, le=90)]] = list(DEFAULT.charges)
    grace: bool = True
    suspend: Annotated[int, Field(ge=0, le=365)] | None = None
    terminate: Annotated[int, Field(ge=0, le=730)] | None = None
    stop_reminder: Days = DEFAULT.stop_reminder
    notice: Annotated[int, Field(ge=0, le=90)] = DEFAULT.notice
    undeliverable: Annotated[int, Field(ge=1, le=90)] = DEFAULT.undeliverable
    catch_up: Annotated[int, Field(ge=1, le=120)] = DEFAULT.catch_up
    source: Text | None = None


class _Plan(_Entry):
    code: Code
    name: Text
    universe: str
    brand: Code
    driver: Code
    contract: Code | None = None
    policy: Code | None = None
    quantity_min: Annotated[int, Field(ge=1)] = 1
    quantity_max: Annotated[int, Field(ge=1, le=1000)] = 10
    prices: dict[str, dict[str, _Price]]
    options: dict[OptionName, _Option] = {}


class _File(_Entry):
    subsidiary: list[Any] = []
    contract: list[Any] = []
    policy: list[Any] = []
    plan: list[Any] = []


def load(paths: Sequence[Path]) -> Catalogue:
    """Read files, and all ``*.toml`` files of folders, as one catalogue.

    Raises:
        CatalogueError: with every problem of every file.
    """
    problems: list[str] = []
    entries = [entry for path in _files(paths, problems) for entry in _read(path, problems)]
    subsidiaries = _unique(
        [
            (where, Subsidiary(**entry.model_dump()))
            for where, entry in entries
            if isinstance(entry, _Subsidiary) and _usable(where, entry, problems)
        ],
        problems,
    )
    contracts = _unique(
        [
            (where, Contract(**entry.model_dump()))
            for where, entry in entries
            if isinstance(entry, _Contract)
        ],
        problems,
    )
    policies = _unique(
        [
            (where, _policy(where, entry, subsidiaries, problems))
            for where, entry in entries
            if isinstance(entry, _Policy)
        ],
        problems,
    )
    plans = _unique(
        [
            (where, _plan(where, entry, subsidiaries, contracts, policies, problems))
            for where, entry in entries
            if isinstance(entry, _Plan)
        ],
        problems,
    )
    if problems:
        raise CatalogueError(problems)
    return Catalogue(subsidiaries.values(), contracts.values(), plans.values())


def _files(paths: Sequence[Path], problems: list[str]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.glob("*.toml"))
        elif path.exists():
            yield path
        else:
            problems.append(f"{path}: no such file or folder")


def _read(path: Path, problems: list[str]) -> Iterator[tuple[str, _Entry]]:
    """Every well-formed entry of a file, with where it stands."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:  # not UTF-8 and not TOML among them
        problems.append(f"{path.name}: {error}")
        return
    try:
        file = _File.model_validate(document)
    except ValidationError as error:
        problems += _explain(path.name, error)
        return
    kinds: list[tuple[str, type[_Entry], list[Any]]] = [
        ("subsidiary", _Subsidiary, file.subsidiary),
        ("contract", _Contract, file.contract),
        ("policy", _Policy, file.policy),
        ("plan", _Plan, file.plan),
    ]
    for kind, model, tables in kinds:
        for number, table in enumerate(tables, 1):
            code = table.get("code", f"number {number}") if isinstance(table, dict) else number
            where = f"{path.name}: {kind} {code}"
            try:
                yield where, model.model_validate(table)
            except ValidationError as error:
                problems += _explain(where, error)


def _explain(where: str, error: ValidationError) -> list[str]:
    return [
        f"{where}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)
    ]


def _unique(entries: Sequence[tuple[str, Any]], problems: list[str]) -> dict[str, Any]:
    by_code: dict[str, Any] = {}
    for where, entry in entries:
        if entry.code in by_code:
            problems.append(f"{where}: code: defined before")
        by_code[entry.code] = entry
    return by_code


def _usable(where: str, entry: _Subsidiary, problems: list[str]) -> bool:
    try:
        ZoneInfo(entry.timezone)
    except (KeyError, ValueError, OSError):  # not there; not a name; a folder, too long
        problems.append(f"{where}: timezone: {entry.timezone!r} is not an IANA time zone")
        return False
    return True


def _policy(
    where: str, entry: _Policy, subsidiaries: dict[str, Subsidiary], problems: list[str]
) -> Policy:
    rules = []
    for number, rule in enumerate(entry.reminders_for or []):
        place = f"{where}: reminders_for.{number}"
        _check_days(f"{place}.days", rule.days, problems)
        if rule.subsidiary is not None and rule.subsidiary not in subsidiaries:
            problems.append(f"{place}.subsidiary: no such subsidiary")
        try:
            period = Period.parse(rule.period) if rule.period is not None else None
        except ValueError as error:
            problems.append(f"{place}.period: {error}")
            period = None
        rules.append(
            ReminderRule(rule.subsidiary, period, tuple(rule.days), rule.since, rule.source)
        )
    _check_days(f"{where}: reminders", entry.reminders, problems)
    if not entry.charges or entry.charges != sorted(set(entry.charges)):
        problems.append(f"{where}: charges: days from the expiry, the earliest first")
    if not entry.grace and all(days > 0 for days in entry.charges):
        problems.append(f"{where}: charges: without a grace one has to be on or before the expiry")
    if not entry.grace and (entry.suspend, entry.terminate) != (None, None):
        problems.append(f"{where}: grace: without one there is no suspend and no terminate")
    suspend = (entry.suspend if entry.suspend is not None else DEFAULT.suspend) or 0
    terminate = entry.terminate if entry.terminate is not None else DEFAULT.terminate
    if terminate <= suspend:
        problems.append(f"{where}: terminate: not after suspend")
    return Policy(
        code=entry.code,
        reminders=tuple(entry.reminders),
        reminders_for=tuple(rules) if entry.reminders_for is not None else DEFAULT.reminders_for,
        charges=tuple(entry.charges),
        suspend=suspend if entry.grace else None,
        terminate=terminate,
        stop_reminder=entry.stop_reminder,
        notice=entry.notice,
        undeliverable=entry.undeliverable,
        catch_up=entry.catch_up,
        source=entry.source,
    )


def _check_days(where: str, days: list[int], problems: list[str]) -> None:
    """Without a reminder nothing could ever end."""
    if not days or days != sorted(set(days), reverse=True):
        problems.append(f"{where}: days before expiry, the first reminder first")


def _plan(
    where: str,
    entry: _Plan,
    subsidiaries: dict[str, Subsidiary],
    contracts: dict[str, Contract],
    policies: dict[str, Policy],
    problems: list[str],
) -> Plan:
    universe = Universe.WEB
    try:
        universe = Universe(entry.universe)
    except ValueError:
        problems.append(
            f"{where}: universe: {entry.universe!r} is not one of {', '.join(Universe)}"
        )
    if entry.contract is not None and entry.contract not in contracts:
        problems.append(f"{where}: contract: {entry.contract!r} is not defined")
    policy = policies.get(entry.policy or DEFAULT.code, DEFAULT)
    if entry.policy is not None and policy.code != entry.policy:
        problems.append(f"{where}: policy: {entry.policy!r} is not defined")
    if entry.quantity_min > entry.quantity_max:
        problems.append(f"{where}: quantity_min: more than quantity_max")
    prices: dict[tuple[str, Period], Price] = {}
    for code, offers in entry.prices.items():
        if code not in subsidiaries:
            problems.append(f"{where}: prices.{code}: no such subsidiary")
            continue
        if universe is Universe.TELECOM and code not in TELECOM_SUBSIDIARIES:
            problems.append(f"{where}: prices.{code}: telecom is sold in FR only")
        for text, offer in offers.items():
            price = _price(f"{where}: prices.{code}.{text}", offer, subsidiaries[code], problems)
            try:
                period = Period.parse(text)
            except ValueError as error:
                problems.append(f"{where}: prices.{code}.{text}: {error}")
                continue
            if (code, period) in prices:
                problems.append(f"{where}: prices.{code}.{text}: {period} is priced before")
            prices[code, period] = price
    if not entry.prices or not all(entry.prices.values()):
        problems.append(f"{where}: prices: a plan needs a price")
    return Plan(
        code=entry.code,
        name=entry.name,
        universe=universe,
        brand=entry.brand,
        driver=entry.driver,
        contract=entry.contract,
        prices=prices,
        policy=policy,
        quantity_min=entry.quantity_min,
        quantity_max=entry.quantity_max,
        options={
            name: Option(option.required, tuple(option.values))
            for name, option in entry.options.items()
        },
    )


def _price(where: str, offer: _Price, subsidiary: Subsidiary, problems: list[str]) -> Price:
    amounts = []
    for field in ("setup", "renewal"):
        try:
            amount = Money.parse(getattr(offer, field), subsidiary.currency)
            if amount.amount < 0:
                raise ValueError("less than nothing")
        except ValueError as error:
            problems.append(f"{where}.{field}: {error}")
            amount = Money(0, subsidiary.currency)
        amounts.append(amount)
    return Price(*amounts)
