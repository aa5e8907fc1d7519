"""Ends that do not depend on what a customer controls: their address, and what has failed."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli.services import service as command
from producers.control import ending, failed
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError
from schemas.values import Money
from tests.integration.test_dearer import charged
from tests.integration.test_failed import arrives, fault
from tests.integration.test_renewals import accepts, declines
from tests.support import given
from workers.billing.gateways.port import Charge


def test_who_cannot_be_written_to_keeps_no_unpaid_service(life: Any) -> None:
    world = life()
    first = world.order()
    world.click("mode", mode="manual")
    world.fleet.mailbox.refuse("alice@*")

    world.pass_until(first, 4.5)
    assert world.service().state == "active"
    world.pass_until(first, 7.5)
    assert world.service().state == "suspended"
    world.pass_until(first, 33)
    assert world.service().state == "terminated"

    refusals = [detail for _, detail in world.happened("notice.refused")]
    assert {refusal["reason"] for refusal in refusals} == {"recipient_refused"}
    world.clean()


def test_a_stop_is_carried_out_although_its_customer_cannot_be_told(life: Any) -> None:
    world = life()
    first = world.order()
    world.fleet.mailbox.refuse("alice@*")
    world.click("stop")

    world.pass_until(first, 5)
    assert world.service().state == "active"
    world.pass_until(first, 9)
    assert world.service().state == "terminated"
    world.clean()


def test_an_address_that_is_mended_gets_what_could_not_be_delivered(life: Any) -> None:
    world = life()
    first = world.order()
    world.fleet.mailbox.refuse("alice@*")
    world.pass_until(first, -14)
    assert world.mails() == []

    assert world.command("customer", email="alice.new@example.com").verdict == "accepted"

    (mail, *_) = world.mails()
    assert mail["To"] == "alice.new@example.com"
    assert world.database.value("SELECT count(*) FROM tasks WHERE state = 'failed'") == 0


@pytest.fixture
def cli(life: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def start() -> tuple[Any, Callable[..., Result]]:
        world = life()
        url = world.database.engine("api").url.set(drivername="postgresql")
        monkeypatch.setenv("AUTORENEW_CLOCK", "virtual")
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.render_as_string(hide_password=False))

        def run(*words: str) -> Result:
            result = CliRunner().invoke(command, ["end", *words])
            world.fleet.settle(30)
            return result

        return world, run

    return start


def test_an_operator_ends_a_service_whatever_has_failed(cli: Any) -> None:
    world, run = cli()
    first = world.order(given.line(quantity=2))
    declines(world)
    world.pass_until(first, -2.5)
    chosen, other = world.services()

    ended = run(str(chosen.id), "--reason", "abuse, ticket 4711", "--by", "eve", "--yes")

    assert (ended.exception, ended.exit_code, ended.output) == (
        None,
        0,
        "1 of 1 services are ending\n",
    )
    states = {s.id: s.state for s in world.services()}
    assert states == {chosen.id: "terminated", other.id: "active"}
    because = [detail for _, detail in world.happened("service.ending")]
    assert because == [{"reason": "operator", "because": "abuse, ticket 4711", "by": "eve"}]
    # The other one is asked for alone, and nothing was charged for the one that went.
    open_ = "SELECT total FROM payment_requests WHERE order_id IS NULL AND state = 'open'"
    assert world.database.all(open_) == [(4544,)]
    assert charged(world) == []
    world.clean()

    again = run(str(chosen.id), "--reason", "abuse", "--yes")
    assert (again.exit_code, again.stdout) == (1, "0 of 1 services are ending\n")
    as_json = run(str(chosen.id), "--reason", "abuse", "--yes", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (
        1, {"service": str(chosen.id), "verdict": "service_not_delivered"},
    )  # fmt: skip
    assert f"{chosen.id}: it is not delivered, or has ended" in again.stderr
    unknown = run(str(other.id), str(uuid.UUID(int=7)), "--reason", "abuse", "--yes")
    assert isinstance(unknown.exception, AutorenewError)
    assert "nothing was done" in str(unknown.exception)
    assert [s.state for s in world.services() if s.id == other.id] == ["active"]


def test_an_operator_is_asked_first_and_has_to_say_why(cli: Any) -> None:
    world, run = cli()
    service = world.order()
    assert run(str(service.id), "--reason", "abuse").exit_code == 1
    assert run(str(service.id), "--yes").exit_code == 2
    assert world.service().state == "active"


def test_what_is_not_delivered_yet_is_not_ended(life: Any) -> None:
    world = life([{"fault": "refuse", "operation": "create"}])
    world.send(given.order())
    with world.database.engine("api").begin() as tx:
        catalogue = CatalogueCache().current(tx)
        ids = [s.id for s in world.services()]
        assert ending.end(tx, ids, "abuse", catalogue, world.fleet.clock.now()) == []


@pytest.mark.parametrize("lines", [1, 2], ids=["alone", "beside another"])
@pytest.mark.parametrize("arrived", [True, False], ids=["taken", "declined"])
def test_a_charge_in_doubt_of_what_an_operator_ends_is_decided(
    life: Any, arrived: bool, lines: int
) -> None:
    world = life()
    first = world.order(*[given.line("site")] * lines)
    fault(world, "error", "charge")
    world.pass_until(first, -2.5)
    (charge,) = world.database.all(
        "SELECT c.key, c.amount, c.currency, m.token FROM charges AS c"
        " JOIN payment_methods AS m ON m.id = c.payment_method_id WHERE c.state = 'unknown'"
    )

    with world.database.engine("api").begin() as tx:
        catalogue = CatalogueCache().current(tx)
        assert ending.end(tx, [first.id], "abuse", catalogue, world.fleet.clock.now())
    world.fleet.settle(60)
    assert world.database.value("SELECT count(*) FROM charges WHERE state = 'unknown'") == 1
    accepts(world)
    if arrived:
        amount = Money(charge.amount, charge.currency)
        arrives(world, Charge(str(charge.key), amount, charge.token, "alice"))
    else:
        declines(world)
    with world.database.engine("api").begin() as tx:
        failed.retry(tx, failed.list_failed(tx))
    world.fleet.settle(60)

    states = [service.state for service in world.services()]
    assert sorted(states) == sorted(["terminated"] + ["active"] * (lines - 1))
    assert world.database.value("SELECT count(*) FROM refunds") == arrived
    assert world.database.value("SELECT count(*) FROM charges WHERE state = 'unknown'") == 0
    world.clean()
