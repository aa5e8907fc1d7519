"""The catalogue as it is in force: what can be ordered, where, for how long, and for how much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from producers.views.scope import EVERYTHING, Scope
from schemas.catalogue import Catalogue, Plan
from schemas.values import Money, Universe


@dataclass(frozen=True, slots=True)
class PriceView:
    """Net prices of a plan in a subsidiary for a period."""

    subsidiary: str
    period: str
    setup: Money
    renewal: Money


@dataclass(frozen=True, slots=True)
class OptionView:
    """A choice that a plan offers; no ``values``: free text."""

    required: bool
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class ContractView:
    """What a plan requires; only its current version can be accepted."""

    code: str
    version: int
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class PlanView:
    """Something that can be ordered."""

    code: str
    name: str
    universe: Universe
    brand: str
    contract: ContractView | None
    quantity_min: int
    quantity_max: int
    options: Mapping[str, OptionView]
    prices: Sequence[PriceView]


@dataclass(frozen=True, slots=True)
class SubsidiaryView:
    """The legal entity and country that a customer buys from."""

    code: str
    entity: str
    country: str
    currency: str
    timezone: str
    language: str


@dataclass(frozen=True, slots=True)
class CatalogueView:
    """What is on sale."""

    subsidiaries: Sequence[SubsidiaryView]
    plans: Sequence[PlanView]


def catalogue(
    held: Catalogue,
    *,
    scope: Scope = EVERYTHING,
    universe: Universe | None = None,
    brand: str | None = None,
    subsidiary: str | None = None,
) -> CatalogueView:
    """What is on sale of the catalogue in force, by the codes of plans."""
    places = [
        s
        for s in sorted(held.subsidiaries.values(), key=lambda s: s.code)
        if subsidiary in (None, s.code)
        and (scope.subsidiaries is None or s.code in scope.subsidiaries)
    ]
    codes = {place.code for place in places}
    plans = [
        view
        for plan in sorted(held.plans.values(), key=lambda plan: plan.code)
        if universe in (None, plan.universe)
        and brand in (None, plan.brand)
        and (scope.brands is None or plan.brand in scope.brands)
        and (view := _plan(plan, held, codes)).prices
    ]
    return CatalogueView(
        [
            SubsidiaryView(s.code, s.entity, s.country, s.currency, s.timezone, s.language)
            for s in places
        ],
        plans,
    )


def _plan(plan: Plan, held: Catalogue, codes: set[str]) -> PlanView:
    contract = held.contract(plan.contract) if plan.contract is not None else None
    return PlanView(
        code=plan.code,
        name=plan.name,
        universe=plan.universe,
        brand=plan.brand,
        contract=ContractView(contract.code, contract.version, contract.title, contract.url)
        if contract is not None
        else None,
        quantity_min=plan.quantity_min,
        quantity_max=plan.quantity_max,
        options={
            name: OptionView(option.required, option.values)
            for name, option in plan.options.items()
        },
        prices=[
            PriceView(where, str(period), price.setup, price.renewal)
            for (where, period), price in sorted(plan.prices.items())
            if where in codes
        ],
    )
