"""What a catalogue is made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

from schemas.rules.policies import DEFAULT_POLICY, Policy
from schemas.values import Money, Period, Universe


@dataclass(frozen=True, slots=True)
class Subsidiary:
    """The legal entity and country a customer buys from.

    Attributes:
        delivery_emails: its customers are told by e-mail what became of an order that they paid.
    """

    code: str
    entity: str
    country: str
    currency: str
    timezone: str
    language: str
    delivery_emails: bool = False


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
    last_prices: dict[tuple[str, Period], Price] = field(default_factory=dict)
    """What it is not sold for any more, and still renewed."""
    policy: Policy = DEFAULT_POLICY
    on_sale: bool = True
    quantity_min: int = 1
    quantity_max: int = 10
    options: dict[str, Option] = field(default_factory=dict)

    def price(self, subsidiary: str, period: Period) -> Price | None:
        """The price in that subsidiary for that period; None if it is not on sale."""
        return self.prices.get((subsidiary, period))

    def renewal(self, subsidiary: str, period: Period) -> Money | None:
        """The net price of one more period, also of what is not sold any more."""
        price = self.prices.get((subsidiary, period)) or self.last_prices.get((subsidiary, period))
        return price.renewal if price else None

    def periods(self, subsidiary: str, *, renewed: bool = False) -> list[Period]:
        """For which periods it has a price there, the shortest first.

        Args:
            renewed: also those that are not sold any more and still renewed.
        """
        offers = {*self.prices, *self.last_prices} if renewed else self.prices
        return sorted(period for where, period in offers if where == subsidiary)


class Catalogue:
    """Everything that can be ordered, and what is still renewed; for reading.

    Args:
        plans: in any order; those that are not on sale are only known.
        rollouts: (brand, subsidiary) -> the local day from which renewal is switched on there.
    """

    def __init__(
        self,
        subsidiaries: Iterable[Subsidiary],
        contracts: Iterable[Contract],
        plans: Iterable[Plan],
        rollouts: Mapping[tuple[str, str], date] | None = None,
    ) -> None:
        self.subsidiaries = {subsidiary.code: subsidiary for subsidiary in subsidiaries}
        self.contracts = {contract.code: contract for contract in contracts}
        self._known = {plan.code: plan for plan in plans}
        self.plans = {code: plan for code, plan in self._known.items() if plan.on_sale}
        self.rollouts = dict(rollouts or {})

    def subsidiary(self, code: str) -> Subsidiary:
        """Raises KeyError for one that does not exist."""
        return self.subsidiaries[code]

    def contract(self, code: str) -> Contract | None:
        return self.contracts.get(code)

    def plan(self, code: str) -> Plan | None:
        """A plan that is on sale."""
        return self.plans.get(code)

    def known_plans(self) -> Iterable[Plan]:
        return self._known.values()

    def known_plan(self, code: str) -> Plan:
        """A plan that some service has, on sale or not; raises KeyError."""
        return self._known[code]

    def find_plan(self, code: str) -> Plan | None:
        """A plan, on sale or not; None: there never was one of that code."""
        return self._known.get(code)
