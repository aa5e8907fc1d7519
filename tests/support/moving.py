"""Changes of a subsidiary, for tests: FR pays in Swiss francs, or lives by the clock of London."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from schemas.catalogue import Catalogue, Price, changes
from schemas.catalogue.changes import Change
from schemas.clock import local_date
from schemas.values import Money
from tests.support.given import CATALOGUE, FR, TERMS

# 40.00 CHF net for a month, 48.00 gross.
FRANCS = Price(Money(0, "CHF"), Money(4000, "CHF"))
IN_FRANCS = "48,00 CHF"


def in_francs(catalogue: Catalogue = CATALOGUE, **changed: Any) -> Catalogue:
    """A catalogue whose FR pays in Swiss francs."""
    plans = [
        replace(
            plan,
            prices={
                (code, period): FRANCS if code == "FR" else price
                for (code, period), price in plan.prices.items()
            },
        )
        for plan in catalogue.plans.values()
    ]
    subsidiaries = [
        replace(s, **({"currency": "CHF"} | changed)) if s.code == "FR" else s
        for s in catalogue.subsidiaries.values()
    ]
    return Catalogue(subsidiaries, [TERMS], plans)


def to_francs(since: date, files: Catalogue | None = None) -> Change:
    files = files or in_francs()
    return Change("FR", since, {"currency": "CHF"}, changes.prices_of(files, "FR"))


def plan(world: Any, definition: Mapping[str, str], *, days: int = 0, now: bool = True) -> Change:
    """Plan a change of FR for so many days from now; if that is today, put it in force."""
    since = date.fromordinal(local_date(world.fleet.clock.now(), FR.timezone).toordinal() + days)
    change = to_francs(since) if "currency" in definition else Change("FR", since, definition)
    with world.fleet.owner.begin() as tx:
        changes.plan(tx, change, world.fleet.clock.now())
        if days == 0 and now:
            changes.apply_planned(tx, "FR")
    return change
