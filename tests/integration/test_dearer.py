"""Nobody is charged more than they were told: what got dearer is told first."""

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from producers import ledger
from producers.steps import MAIL, REMIND
from schemas.rules import tax
from tests.integration.test_reminders import kinds, letters, plain, resume_lanes
from tests.support.given import line
from tests.support.operators import pause

TOLD, WITH_22_PERCENT, TWO_PERIODS = "45,44 €", "46,20 €", "90,89 €"


@pytest.fixture
def rates() -> Iterator[list[dict[str, Any]]]:
    """The rates of France, to be added to."""
    table: list[dict[str, Any]] = tax._table()["country"]["FR"]["rates"]
    before = list(table)
    yield table
    table[:] = before
    tax.determine.cache_clear()


def rises(rates: list[dict[str, Any]], day: date) -> None:
    rates.append({"from": day, "rate": "22"})
    tax.determine.cache_clear()


def charged(world: Any) -> list[int]:
    rows = world.database.all(
        "SELECT c.amount FROM charges AS c JOIN payment_requests AS r ON r.id = c.request_id"
        " WHERE r.order_id IS NULL AND c.state = 'succeeded' ORDER BY c.started_at"
    )
    return [amount for (amount,) in rows]


def announced(world: Any) -> list[int | None]:
    rows = world.database.all("SELECT announced FROM renewals ORDER BY service_id, period_number")
    return [amount for (amount,) in rows]


def test_after_a_rise_of_the_tax_rate_the_customer_is_told_before_the_charge(
    life: Any, rates: list[dict[str, Any]]
) -> None:
    world = life()
    first = world.order()
    # Given that it was announced, and that the rate rises on the day before the charge
    world.pass_until(first, -6.1)
    assert TOLD in plain(letters(world)[-1])
    assert announced(world) == [4544]
    rises(rates, world.expiry(first) - timedelta(days=4))
    before = len(letters(world))
    # When the day of the charge comes
    world.pass_until(first, -2.9)
    assert charged(world) == []
    assert [d for _, d in world.happened("renewal.dearer")] == [
        {"announced": "45.44 EUR", "amount": "46.20 EUR"}
    ]
    # Then its customer is told that morning, of the day on which it is charged,
    world.pass_until(first, -2.5)
    (mail,) = letters(world)[before:]
    assert "dearer-1" in kinds(world)
    assert "plus cher" in str(mail["Subject"])
    assert WITH_22_PERCENT in plain(mail)
    # and it is charged a week later, what was told.
    world.pass_until(first, 4.2)
    assert charged(world) == []
    assert world.service().state == "active"
    world.pass_until(first, 4.5)
    assert charged(world) == announced(world)[:1] == [4620]
    assert world.service().paid_periods == 2
    rate = world.database.value("SELECT max(tax_rate) FROM invoice_lines WHERE period_number = 2")
    assert rate == Decimal(22)
    world.clean()


def test_a_rise_that_is_known_beforehand_is_announced_from_the_first_reminder_on(
    life: Any, rates: list[dict[str, Any]]
) -> None:
    world = life()
    first = world.order()
    rises(rates, world.expiry(first) - timedelta(days=4))

    world.pass_until(first, -14.1)
    assert WITH_22_PERCENT in plain(letters(world)[-1])
    world.pass_until(first, -2.9)

    assert charged(world) == announced(world)[:1] == [4620]
    assert world.happened("renewal.dearer") == []
    world.clean()


def test_a_customer_who_asks_again_once_told_is_charged_at_once(
    life: Any, rates: list[dict[str, Any]]
) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -6.1)
    rises(rates, world.expiry(first) - timedelta(days=7))
    # A click on the link of an e-mail that named the old amount.
    assert world.renew().verdict == "accepted"
    assert charged(world) == []

    world.pass_until(first, -4.5)
    assert WITH_22_PERCENT in plain(letters(world)[-1])
    assert charged(world) == []
    answer = world.renew()

    assert (answer.verdict, answer.repeated) == ("accepted", False)
    assert charged(world) == [4620]
    world.clean()


