"""Which tax is due, at what rate, and what the law wants said on the invoice.

The table is tax.toml beside this module; a combination that is not in it is refused.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from stdnum.eu import vat

from schemas.catalogue.models import Subsidiary
from schemas.clock import local_midnight
from schemas.errors import ConfigurationError, DataError
from schemas.values import round_half_up

TABLE = Path(__file__).parent / "tax.toml"


class TaxKind(StrEnum):
    DOMESTIC = "domestic"
    REVERSE_CHARGE = "reverse_charge"
    EU_CONSUMER = "eu_consumer"


@dataclass(frozen=True, slots=True)
class Treatment:
    """
    Attributes:
        rate: percent.
        mention: what the invoice says about it.
        until: the first day on which the rate is another one; None: no such day is known.
    """

    kind: TaxKind
    rate: Decimal
    mention: str
    until: date | None = None

    def changes_at(self, timezone: str) -> datetime | None:
        """The first moment of that day."""
        return None if self.until is None else local_midnight(self.until, timezone)


class _Part(BaseModel):
    """What may stand in the table, and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _percent(rate: str) -> str:
    if not 0 <= Decimal(rate) <= 100:
        raise ValueError("must be from 0 to 100")
    return rate


class _Rate(_Part):
    from_: Annotated[date, Field(alias="from")]
    rate: Annotated[
        str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?$"), AfterValidator(_percent)
    ]


def _in_order(rates: list[_Rate]) -> list[_Rate]:
    if any(one.from_ >= other.from_ for one, other in pairwise(rates)):
        raise ValueError("each must be from a later day on than the one before")
    return rates


_Said = Annotated[str, Field(min_length=1)]
_Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]


class _Entry(_Part):
    mention: _Said
    source: _Said
    rates: Annotated[list[_Rate], Field(min_length=1), AfterValidator(_in_order)]


class _Union(_Part):
    members: list[_Country]
    reverse_charge: _Said


class _Table(_Part):
    eu: _Union
    country: dict[_Country, _Entry]


@cache
def _table() -> dict[str, Any]:
    """The table, checked: a rate out of its order would never be applied, without a word.

    Raises:
        ConfigurationError: naming the entry, and what is wrong with it.
    """
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    try:
        _Table.model_validate(table)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        ]
        raise ConfigurationError(f"{TABLE.name}: {'; '.join(problems)}") from None
    return table


def _rate(country: str, on: date) -> tuple[Decimal, str, date | None]:
    """The standard rate of a country on a day, its name there, and the day of the next one."""
    entry = _table()["country"].get(country)
    following: date | None = None
    for step in reversed(entry["rates"] if entry else []):
        if step["from"] <= on:
            return Decimal(step["rate"]), entry["mention"], following
        following = step["from"]
    raise DataError(f"no tax rate for {country} on {on}", code="tax_not_supported")


def check_vat_number(number: str, country: str) -> None:
    """Check a VAT number's form and prefix; it is not verified with VIES.

    Raises:
        DataError: ``vat_number_invalid``.
    """
    prefix = "EL" if country == "GR" else country
    compact = number.replace(" ", "").upper()
    if not compact.startswith(prefix):
        raise DataError(f"VAT number does not begin with {prefix}", code="vat_number_invalid")
    if not vat.is_valid(compact):
        raise DataError("VAT number is malformed", code="vat_number_invalid")


@lru_cache(maxsize=4096)
def determine(
    *, subsidiary: Subsidiary, customer_country: str, vat_number: str | None, on: date
) -> Treatment:
    """The treatment of a sale.

    Args:
        on: the subsidiary's local date.

    Raises:
        DataError: ``tax_not_supported`` for a combination that is not in the table,
            ``vat_number_invalid`` for a number that cannot be right.
        ConfigurationError: the table itself is wrong.
    """
    eu = _table()["eu"]
    members = eu["members"]
    if customer_country == subsidiary.country:
        if vat_number is not None and customer_country in members:
            check_vat_number(vat_number, customer_country)
        return Treatment(TaxKind.DOMESTIC, *_rate(customer_country, on))
    if subsidiary.country not in members or customer_country not in members:
        raise DataError(
            f"{subsidiary.code} does not sell to customers in {customer_country}",
            code="tax_not_supported",
        )
    if vat_number is not None:
        check_vat_number(vat_number, customer_country)
        return Treatment(TaxKind.REVERSE_CHARGE, Decimal(0), eu["reverse_charge"])
    return Treatment(TaxKind.EU_CONSUMER, *_rate(customer_country, on))


def tax_on(net: int, rate: Decimal) -> int:
    """Tax on the taxable amount of a rate, both in minor units, rounded half up, once (EN 16931,
    BR-CO-17).

    >>> tax_on(3787, Decimal(20))
    757
    """
    return round_half_up(Decimal(net) * rate / 100)


def spread(nets: Sequence[int], rate: Decimal) -> list[int]:
    """The tax on the sum of some lines, as parts that add up to it.

    A line's part is what the line adds to the tax of those before it: at most one minor unit from
    what the line alone would be taxed.

    >>> spread([350, 350, 350], Decimal(23))  # 2.415 in all
    [81, 80, 81]
    """
    parts, total, before = [], 0, 0
    for net in nets:
        total += net
        upto = tax_on(total, rate)
        parts.append(upto - before)
        before = upto
    return parts


class Amounts(NamedTuple):
    """Net, and the tax on it, in minor units."""

    net: int
    tax: int


def give_back(invoiced: Amounts, credited: Amounts, nets: Sequence[int]) -> list[int]:
    """The tax to credit with some lines of an invoice that are of one rate.

    It is that of all lines credited by then, in proportion and rounded once, less what was credited
    before; so the credit notes of all lines add up to the invoice, however they are cut.

    Args:
        invoiced: of all lines of the rate.
        credited: of those that earlier credit notes gave back.
        nets: of the lines that are given back now.
    """
    parts, net, before = [], credited.net, credited.tax
    for line in nets:
        net += line
        upto = round_half_up(Decimal(invoiced.tax) * net / invoiced.net) if invoiced.net else 0
        upto = max(upto, before)  # an earlier release rounded each line
        parts.append(upto - before)
        before = upto
    return parts
