"""What customers are told is what happens: amounts, days, and what they have to do."""

from typing import Any

import pytest

from tests.integration.test_catching_up import arrives, charged, expired, paused, resumed
from tests.integration.test_currency import charged as charged_in
from tests.integration.test_currency import francs
from tests.integration.test_importing import row
from tests.integration.test_reminders import letters, plain
from tests.integration.test_renewals import accepts, declines
from tests.support.given import order
from tests.support.moving import plan


def test_after_the_last_decline_an_e_mail_asks_for_one_period(life: Any) -> None:
    world = life()
    first = world.order()
    declines(world)

    world.pass_until(first, 6.5)

    body = plain(letters(world)[-1])
    assert "45,44" in body
    assert "périodes" not in body
    assert world.database.value("SELECT announced FROM renewals WHERE period_number = 2") == 4544


def test_a_new_card_is_tried_at_once_for_what_is_suspended(life: Any) -> None:
    world = life()
    first = world.order()
    declines(world)
    world.pass_until(first, 6.5)
    accepts(world)

    world.command("payment_method", payment_method="tok-new")

    assert world.service().paid_periods == 2
    world.pass_days(1)
    assert world.service().state == "active"
    world.clean()


def test_a_new_card_within_the_days_after_a_rise_is_tried_after_them(life: Any) -> None:
    world = life()
    first = world.order()
    declines(world)
    world.pass_until(first, 6.5)
    accepts(world)
    world.database.run("UPDATE renewals SET raised_at = announced_at WHERE period_number = 2")

    world.command("payment_method", payment_method="tok-new")
    assert world.service().paid_periods == 1
    world.pass_days(8)

    assert world.service().paid_periods == 2
    world.clean()


def test_who_asked_for_a_renewal_in_another_currency_is_told_before_it_is_charged(
    life: Any,
) -> None:
    world = life()
    world.order()
    paused(world, "gateway")
    world.renew(world.service())
    francs(world)
    resumed(world, "gateway")
    assert charged_in(world) == []

    world.pass_days(1)

    assert len(letters(world)) == 1
    assert "CHF" in plain(letters(world)[0])
    assert charged_in(world) == []
    world.clean()


def test_what_will_be_behind_by_its_first_charge_is_not_told_to_do_nothing(life: Any) -> None:
    world = life()
    counts = arrives(world, row(anchor=None, expires_on=expired(world, 56)))
    assert [prospect.decision for prospect in counts.prospects] == ["undecided_behind"]

    world.pass_days(2)

    assert "rien à faire" not in plain(world.mails()[0])
    assert "depuis longtemps" in str(world.mails()[0]["Subject"])
    world.pass_days(25)
    assert charged(world) == []
    world.clean()


@pytest.mark.parametrize("country", ["IE"])
def test_an_order_is_taxed_by_the_country_that_its_subsidiary_is_in_when_it_is_paid(
    life: Any, country: str
) -> None:
    world = life()
    document = order("k-1")
    document["customer"] = document["customer"] | {"vat_number": "FR40303265045"}
    paused(world, "gateway")
    world.send(document)
    plan(world, {"country": country})
    world.fleet.settle(30)
    resumed(world, "gateway")
    world.send(document | {"key": "k-2"})

    first, second = world.database.all("SELECT tax, tax_mention FROM invoices ORDER BY number")
    assert first == second
    world.clean()
