"""What costs nothing waits for no payment, and takes no number."""

from typing import Any

from tests.support.given import line, order
from tests.support.operators import give_up


def free(key: str = "k-1", *lines: Any, **changes: Any) -> dict[str, Any]:
    document = order(key, *(lines or (line("gift"),)), **changes)
    del document["payment_method"]
    return document


def test_a_free_service_is_ordered_delivered_and_renewed_without_a_payment_method(
    life: Any,
) -> None:
    world = life()
    (answer,) = world.send(free())
    assert answer.verdict == "accepted", answer
    first = world.service()
    assert first.state == "active"

    world.pass_until(first, 70)

    assert world.service().paid_periods == 4
    assert world.service().state == "active"
    assert world.database.value("SELECT count(*) FROM invoices") == 0
    assert world.database.value("SELECT count(*) FROM invoice_series") == 0
    assert world.fleet.books().money()["default"] == []
    assert not [mail for mail in world.mails() if "moyen de paiement" in str(mail["Subject"])]
    world.clean()


def test_an_order_of_which_a_part_costs_something_needs_a_method(life: Any) -> None:
    world = life()
    (answer,) = world.send(free("k-1", line("gift"), line("site")))
    assert answer.verdict == "refused"
    assert [problem.code for problem in answer.problems] == ["payment_method_missing"]


def test_a_setup_fee_has_to_be_paid(life: Any) -> None:
    world = life()
    (answer,) = world.send(free("k-1", line("site", "P12M")))
    assert answer.verdict == "refused"


def test_a_free_service_renews_beside_one_that_cannot_be_paid(life: Any) -> None:
    world = life()
    expired = {"payment_method_expires": "2020-01"}
    world.order(line("gift"), line("site"))
    with world.fleet.owner.begin() as tx:
        tx.exec_driver_sql("UPDATE payment_methods SET expires_on = '2020-01-31'")
    assert expired
    gift, site = sorted(world.services(), key=lambda service: str(service.plan))

    world.pass_until(site, 1)

    gift, site = sorted(world.services(), key=lambda service: str(service.plan))
    assert (gift.plan, gift.paid_periods) == ("gift", 2)
    assert (site.plan, site.paid_periods) == ("site", 1)
    world.clean()


def test_a_manual_free_service_is_renewed_by_a_click(life: Any) -> None:
    world = life()
    world.send(free())
    world.click("mode", world.service(), mode="manual")

    answer = world.renew(world.service())

    assert answer.verdict == "accepted", answer
    assert world.service().paid_periods == 2
    world.clean()


def test_a_free_service_that_cannot_be_delivered_is_cancelled_and_nothing_is_credited(
    life: Any,
) -> None:
    world = life()
    world.fleet.simulator.simulator.faults.add({"fault": "refuse", "operation": "create"})
    world.send(free())
    (task,) = world.database.all("SELECT subject FROM tasks WHERE state = 'failed'")

    with world.fleet.engine("api").begin() as tx:
        give_up(tx, task.subject, world.fleet.clock)
    world.fleet.settle(30)

    assert world.service().state == "cancelled"
    assert world.database.value("SELECT count(*) FROM credit_notes") == 0
    world.clean()
