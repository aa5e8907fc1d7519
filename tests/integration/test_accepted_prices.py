"""An order costs what it cost when it was accepted, with the tax of the day on which it is paid."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from schemas.catalogue import Catalogue
from schemas.catalogue.models import Price
from schemas.catalogue.store import save
from schemas.rules import tax
from schemas.values import Money, Period
from tests.integration.test_catching_up import paused, resumed
from tests.support import given
from tests.support.given import line, order


def load(world: Any, net: int | None) -> None:
    """A catalogue in which a site costs otherwise, or is not sold any more."""
    plans = [plan for plan in given.CATALOGUE.plans.values() if plan.code != "site"]
    if net is not None:
        price = Price(Money(500, "EUR"), Money(net, "EUR"))
        plans.append(
            given.changed(given.CATALOGUE.plans["site"], prices={("FR", Period(1)): price})
        )
    with world.fleet.owner.begin() as tx:
        save(tx, Catalogue([given.FR, given.IE], [given.TERMS], plans))


@pytest.mark.parametrize("net", [100_000, None])
def test_a_catalogue_that_is_loaded_before_the_order_is_priced_changes_nothing(
    life: Any, net: int | None
) -> None:
    world = life()
    paused(world, "orders")
    world.fleet.intake.place("shop", "python", [given.body(order("k-1"))])
    load(world, net)
    resumed(world, "orders")

    assert world.database.all("SELECT net, total FROM invoices") == [(3787, 4544)]
    assert world.service().state == "active"
    world.clean()


def test_an_order_of_the_release_before_is_priced_by_the_catalogue(life: Any) -> None:
    world = life()
    paused(world, "orders")
    world.fleet.intake.place("shop", "python", [given.body(order("k-1"))])
    with world.fleet.owner.begin() as tx:
        tx.exec_driver_sql("UPDATE order_lines SET setup = NULL, renewal = NULL, currency = NULL")
    load(world, 5000)
    resumed(world, "orders")

    assert world.database.value("SELECT net FROM invoices") == 5500
    world.clean()


def test_an_order_that_is_paid_after_a_change_of_the_rate_pays_the_new_one(
    life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = life(silence_seconds=10 * 366 * 86_400.0)  # the years before are passed in one hop
    new_year = date(2030, 1, 1)
    table = tax._table()
    rates = [*table["country"]["FR"]["rates"], {"from": new_year, "rate": "21.00"}]
    french = table["country"]["FR"] | {"rates": rates}
    changed = table | {"country": table["country"] | {"FR": french}}
    monkeypatch.setattr(tax, "_table", lambda: changed)
    tax.determine.cache_clear()
    world.fleet.pass_time(datetime(2029, 12, 31, 22, 50, tzinfo=UTC) - world.fleet.clock.now())

    paused(world, "gateway")
    world.send(order("k-1", line("site", quantity=3)))
    assert world.database.all("SELECT tax, total FROM payment_requests") == [(2272, 13633)]
    world.pass_days(1)
    resumed(world, "gateway")
    tax.determine.cache_clear()

    assert world.database.all("SELECT net, tax, total FROM invoices") == [(11361, 2386, 13747)]
    assert world.database.all("SELECT amount, state FROM charges") == [(13747, "succeeded")]
    world.clean()
