"""A subsidiary gets another time zone, or another country, while services depend on it."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from producers.intake.links import Links
from producers.scheduler import scheduler as scheduler_module
from schemas.catalogue import changes
from schemas.clock import local_date, local_midnight
from schemas.errors import CatalogueError
from tests.integration.test_currency import charged, requests
from tests.integration.test_dearer import charged as amounts
from tests.integration.test_reminders import assert_nothing_twice, kinds, letters, plain
from tests.integration.test_renewals import accepts, declines
from tests.support.given import line, order
from tests.support.moving import plan

ZONES = ["Europe/London", "America/Montreal", "Asia/Tokyo"]


def expiries(world: Any, timezone: str) -> set[Any]:
    """The local days on which services expire, each at its midnight."""
    moments = [s.expires_at for s in world.services()]
    days = {local_date(at, timezone) for at in moments}
    assert {local_midnight(day, timezone) for day in days} == set(moments)
    return days


@pytest.mark.parametrize("timezone", ZONES)
def test_a_service_expires_on_the_day_on_which_it_did_at_the_midnight_of_the_new_zone(
    life: Any, timezone: str
) -> None:
    world = life()
    first = world.order(line(quantity=2))
    days = expiries(world, "Europe/Paris")
    world.pass_until(first, -12)
    told = kinds(world)

    plan(world, {"timezone": timezone})
    world.clean()
    world.fleet.settle(30)

    assert expiries(world, timezone) == days
    assert kinds(world) == told
    world.clean()
    world.pass_until(first, 0.2)
    assert_nothing_twice(world)
    assert kinds(world) == ["before-15", "before-7"]
    assert charged(world) == ["9089 EUR"]
    world.clean()


@pytest.mark.parametrize("timezone", ZONES)
def test_before_its_page_everything_is_decided_by_the_new_zone(
    life: Any, timezone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = life()
    first = world.order(line(quantity=2))
    day = expiries(world, "Europe/Paris").pop()
    world.pass_until(first, -12)
    plan(world, {"timezone": timezone})

    # Given that nobody turns pages while reminders fall due and customers click
    with world.fleet.owner.begin() as tx:
        tx.execute(text("SELECT FROM recomputations FOR UPDATE"))
        world.pass_until(first, -6.1)
        world.clean()
        one, two = world.services()
        assert world.click("stop", two).verdict == "accepted"
        answer = world.command(
            "renew", services=[{"id": str(one.id), "expires_on": day.isoformat()}]
        )
        assert answer.verdict == "accepted"
        assert charged(world) == ["4544 EUR"]
    world.fleet.settle(30)
    world.clean()

    assert kinds(world) == ["before-15", "before-7"]
    assert_nothing_twice(world)
    world.pass_until(first, 2)
    states = {s.id: s.state for s in world.services()}
    assert states == {one.id: "active", two.id: "terminated"}
    assert_nothing_twice(world)
    world.clean()


def test_links_that_were_sent_keep_working(life: Any) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -12)
    (mail,) = letters(world)
    link = next(word for word in plain(mail).split() if "/do/" in word)

    plan(world, {"timezone": "America/Montreal"})
    world.fleet.settle(30)

    document = Links.of(world.fleet.settings).open(link, world.fleet.clock.now())
    (answer,) = world.send(document)
    assert answer.verdict == "accepted"
    assert charged(world) == ["4544 EUR"]
    world.clean()


def test_what_ended_is_moved_too(life: Any) -> None:
    world = life()
    first = world.order()
    world.click("stop")
    world.pass_until(first, 2)
    assert world.service().state == "terminated"

    plan(world, {"timezone": "Europe/London"})
    world.fleet.settle(30)

    expiries(world, "Europe/London")
    assert world.service().next_step is None
    world.clean()


def test_pages_stop_in_the_middle_and_go_on(life: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "RECOMPUTE_CHUNK", 2)
    world = life()
    first = world.order(line(quantity=5))
    world.pass_until(first, -12)
    plan(world, {"timezone": "Europe/London"})
    world.fleet.scheduler.round()
    moved = "SELECT count(*) FROM services WHERE extract(hour FROM expires_at) IN (23, 0)"
    assert world.database.value(moved) < 6
    world.clean()

    # Given a process that dies after a page
    world.fleet.start_scheduler()
    world.fleet.settle(30)

    expiries(world, "Europe/London")
    world.clean()


def test_open_requests_are_made_anew_and_charged_on_the_day(life: Any) -> None:
    world = life()
    first = world.order()
    declines(world)
    world.pass_until(first, -2.5)
    accepts(world)

    plan(world, {"timezone": "Europe/London"})
    world.fleet.settle(30)

    # It was declined at the midnight of Paris: by the clock of London that was the day before the
    # first one of charging.
    assert requests(world) == [("voided", "EUR"), ("paid", "EUR")]
    assert charged(world) == ["4544 EUR"]
    world.clean()


class TestCountry:
    def test_open_renewals_are_taxed_anew_and_told_first_if_that_is_dearer(self, life: Any) -> None:
        world = life()
        first = world.order()
        declines(world)
        world.pass_until(first, -2.5)
        accepts(world)
        # From a domestic sale to one within the EU: the rate of France, as before.
        plan(world, {"country": "IE"})
        world.fleet.settle(30)
        assert requests(world) == [("voided", "EUR")]
        world.pass_until(first, -0.5)

        assert charged(world) == ["4544 EUR"]
        world.clean()

    def test_a_business_elsewhere_that_is_domestic_by_now_is_told_of_the_tax_first(
        self, life: Any
    ) -> None:
        world = life()
        first = world.order()
        world.command("customer", country="IE", vat_number="IE6388047V")
        world.pass_until(first, -12)
        assert "37,87" in plain(letters(world)[-1])

        plan(world, {"country": "IE"})
        world.fleet.settle(30)
        world.pass_until(first, -0.1)
        assert amounts(world) == []
        assert "46,58 €" in plain(letters(world)[-1])
        world.pass_until(first, 1)
        assert amounts(world) == [4658]
        world.clean()

    def test_customers_that_could_not_be_taxed_any_more_are_refused_with_how_many(
        self, life: Any
    ) -> None:
        world = life()
        world.order()
        world.send(order("k-2", customer="bob"))
        now = world.fleet.clock.now()
        change = changes.Change("FR", now.date() + timedelta(days=2), {"country": "CH"})

        with world.fleet.owner.begin() as tx, pytest.raises(CatalogueError) as refused:
            changes.plan(tx, change, now)

        (problem,) = refused.value.problems
        assert problem.endswith("2 customers could not be charged")
