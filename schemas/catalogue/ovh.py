"""Reads OVH's public order catalogue.

Its prices and taxes are integers in 1e-8 of the currency. Pricing mode ``default`` is paid by
the month, ``upfrontN`` N months ahead; ``degressivityN`` binds the customer for N months and is
not taken over.
"""

import gzip
import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from schemas.catalogue.models import Option, Plan, Price
from schemas.errors import CatalogueError
from schemas.fields import CURRENCY_DIGITS, is_clean
from schemas.values import Money, Period, Universe

SCALE = 8
LARGEST_PRICE = 10 ** (12 + SCALE)
# Rise servers, and what names no range, are sold under the provider's own name.
BRANDS = {"kimsufi": "kimsufi", "soyoustart": "soyoustart"}
UNLIMITED = 100
_COMMITMENT = re.compile(r"degressivity[0-9]+")
LONGEST_PERIOD = 120  # months


@dataclass(frozen=True, slots=True)
class OvhImport:
    """
    Attributes:
        subsidiary: whose prices these are.
        currency: of all prices.
        tax_rate: percent, as the catalogue says.
        skipped_commitments: pricings that bind the customer, by mode.
        unpriced_addons: plan -> families of add-ons it must be sold with, which are not priced.
    """

    subsidiary: str
    currency: str
    tax_rate: Decimal
    plans: list[Plan]
    skipped_commitments: Counter[str]
    unpriced_addons: dict[str, list[str]]


def read_ovh(path: Path) -> dict[str, Any]:
    """The document of a ``.json`` or ``.json.gz`` file, whatever is in it."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        document = json.loads(raw, parse_constant=_refuse_constant)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise CatalogueError([f"{path.name}: {error}"]) from None
    if not isinstance(document, dict):
        raise CatalogueError([f"{path.name}: not a catalogue"])
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def import_ovh(
    path: Path, *, driver: str = "dedicated", contract: str | None = "dedicated"
) -> OvhImport:
    """Turn OVH's catalogue of one subsidiary into plans.

    Raises:
        CatalogueError: naming file, plan and pricing of everything that cannot be used.
    """
    document = read_ovh(path)
    problems: list[str] = []
    skipped: Counter[str] = Counter()
    unpriced: dict[str, list[str]] = {}
    plans: dict[str, Plan] = {}
    try:
        subsidiary = document["locale"]["subsidiary"]
        currency = document["locale"]["currencyCode"]
        rate = Decimal(str(document["locale"]["taxRate"]))
        entries = list(document["plans"])
        if currency not in CURRENCY_DIGITS or not isinstance(subsidiary, str):
            raise ValueError(f"currency {currency!r}")
        if not rate.is_finite() or not 0 <= rate <= 100:
            raise ValueError(f"taxRate {rate}")
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise CatalogueError([f"{path.name}: locale or plans: {error!r}"]) from None
    for number, entry in enumerate(entries, 1):
        code = entry.get("planCode") if isinstance(entry, dict) else None
        where = f"{path.name}: plan {code or f'number {number}'}"
        try:
            prices = _prices(where, entry["pricings"], subsidiary, currency, skipped, problems)
            if not prices:
                raise ValueError("no price")
            blobs = entry.get("blobs") or {}
            name = (blobs.get("commercial") or {}).get("range") or ""
            unpriced[str(code)] = [f["name"] for f in entry["addonFamilies"] if f["mandatory"]]
            least, most = _bounds(entry["pricings"])
            plan = Plan(
                code=_text(code, 100),
                name=_text(entry["invoiceName"]),
                universe=Universe.DEDICATED,
                brand=BRANDS.get(name, "ovh"),
                driver=driver,
                contract=contract,
                prices=prices,
                quantity_min=least,
                quantity_max=most,
                options={
                    _text(option["name"], 100): Option(
                        bool(option["isMandatory"]), tuple(map(_text, option["values"] or ()))
                    )
                    for option in entry["configurations"]
                },
            )
            if plan.code in plans:
                raise ValueError("defined before")
            plans[plan.code] = plan
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"{where}: {type(error).__name__}: {error}")
    if problems:
        raise CatalogueError(problems)
    return OvhImport(
        subsidiary,
        currency,
        rate,
        list(plans.values()),
        skipped,
        {code: names for code, names in unpriced.items() if names},
    )


def _text(value: Any, longest: int = 200) -> str:
    """A text that an order can name and the database can keep."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or not is_clean(value):
        raise ValueError(f"{value!r} is not a text")
    return value


def _bounds(pricings: list[dict[str, Any]]) -> tuple[int, int]:
    """How many may be ordered at once; where nothing is said, from one to :data:`UNLIMITED`."""
    least, most = 1, UNLIMITED
    for pricing in pricings:
        if not _COMMITMENT.fullmatch(pricing["mode"]):
            quantity = pricing["quantity"]
            lower, upper = quantity["min"] or 1, quantity["max"] or UNLIMITED
            if type(lower) is not int or type(upper) is not int:
                raise ValueError(f"{quantity!r} is not a quantity")
            least, most = max(least, lower), min(most, upper)
            if not 1 <= lower <= upper or least > most:
                raise ValueError(f"quantity from {lower} to {upper}")
    return least, most


def _prices(
    where: str,
    pricings: list[dict[str, Any]],
    subsidiary: str,
    currency: str,
    skipped: Counter[str],
    problems: list[str],
) -> dict[tuple[str, Period], Price]:
    amounts: dict[str, dict[str, Money]] = {}
    for pricing in pricings:
        mode, (capacity,) = pricing["mode"], pricing["capacities"]
        if _COMMITMENT.fullmatch(mode):
            skipped[mode] += capacity == "renew"
            continue
        by_capacity = amounts.setdefault(mode, {})
        if capacity in by_capacity:
            problems.append(f"{where}: pricing {mode} {capacity}: priced before")
        try:
            by_capacity[capacity] = _money(pricing["price"], currency)
        except ValueError as error:
            problems.append(f"{where}: pricing {mode} {capacity}: {error}")
            by_capacity[capacity] = Money(0, currency)
    prices: dict[tuple[str, Period], Price] = {}
    for mode, by_capacity in amounts.items():
        upfront = re.fullmatch(r"default|upfront([0-9]{1,3})", mode)
        months = int(upfront[1] or 1) if upfront else 0
        if not 1 <= months <= LONGEST_PERIOD or set(by_capacity) != {"installation", "renew"}:
            problems.append(f"{where}: pricing {mode}: not understood")
            continue
        period = Period(months)
        if (subsidiary, period) in prices:
            problems.append(f"{where}: pricing {mode}: {period} is priced before")
        prices[subsidiary, period] = Price(by_capacity["installation"], by_capacity["renew"])
    return prices


def _money(price: Any, currency: str) -> Money:
    unit = 10 ** (SCALE - CURRENCY_DIGITS[currency])
    if type(price) is not int or not 0 <= price <= LARGEST_PRICE:
        raise ValueError(f"{price!r} is not a price")
    if price % unit:
        raise ValueError(f"{Decimal(price).scaleb(-SCALE)} {currency} is not a whole minor unit")
    return Money(price // unit, currency)
