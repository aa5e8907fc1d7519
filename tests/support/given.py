"""A small catalogue, and orders for it."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from schemas.catalogue import Catalogue, Contract, Option, Plan, Price, Subsidiary
from schemas.values import Money, Period, Universe

FR = Subsidiary("FR", "Hosting SAS", "FR", "EUR", "Europe/Paris", "fr")
IE = Subsidiary("IE", "Hosting Ltd", "IE", "EUR", "Europe/Dublin", "en")
TERMS = Contract("terms", 2, "Terms", "https://example.com/terms/2")


def _plan(code: str, universe: Universe, brand: str = "ovh", **changes: Any) -> Plan:
    prices = {
        # 37.87 EUR net, 45.44 gross in FR: the example of OVH's API renewal guide.
        ("FR", Period(1)): Price(Money(0, "EUR"), Money(3787, "EUR")),
        ("FR", Period(12)): Price(Money(1000, "EUR"), Money(40000, "EUR")),
        ("IE", Period(1)): Price(Money(0, "EUR"), Money(3787, "EUR")),
    }
    if universe is Universe.TELECOM:
        prices = {key: price for key, price in prices.items() if key[0] == "FR"}
    fields: dict[str, Any] = {
        "code": code,
        "name": code.title(),
        "universe": universe,
        "brand": brand,
        "driver": universe.value,
        "contract": "terms",
        "prices": prices,
    }
    return Plan(**(fields | changes))


def changed(plan: Plan, **fields: Any) -> Plan:
    return replace(plan, **fields)


CATALOGUE = Catalogue(
    [FR, IE],
    [TERMS],
    [
        _plan("site", Universe.WEB, options={"domain": Option(required=False)}),
        _plan("server", Universe.DEDICATED, "kimsufi"),
        _plan("vm", Universe.CLOUD, "soyoustart"),
        _plan("phone", Universe.TELECOM),
        _plan("free", Universe.WEB, contract=None),
        _plan("gift", Universe.WEB, prices={
            ("FR", Period(1)): Price(Money(0, "EUR"), Money(0, "EUR"))}),
    ],
)  # fmt: skip


def line(plan: str = "site", period: str = "P1M", quantity: int = 1, **configuration: str) -> Any:
    return {"plan": plan, "period": period, "quantity": quantity, "configuration": configuration}


def order(key: str = "order-1", *lines: Any, customer: str = "alice", **changes: Any) -> Any:
    """An order that is accepted as it is; lines default to one site for a month."""
    plain = customer.encode("ascii", "replace").decode().replace("?", "_")
    document = {
        "key": key,
        "customer": {
            "id": customer,
            "subsidiary": "FR",
            "country": "FR",
            "language": "fr",
            "email": f"{plain}@example.com",
        },
        "payment_method": f"tok-{plain}",
        "contracts": [{"contract": "terms", "version": 2}],
        "lines": list(lines) or [line()],
    }
    return document | changes


def body(document: Any) -> bytes:
    return json.dumps(document).encode()


def wait_until(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    """Poll a condition until it holds; fails with ``what`` if it does not in time."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {timeout:g} s"
        time.sleep(0.01)
