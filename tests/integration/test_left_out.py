"""What cannot be written or quoted for one service holds up no other of its customer."""

import re
from dataclasses import replace
from typing import Any

import pytest

from producers.control import failed
from schemas.catalogue import Catalogue, Subsidiary
from schemas.catalogue.store import save, set_rollout
from tests.integration.test_reminders import letters, plain
from tests.integration.test_renewals import declines
from tests.support import given

# It does not sell to customers in France; its day is that of Paris.
GB = Subsidiary("GB", "Hosting Ltd", "GB", "EUR", "Europe/Paris", "en")


def publish(world: Any, *plans: Any) -> None:
    with world.fleet.owner.begin() as tx:
        save(tx, Catalogue([given.FR, given.IE, GB], [given.TERMS], plans))
        set_rollout(tx, "ovh", "GB", world.fleet.clock.now().date())
    world.fleet.settle(30)


def sold_in_gb() -> list[Any]:
    plans = given.CATALOGUE.plans
    site = plans["site"]
    prices = {
        ("GB", period): price for (code, period), price in site.prices.items() if code == "FR"
    }
    return [
        *(plan for code, plan in plans.items() if code != "site"),
        replace(site, prices={**site.prices, **prices}),
    ]


@pytest.fixture
def two(life: Any) -> tuple[Any, Any, Any]:
    """A life with two services: one can be written about, of the other the tax is not known."""
    world = life()
    world.order(given.line("vm"), given.line("site"))
    publish(world, *sold_in_gb())
    by_plan = {s.plan: s for s in world.services()}
    good, bad = by_plan["vm"], by_plan["site"]
    move(world, bad, "GB")
    return world, good, bad


def move(world: Any, service: Any, subsidiary: str) -> None:
    world.database.run(
        "UPDATE services SET subsidiary = :to WHERE id = :id", to=subsidiary, id=service.id
    )


def failures(world: Any) -> list[Any]:
    with world.database.engine("api").connect() as tx:
        return failed.list_failed(tx)


def test_what_can_be_written_is_sent_and_the_rest_fails_in_sight_of_a_person(two: Any) -> None:
    world, good, bad = two

    world.pass_until(good, -14.1)

    (mail,) = letters(world)
    assert "Vm" in plain(mail)
    assert "Site" not in plain(mail)
    (task,) = failures(world)
    assert (task.name, task.reason) == ("remind", "tax_not_supported")
    assert str(bad.id) in task.error
    assert world.database.value("SELECT attempts FROM tasks WHERE state = 'failed'") == 1
    (left,) = world.happened("notice.left_out")
    assert left.detail["kinds"] == ["before-15"]
    assert left.detail["reason"] == "tax_not_supported"
    told = world.database.all("SELECT subject FROM events WHERE name = 'notice.sent'")
    assert told == [(good.id,)]
    world.clean()


def test_what_was_left_out_is_said_once_it_is_mended(two: Any) -> None:
    world, good, bad = two
    world.pass_until(good, -14.1)
    (task,) = failures(world)
    move(world, bad, "FR")

    with world.database.engine("api").begin() as tx:
        failed.retry(tx, [task])
    world.fleet.settle(30)

    assert ["Site" in plain(mail) for mail in letters(world)] == [False, True]
    assert set(world.fleet.mailbox.message_ids.values()) == {1}
    assert failures(world) == []
    world.clean()


def test_a_service_that_its_customer_was_never_told_of_is_never_ended(two: Any) -> None:
    world, good, bad = two
    declines(world)

    world.pass_until(good, 40)

    states = {s.id: s.state for s in world.services()}
    assert states == {good.id: "terminated", bad.id: "active"}
    # One failed task for each day on which something was due to be said; it is not tried again.
    mails = [task for task in failures(world) if task.name == "remind"]
    assert {task.attempts for task in mails} == {1}
    assert len(mails) <= 6
    world.clean()


def test_an_email_that_cannot_be_written_yet_takes_what_else_is_due_that_day(two: Any) -> None:
    world, good, bad = two
    world.click("stop", good)  # nothing is to be said about it for a week
    world.pass_until(good, -14.1)
    (task,) = failures(world)
    begun = "SELECT begun_at FROM emails WHERE id = :id"
    assert world.database.value(begun, id=task.subject) is None
    assert letters(world) == []
    assert re.search(str(bad.id), task.error)


def test_renewals_of_one_customer_go_on_although_one_of_them_has_no_price(life: Any) -> None:
    world = life()
    first = world.order(given.line("site", quantity=2), given.line("phone"))
    phone = next(s for s in world.services() if s.plan == "phone")
    # A catalogue keeps the prices of what was sold; this one was lost.
    world.database.run("DELETE FROM prices WHERE plan = 'phone'")
    world.database.run("UPDATE catalogue_version SET version = version + 1")

    world.pass_until(first, -1.5)

    paid = {s.id: s.paid_periods for s in world.services()}
    assert paid == {s.id: 1 if s.id == phone.id else 2 for s in world.services()}
    (task,) = failures(world)
    assert (task.name, task.subject, task.reason) == ("request", phone.id, "price_gone")
    assert task.plan == "phone"
    failed_once = "SELECT count(*) FROM events WHERE name = 'task.failed'"
    assert world.database.value(failed_once) <= 3
    world.clean()

    publish(world, *given.CATALOGUE.plans.values())
    with world.database.engine("api").begin() as tx:
        failed.retry(tx, [task])
    world.fleet.settle(30)
    world.pass_days(0.1)
    assert {s.paid_periods for s in world.services()} == {2}
    assert failures(world) == []
    world.clean()
