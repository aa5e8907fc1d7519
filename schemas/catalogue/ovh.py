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
from schemas.values import CURRENCY_DIGITS, Money, Period, Universe

SCALE = 8
# Rise servers, and what names no range, are sold under the provider's own name.
BRANDS = {"kimsufi": "kimsufi", "soyoustart": "soyoustart"}
UNLIMITED = 100


@dataclass(frozen=True, slots=True)
class OvhImport:
    """
    Attributes:
        subsidiary: whose prices these are.
        tax_rate: percent, as the catalogue says.
        skipped_commitments: pricings that bind the customer, by mode.
        unpriced_addons: plan -> families of add-ons it must be sold with, which are not priced.
    """

    subsidiary: str
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
        document = json.loads(raw)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise CatalogueError([f"{path.name}: {error}"]) from None
    if not isinstance(document, dict):
        raise CatalogueError([f"{path.name}: not a catalogue"])
    return document


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
    plans: list[Plan] = []
    try:
        subsidiary = document["locale"]["subsidiary"]
        currency = document["locale"]["currencyCode"]
        rate = Decimal(str(document["locale"]["taxRate"]))
        entries = list(document["plans"])
        if currency not in CURRENCY_DIGITS or not isinstance(subsidiary, str):
            raise ValueError(f"currency {currency!r}")
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise CatalogueError([f"{path.name}: locale or plans: {error!r}"]) from None
    for number, entry in enumerate(entries, 1):
        code = entry.get("planCode") if isinstance(entry, dict) else None
        where = f"{path.name}: plan {code or f'number {number}'}"
        try:
            prices = _prices(where, entry["pricings"], subsidiary, currency, skipped, problems)
            blobs = entry.get("blobs") or {}
            name = (blobs.get("commercial") or {}).get("range") or ""
            unpriced[str(code)] = [f["name"] for f in entry["addonFamilies"] if f["mandatory"]]
            bounds = [p["quantity"] for p in entry["pricings"] if p["mode"] == "default"]
            plans.append(
                Plan(
                    code=_text(code),
                    name=_text(entry["invoiceName"]),
                    universe=Universe.DEDICATED,
                    brand=BRANDS.get(name, "ovh"),
                    driver=driver,
                    contract=contract,
                    prices=prices,
                    quantity_min=max(int(b["min"] or 1) for b in bounds),
                    quantity_max=min(int(b["max"] or UNLIMITED) for b in bounds),
                    options={
                        _text(option["name"]): Option(
                            bool(option["isMandatory"]), tuple(map(_text, option["values"] or ()))
                        )
                        for option in entry["configurations"]
                    },
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"{where}: {type(error).__name__}: {error}")
    if problems:
        raise CatalogueError(problems)
    return OvhImport(
        subsidiary, rate, plans, skipped, {code: names for code, names in unpriced.items() if names}
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text")
    return value


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
        if re.fullmatch(r"degressivity\d+", mode):
            skipped[mode] += capacity == "renew"
            continue
        try:
            amounts.setdefault(mode, {})[capacity] = _money(pricing["price"], currency)
        except ValueError as error:
            problems.append(f"{where}: pricing {mode} {capacity}: {error}")
            amounts.setdefault(mode, {})[capacity] = Money(0, currency)
    prices = {}
    for mode, by_capacity in amounts.items():
        upfront = re.fullmatch(r"default|upfront(\d{1,3})", mode)
        if not upfront or set(by_capacity) != {"installation", "renew"}:
            problems.append(f"{where}: pricing {mode}: not understood")
            continue
        period = Period(int(upfront[1] or 1))
        prices[subsidiary, period] = Price(by_capacity["installation"], by_capacity["renew"])
    return prices


def _money(price: Any, currency: str) -> Money:
    unit = 10 ** (SCALE - CURRENCY_DIGITS[currency])
    if not isinstance(price, int) or price < 0:
        raise ValueError(f"{price!r} is not a price")
    if price % unit:
        raise ValueError(f"{Decimal(price).scaleb(-SCALE)} {currency} is not a whole minor unit")
    return Money(price // unit, currency)
