"""Fixtures of the unit tests, which use no database, no broker and no other process."""

from typing import Any

import hypothesis
import pytest

from schemas.catalogue import Catalogue, Contract, Option, Plan, Price, Subsidiary
from schemas.values import Money, Period, Universe

# The same examples in every run, and no time limit for one: machines that test are busy.
hypothesis.settings.register_profile("unit", derandomize=True, deadline=None)
hypothesis.settings.load_profile("unit")

FR = Subsidiary("FR", "Example SAS", "FR", "EUR", "Europe/Paris", "fr")
IE = Subsidiary("IE", "Example Ltd", "IE", "EUR", "Europe/Dublin", "en")
CA = Subsidiary("CA", "Example Inc", "CA", "CAD", "America/Toronto", "en")


def _prices(currency: str, **by_period: tuple[int, int]) -> dict[Period, Price]:
    return {
        Period.parse(period): Price(Money(setup, currency), Money(renewal, currency))
        for period, (setup, renewal) in by_period.items()
    }


def _plan(code: str, universe: Universe, contract: str | None, **fields: Any) -> Plan:
    offers: dict[str, dict[Period, Price]] = fields.pop("offers")
    return Plan(
        code=code,
        name=code.title(),
        universe=universe,
        brand="ovh",
        driver=universe.value,
        contract=contract,
        prices={(sub, period): price for sub, o in offers.items() for period, price in o.items()},
        **fields,
    )


@pytest.fixture
def catalogue() -> Catalogue:
    """A small catalogue: a web plan, a server with options, a telephone line sold in France."""
    return Catalogue(
        [FR, IE, CA],
        [Contract("web", 3, "Web", "https://example.com/w"), Contract("servers", 2, "S", "u")],
        [
            _plan(
                "web-perso",
                Universe.WEB,
                "web",
                offers={
                    "FR": _prices("EUR", P1M=(0, 359), P12M=(0, 3877)),
                    "IE": _prices("EUR", P1M=(0, 359), P12M=(0, 3877)),
                    "CA": _prices("CAD", P1M=(0, 499)),
                },
            ),
            _plan(
                "server",
                Universe.DEDICATED,
                "servers",
                offers={"IE": _prices("EUR", P1M=(5999, 3787), P12M=(0, 40000))},
                quantity_min=2,
                quantity_max=5,
                options={"region": Option(True, ("europe", "canada")), "label": Option(False)},
            ),
            _plan("voip", Universe.TELECOM, None, offers={"FR": _prices("EUR", P1M=(0, 99))}),
        ],
    )


@pytest.fixture
def document() -> dict[str, Any]:
    """A valid order, as upstream would send it."""
    return {
        "key": "order-1",
        "customer": {
            "id": "c-1",
            "subsidiary": "IE",
            "country": "IE",
            "language": "en",
            "email": "jane.doe@example.com",
        },
        "payment_method": "tok_4242",
        "contracts": [{"contract": "web", "version": 3}],
        "lines": [{"plan": "web-perso", "period": "P1M"}],
    }