def test_only_what_got_dearer_waits_and_what_is_paid_with_it_does_not(
    life: Any, rates: list[dict[str, Any]]
) -> None:
    world = life()
    first = world.order(line(quantity=2))
    world.pass_until(first, -6.1)
    world.database.run("UPDATE renewals SET announced = 9999 WHERE service_id = :id", id=first.id)
    rises(rates, world.expiry(first) - timedelta(days=4))

    world.pass_until(first, -2.9)

    assert charged(world) == [4620]
    assert len(world.happened("renewal.dearer")) == 1
    assert {s.id: s.paid_periods for s in world.services()}[first.id] == 2
    world.pass_until(first, 4.5)
    assert charged(world) == [4620, 4620]
    world.clean()


def test_when_the_expiry_passes_and_more_periods_are_needed_the_customer_is_told_first(
    life: Any,
) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -4)
    assert announced(world) == [4544]
    before = len(letters(world))
    # Given a silence from before the first charge to after one more period
    world.fleet.leap(timedelta(days=38))
    world.fleet.scheduler.round()
    resume_lanes(world)

    # When it goes on, then two periods are told, and nothing is charged before
    world.pass_days(1.5)
    assert charged(world) == []
    assert TWO_PERIODS in plain(letters(world)[-1])
    assert len(letters(world)) == before + 1
    world.pass_days(5)
    assert charged(world) == []
    # the days of a notice have passed.
    world.pass_days(2)
    assert charged(world) == [9089]
    assert world.service().paid_periods == 3
    world.clean()


def test_a_merely_informative_notice_lets_nothing_end(life: Any) -> None:
    world = life()
    first = world.order()
    world.click("mode", mode="manual")
    pause(world.database.engine("api"), "mail")
    world.database.run(
        "WITH sent AS (INSERT INTO emails (id, customer_id, day, begun_at, sent_at)"
        "  VALUES (gen_random_uuid(), 'alice', '2020-01-01', now(), now()) RETURNING id)"
        " INSERT INTO notices (service_id, expires_at, kind, email_id)"
        " SELECT s.id, s.expires_at, 'anniversary', sent.id FROM services AS s, sent"
    )

    world.pass_until(first, 40)

    assert world.service().state == "active"


def test_a_customer_who_cannot_be_told_is_not_charged_and_ends_like_one_who_did_not_pay(
    life: Any, rates: list[dict[str, Any]]
) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -6.1)
    rises(rates, world.expiry(first) - timedelta(days=4))
    # Given that its mailbox is gone when the e-mail about the higher amount is sent
    world.fleet.mailbox.refuse("alice@*")

    world.pass_until(first, 4.9)
    assert world.service().state == "active"
    failed = "SELECT reason FROM tasks WHERE name = 'remind' AND state = 'failed'"
    assert {row.reason for row in world.database.all(failed)} == {"recipient_refused"}
    # Then eight days after the refusal it is suspended as what is unpaid is.
    world.pass_until(first, 5.5)
    assert charged(world) == []
    assert world.service().state == "suspended"
    world.clean()


@pytest.mark.parametrize("late", [False, True])
def test_what_a_person_sends_after_all_is_charged_as_it_was_told(
    life: Any, rates: list[dict[str, Any]], late: bool
) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -6.1)
    rises(rates, world.expiry(first) - timedelta(days=4))
    world.fleet.mailbox.refuse("alice@*")
    world.pass_until(first, 6.5 if late else -2.1)

    # When the address is mended, and the e-mail is tried again
    world.database.run("UPDATE customers SET email = 'a.b@example.com'")
    with world.fleet.owner.begin() as tx:
        failed = tx.execute(text("SELECT subject FROM tasks WHERE state = 'failed'")).scalars()
        ledger.enqueue(tx, REMIND, [(subject, MAIL) for subject in failed.all()])
    world.fleet.settle(30)
    assert WITH_22_PERCENT in plain(world.mails()[-1])

    world.pass_days(7.1)
    assert charged(world) == [4620]
    assert world.service().state == "active"
    world.clean()
