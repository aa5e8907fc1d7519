"""A payment method that expires around the first day of charging: what the customer is told, what
the forecast counts and what the charge does agree."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from monitoring.forecast import By, forecast
from schemas.catalogue import Catalogue
from schemas.catalogue.store import save
from schemas.rules.policies import DEFAULT_POLICY
from tests.integration.test_reminders import letters
from tests.support import given
from tests.support.given import changed

LATE = replace(DEFAULT_POLICY, code="late", charges=(2, 4), suspend=10)


def charge_late(world: Any) -> None:
    """Payment is asked for on the second day after the expiry."""
    plans = [changed(plan, policy=LATE) for plan in given.CATALOGUE.plans.values()]
    with world.fleet.owner.begin() as tx:
        save(tx, Catalogue(given.CATALOGUE.subsidiaries.values(), [given.TERMS], plans))
    world.fleet.settle(30)


def card_good_until(world: Any, service: Any, days: int) -> None:
    """So many days after the expiry."""
    last_day = world.expiry(service) + timedelta(days=days)
    world.database.run("UPDATE payment_methods SET expires_on = :day", day=last_day)


def forecasted(world: Any) -> str:
    today = world.fleet.clock.now().date()
    with world.database.engine("readonly").connect() as tx:
        (row,) = forecast(tx, today=today, until=today + timedelta(days=60), by=By.MONTH)
    return str(row.decision)


@pytest.mark.parametrize(
    ("late", "card_ends", "told", "decision", "reasons"),
    [
        # Charged three days before the expiry, good then, expired at the expiry.
        (False, -2, "sera renouvelé", "will_renew", []),
        # Good at the expiry, expired on the day of the charge.
        (True, 1, "moyen de paiement", "undecided_payment", ["payment_method_expired"]),
    ],
)
def test_a_card_that_expires_between_the_expiry_and_the_first_charge(
    life: Any, late: bool, card_ends: int, told: str, decision: str, reasons: list[str]
) -> None:
    world = life()
    if late:
        charge_late(world)
    first = world.order()
    card_good_until(world, first, card_ends)

    world.pass_until(first, -14.1)
    assert told in str(letters(world)[-1]["Subject"])
    assert forecasted(world) == decision

    world.pass_until(first, 2.5)
    declined = [d["reason"] for _, d in world.happened("charge.declined")]
    assert declined == reasons
    assert world.service().paid_periods == (1 if reasons else 2)
