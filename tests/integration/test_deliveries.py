"""Customers are told by e-mail what became of an order that they paid: once, in few e-mails."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from producers.control import failed
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache, save
from tests.integration.test_reminders import content, links, plain
from tests.support import given
from tests.support.given import line, order, wait_until

TOLD = "SELECT * FROM order_emails ORDER BY begun_at, number"


@pytest.fixture
def told(life: Any) -> Any:
    """Starts a fleet that tells the customers of FR."""

    def start(rules: Any = None, **settings: Any) -> Any:
        world = life(rules, **settings)
        subsidiaries = [replace(given.FR, delivery_emails=True), given.IE]
        with world.fleet.owner.begin() as tx:
            save(tx, Catalogue(subsidiaries, [given.TERMS], given.CATALOGUE.plans.values()))
        return world

    return start


def give_up_all(world: Any) -> None:
    with world.fleet.engine("api").begin() as tx:
        catalogue, now = CatalogueCache().current(tx), world.fleet.clock.now()
        for task in failed.list_failed(tx):
            failed.cancel(tx, task.subject, catalogue, now)
    world.fleet.settle(30)


def tasks(world: Any) -> list[Any]:
    return world.database.all("SELECT state, reason FROM tasks WHERE name = 'tell'")


def test_a_customer_is_told_what_was_delivered_with_its_name_and_address(told: Any) -> None:
    world = told()
    service = world.order(line(domain="hers.example"))

    (mail,) = world.mails()
    assert mail["To"] == "alice@example.com"
    assert mail["Subject"] == "1 service est prêt"
    text = plain(mail)
    assert "* Site (hers.example)" in text
    assert service.details
    for value in service.details.values():
        assert value in text
        assert value in content(mail, "html")
    assert links(world, mail).keys() == {"stop"}
    assert world.happened("delivery.%")[0].name == "delivery.sent"
    world.clean()


def test_an_order_of_many_services_is_one_mail_that_sums_them_up(told: Any) -> None:
    world = told(calls_at_once=16, delivery_email_seconds=5.0)
    world.order(*(line(quantity=10) for _ in range(12)))

    assert {s.state for s in world.services()} == {"active"}
    assert 1 <= len(world.mails()) <= 3
    last = world.database.all(TOLD)
    assert sum(len(row.delivered) for row in last) == 120
    assert "120 services sont prêts" in [m["Subject"] for m in world.mails()] or len(last) > 1
    world.clean()


def test_what_is_given_up_is_told_with_the_money_that_goes_back(told: Any) -> None:
    world = told([{"fault": "refuse", "operation": "create", "plan": "vm"}])
    world.send(order("k-1", line(), line("vm")))
    # The delivered one waits for the other, and not for ever.
    (first,) = world.mails()
    assert first["Subject"] == "1 service est prêt"
    give_up_all(world)

    (_, second) = world.mails()
    assert second["Subject"] == "1 service n\N{RIGHT SINGLE QUOTATION MARK}a pas pu être livré"
    assert "remboursé" in plain(second)
    assert "Payé jusqu" not in plain(second)
    rows = world.database.all(TOLD)
    assert [(len(r.delivered), len(r.given_up)) for r in rows] == [(1, 0), (0, 1)]
    world.clean()


def test_an_order_that_was_declined_is_told_of_by_nobody(told: Any) -> None:
    world = told([{"fault": "decline", "operation": "charge"}])
    world.send(order("k-1"))

    assert world.mails() == []
    assert world.database.all(TOLD) == tasks(world) == []


def test_where_it_is_switched_off_nobody_is_told(life: Any) -> None:
    world = life()
    world.order(line())

    assert world.mails() == []
    assert tasks(world) == []
    world.clean()


def test_a_refused_address_stops_nothing_and_is_told_once_it_is_mended(told: Any) -> None:
    world = told()
    world.fleet.mailbox.refuse("alice@*")
    world.order(line())

    assert world.service().state == "active"
    assert [(t.state, t.reason) for t in tasks(world)] == [("failed", "recipient_refused")]
    (row,) = world.database.all(TOLD)
    assert row.refused_at is not None
    world.clean()
    world.command("customer", email="alice.new@example.com")
    (mail,) = world.mails()
    assert mail["To"] == "alice.new@example.com"
    assert mail["Message-ID"] == f"<{row.id}@example.com>"
    assert tasks(world) == []
    world.clean()


def test_a_person_gives_a_refused_mail_up(told: Any) -> None:
    world = told()
    world.fleet.mailbox.refuse("alice@*")
    world.order(line())
    give_up_all(world)

    (row,) = world.database.all(TOLD)
    assert row.given_up_at is not None
    assert tasks(world) == world.mails() == []
    world.clean()


def test_a_mail_server_that_is_away_delays_no_order(told: Any) -> None:
    world = told(retry_base_seconds=0.2)
    world.fleet.mailbox.stop()
    world.fleet.intake.place("shop", "python", [given.body(order("k-1"))])
    wait_until(lambda: [s.state for s in world.services()] == ["active"], "it is delivered")
    world.fleet.mailbox.start()
    world.fleet.settle(30)

    assert len(world.mails()) == 1
    assert set(world.fleet.mailbox.message_ids.values()) == {1}
    world.clean()


def test_it_is_sent_in_the_night_too_and_beside_the_reminder_of_the_day(told: Any) -> None:
    world = told()
    now = world.fleet.clock.now()
    night = now.replace(hour=1, minute=0) + timedelta(days=1)
    world.fleet.pass_time(night - now)
    world.order(line())

    assert len(world.mails()) == 1
    world.clean()


def test_a_mail_that_is_sent_again_has_the_same_message_id(told: Any) -> None:
    world = told()
    world.order(line())
    world.database.run("UPDATE order_emails SET sent_at = NULL")
    world.database.run(
        "INSERT INTO tasks (name, subject, queue, lane)"
        " SELECT 'tell', order_id, 'reminders', 'mail' FROM order_emails"
    )
    world.fleet.settle(30)

    assert len(world.mails()) == 2
    assert len(world.fleet.mailbox.message_ids) == 1
