"""Which tax is due, at what rate, and what the law wants said on the invoice.

The table is tax.toml beside this module; a combination that is not in it is refused.
"""

import tomllib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from stdnum.eu import vat

from schemas.catalogue.models import Subsidiary
from schemas.errors import DataError
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


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


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
    """Tax on an amount, both in minor units, rounded half up (EN 16931).

    >>> tax_on(3787, Decimal(20))
    757
    """
    return round_half_up(Decimal(net) * rate / 100)
