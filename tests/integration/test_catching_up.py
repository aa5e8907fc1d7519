"""What is charged late: for as many periods as a policy says, and beyond that by its customer."""

import io
from datetime import timedelta
from typing import Any

import pytest

from producers.control import lanes
from producers.imports.importing import Counts, import_services
from producers.imports.prospects import Prospect
from schemas.catalogue.store import CatalogueCache
from schemas.rules.outlook import Decision
from tests.integration.test_importing import ndjson, row


def paused(world: Any, name: str = "renewals") -> None:
    with world.fleet.engine("api").begin() as tx:
        lanes.pause(tx, name, "a test")


def resumed(world: Any, name: str = "renewals") -> None:
    with world.fleet.engine("api").begin() as tx:
        lanes.resume(tx, name)
    world.fleet.settle(30)


def charged(world: Any) -> list[Any]:
    return world.database.all(
        "SELECT amount, state FROM charges WHERE attempt > 0 ORDER BY started_at"
    )


def arrives(world: Any, *rows: Any) -> Counts:
    rejected: list[Any] = []
    rows = tuple({k: v for k, v in one.items() if v is not None} for one in rows)
    counts = import_services(
        world.fleet.engine("api"), CatalogueCache(), world.fleet.clock, io.BytesIO(ndjson(*rows)),
        "ndjson", rejected.append, realm="shop",
    )  # fmt: skip
    assert rejected == []
    return counts


def said(world: Any) -> list[str]:
    return [str(mail["Subject"]) for mail in world.mails()]


def expired(world: Any, days: int) -> str:
    return (world.fleet.clock.now() - timedelta(days=days)).date().isoformat()


def test_a_service_that_is_two_periods_late_is_charged_once_after_its_customer_was_told(
    life: Any,
) -> None:
    world = life()
    arrives(world, row(anchor=None, expires_on=expired(world, 40)))

    world.pass_days(6)
    assert charged(world) == []
    world.pass_days(4)

    assert charged(world) == [(9089, "succeeded")]  # tax is rounded once
    assert world.service().expires_at > world.fleet.clock.now()
    world.clean()


def test_a_service_that_is_ten_years_late_is_told_and_never_charged_by_itself(life: Any) -> None:
    world = life()
    counts = arrives(world, row(anchor=None, expires_on=expired(world, 3650)))
    (prospect,) = counts.prospects
    assert (prospect.decision, prospect.services) == (Decision.UNDECIDED_BEHIND, 1)
    assert prospect.net == 3787 * 120

    world.pass_days(6)
    assert said(world) == [
        "1 service impayé depuis longtemps, à payer au plus tard le "
        + str(world.mails()[0]["Subject"]).rpartition(" le ")[2]
    ]
    world.pass_days(9)

    assert charged(world) == []
    assert world.service().state == "suspended"
    world.clean()


def test_its_customer_may_pay_for_all_of_it(life: Any) -> None:
    world = life()
    arrives(world, row(anchor=None, expires_on=expired(world, 100)))
    world.pass_days(2)

    answer = world.renew(world.service())
    world.fleet.settle(30)

    assert answer.verdict == "accepted"
    assert charged(world) == [(18178, "succeeded")]
    assert world.service().expires_at > world.fleet.clock.now()
    world.clean()


def test_a_charge_that_was_paused_for_months_waits_for_its_customer(life: Any) -> None:
    world = life()
    first = world.order()
    paused(world)
    world.pass_until(first, 70)
    resumed(world)
    world.pass_days(2)

    assert len(charged(world)) == 1  # of the order
    assert "1 service impayé depuis longtemps" in said(world)[-1]
    assert world.service().state == "active"
    world.clean()


def test_a_new_payment_method_does_not_pay_for_what_is_behind(life: Any) -> None:
    world = life()
    arrives(world, row(anchor=None, expires_on=expired(world, 100)))
    world.pass_days(2)

    world.command("payment_method", payment_method="tok-new")
    world.pass_days(3)

    assert charged(world) == []
    assert world.service().state == "active"
    world.clean()


def test_what_is_behind_comes_off_its_open_request(life: Any) -> None:
    world = life()
    first = world.order()
    paused(world, "gateway")
    world.pass_until(first, 65)
    assert world.database.value("SELECT count(*) FROM payment_requests WHERE state = 'open'") == 1
    resumed(world, "gateway")
    world.pass_days(1)

    assert world.database.value("SELECT count(*) FROM payment_requests WHERE state = 'open'") == 0
    assert len(charged(world)) == 1  # of the order
    assert "1 service impayé depuis longtemps" in said(world)[-1]
    world.clean()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (Decision.WILL_RENEW, False, 3787)),
        ({"mode": "manual"}, (Decision.UNDECIDED_MANUAL, False, 3787)),
        ({"mode": "stop"}, (Decision.WILL_STOP, False, 3787)),
        ({"payment_method": None}, (Decision.UNDECIDED_PAYMENT, False, 3787)),
        ({"payment_method_expires": "2020-01"}, (Decision.UNDECIDED_PAYMENT, False, 3787)),
        ({"contract_version": None}, (Decision.UNDECIDED_CONTRACT, False, 3787)),
        ({"plan": "server"}, (Decision.NOT_ROLLED_OUT, False, 3787)),
        ({"plan": "gift", "payment_method": None},
            (Decision.WILL_RENEW, False, 0)),
    ],
)  # fmt: skip
def test_an_import_says_what_becomes_of_its_services(
    life: Any, changes: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    world = life()
    with world.fleet.owner.begin() as tx:
        tx.exec_driver_sql("DELETE FROM rollouts WHERE brand = 'kimsufi'")
    expires_on = (world.fleet.clock.now() + timedelta(days=20)).date().isoformat()
    if changes.get("payment_method", "tok") is None:
        changes = changes | {"payment_method_expires": None}

    counts = arrives(world, row(anchor=None, expires_on=expires_on) | changes)

    decision, is_late, net = expected
    assert counts.prospects == [Prospect(decision, is_late, "EUR", 1, net)]
