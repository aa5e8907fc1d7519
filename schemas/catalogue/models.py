"""What a catalogue is made of."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas.values import Money, Period, Universe


@dataclass(frozen=True, slots=True)
class Subsidiary:
    """The legal entity and country a customer buys from."""

    code: str
    entity: str
    country: str
    currency: str
    timezone: str
    language: str


@dataclass(frozen=True, slots=True)
class Contract:
    """A text a plan requires; only its current version can be accepted."""

    code: str
    version: int
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Option:
    """A choice a plan offers; ``values`` empty: free text."""

    required: bool
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Price:
    setup: Money
    renewal: Money


@dataclass(frozen=True, slots=True)
class Plan:
    """Something that can be ordered. Adding one needs no code."""

    code: str
    name: str
    universe: Universe
    brand: str
    driver: str
    contract: str | None
    prices: dict[tuple[str, Period], Price]
    quantity_min: int = 1
    quantity_max: int = 10
    options: dict[str, Option] = field(default_factory=dict)

    def price(self, subsidiary: str, period: Period) -> Price | None:
        """The price there for that period, if it is sold there and so."""
        return self.prices.get((subsidiary, period))

    def periods(self, subsidiary: str) -> list[Period]:
        return sorted(period for sub, period in self.prices if sub == subsidiary)


class Catalogue:
    """Everything that can be ordered, for reading."""

    def __init__(
        self,
        subsidiaries: Iterable[Subsidiary],
        contracts: Iterable[Contract],
        plans: Iterable[Plan],
    ) -> None:
        self.subsidiaries = {subsidiary.code: subsidiary for subsidiary in subsidiaries}
        self.contracts = {contract.code: contract for contract in contracts}
        self.plans = {plan.code: plan for plan in plans}

    def subsidiary(self, code: str) -> Subsidiary:
        """Raises KeyError for one that does not exist."""
        return self.subsidiaries[code]

    def contract(self, code: str) -> Contract | None:
        return self.contracts.get(code)

    def plan(self, code: str) -> Plan | None:
        return self.plans.get(code)
