"""An operator's suspension stands beside the one for want of payment."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli.services import service as command
from monitoring.forecast import By, forecast
from producers.control import suspending
from producers.control.suspending import Verdict
from schemas.catalogue.store import CatalogueCache
from tests.integration.test_renewals import accepts, declines
from tests.support import given


class Operator:
    """What an operator does to the services of a life."""

    def __init__(self, world: Any) -> None:
        self.world = world

    def suspend(self, *services: Any, reason: str = "abuse") -> dict[Any, Verdict]:
        return self._do(services, suspending.suspend, reason)

    def unsuspend(self, *services: Any) -> dict[Any, Verdict]:
        return self._do(services, suspending.unsuspend)

    def _do(self, services: Any, change: Callable[..., Any], *words: str) -> dict[Any, Verdict]:
        ids = [s.id for s in services or self.world.services()]
        with self.world.database.engine("api").begin() as tx:
            catalogue = CatalogueCache().current(tx)
            became: dict[Any, Verdict] = change(
                tx, ids, *words, catalogue, self.world.fleet.clock.now()
            )
        self.world.fleet.settle(30)
        return became


@pytest.fixture
def given_life(life: Any) -> Callable[..., Any]:
    def start(*lines: Any) -> tuple[Any, Operator, Any]:
        world = life()
        return world, Operator(world), world.order(*lines)

    return start


def at_the_infrastructure(world: Any) -> list[str]:
    resources = world.fleet.simulator.simulator.store.resources(0, 10)
    return sorted(resource["state"] for resource in resources)


def test_an_operator_suspends_a_service_and_lifts_that_again(given_life: Any) -> None:
    world, operator, service = given_life()

    assert operator.suspend(reason="phishing, ticket 4711") == {service.id: Verdict.CHANGED}
    held = world.service()
    assert (held.state, held.desired, held.held_because) == (
        "suspended", "suspended", "phishing, ticket 4711",
    )  # fmt: skip
    assert held.suspended_at is None
    assert at_the_infrastructure(world) == ["suspended"]
    world.clean()

    assert operator.unsuspend() == {service.id: Verdict.CHANGED}
    freed = world.service()
    assert (freed.state, freed.held_at, freed.held_because) == ("active", None, None)
    assert at_the_infrastructure(world) == ["active"]
    assert [detail for _, detail in world.happened("service.%suspending")] == [
        {"reason": "operator", "because": "phishing, ticket 4711", "is_unpaid": False},
        {"reason": "operator", "is_unpaid": False},
    ]
    world.clean()


def test_a_service_that_is_suspended_by_an_operator_renews_and_stays_suspended(
    given_life: Any,
) -> None:
    world, operator, first = given_life()
    operator.suspend()

    world.pass_until(first, 25)

    renewed = world.service()
    assert (renewed.state, renewed.desired, renewed.paid_periods) == ("suspended", "suspended", 2)
    assert renewed.confirmed_until > first.confirmed_until
    assert {"before-15"} <= {
        kind for _, detail in world.happened("notice.sent") for kind in detail["kinds"]
    }
    assert world.happened("service.suspending")[0].detail["reason"] == "operator"
    world.clean()


def test_unpaid_and_suspended_by_an_operator_a_payment_does_not_lift_it(given_life: Any) -> None:
    world, operator, first = given_life()
    operator.suspend()
    declines(world)
    world.pass_until(first, 8)
    unpaid = world.service()
    assert unpaid.suspended_at is not None
    assert unpaid.next_step in ("remind", "terminate")
    accepts(world)

    assert world.renew().verdict == "accepted"
    paid = world.service()
    assert (paid.state, paid.paid_periods, paid.suspended_at) == ("suspended", 2, None)
    assert at_the_infrastructure(world) == ["suspended"]
    world.clean()

    operator.unsuspend()
    assert world.service().state == "active"
    world.clean()


@pytest.mark.parametrize("unpaid_first", [True, False])
def test_lifting_it_does_not_forgive_what_is_unpaid(given_life: Any, unpaid_first: bool) -> None:
    world, operator, first = given_life()
    declines(world)
    if not unpaid_first:
        operator.suspend()
    world.pass_until(first, 8)
    if unpaid_first:
        operator.suspend()
    world.clean()

    operator.unsuspend()

    still = world.service()
    assert (still.state, still.desired, still.held_at) == ("suspended", "suspended", None)
    assert still.suspended_at is not None
    accepts(world)
    assert world.renew().verdict == "accepted"
    assert world.service().state == "active"
    world.clean()


def test_an_unpaid_service_that_an_operator_suspended_is_terminated_after_its_notices(
    given_life: Any,
) -> None:
    world, operator, first = given_life()
    operator.suspend()
    declines(world)

    world.pass_until(first, 29)
    assert world.service().state == "suspended"
    world.pass_until(first, 33)

    assert world.service().state == "terminated"
    assert [d["reason"] for _, d in world.happened("service.ending")] == ["unpaid"]
    kinds = {kind for _, detail in world.happened("notice.sent") for kind in detail["kinds"]}
    assert "suspended" in kinds
    world.clean()


def test_a_stop_of_a_service_that_an_operator_suspended_is_carried_out(given_life: Any) -> None:
    world, operator, first = given_life()
    operator.suspend()

    assert world.click("stop").verdict == "accepted"
    world.pass_until(first, 1)

    assert world.service().state == "terminated"
    world.clean()


def test_a_suspension_that_was_lifted_before_it_was_done_does_not_come_late(
    given_life: Any,
) -> None:
    world, _, _ = given_life()
    ids = [s.id for s in world.services()]
    with world.database.engine("api").begin() as tx:
        catalogue, now = CatalogueCache().current(tx), world.fleet.clock.now()
        suspending.suspend(tx, ids, "abuse", catalogue, now)
        suspending.unsuspend(tx, ids, catalogue, now)
    world.fleet.settle(30)

    assert world.service().state == "active"
    assert at_the_infrastructure(world) == ["active"]
    world.clean()


def test_what_is_not_there_is_not_suspended(life: Any) -> None:
    world = life([{"fault": "refuse", "operation": "create", "customer": "bob"}])
    operator = Operator(world)
    first = world.order()
    world.send(given.order("k-2", customer="bob"))
    undelivered = next(s for s in world.services() if s.customer_id == "bob")

    assert operator.suspend(first, undelivered) == {
        first.id: Verdict.CHANGED, undelivered.id: Verdict.NOT_DELIVERED,
    }  # fmt: skip
    assert operator.suspend(first, reason="another") == {first.id: Verdict.SUSPENDED_ALREADY}
    assert operator.unsuspend(undelivered) == {undelivered.id: Verdict.NOT_DELIVERED}
    assert operator.unsuspend(first) == {first.id: Verdict.CHANGED}
    assert operator.unsuspend(first) == {first.id: Verdict.NOT_SUSPENDED}
    world.click("stop", first)
    world.pass_until(first, 1)
    assert operator.suspend(first) == {first.id: Verdict.ENDED}


@pytest.fixture
def cli(given_life: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def start(*lines: Any) -> tuple[Any, Callable[..., Result]]:
        world, _, _ = given_life(*lines)
        monkeypatch.setenv("AUTORENEW_CLOCK", "virtual")

        def run(*words: str, role: str = "api") -> Result:
            url = world.database.engine(role).url.set(drivername="postgresql")
            monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.render_as_string(hide_password=False))
            result = CliRunner().invoke(command, [*words])
            world.fleet.settle(30)
            return result

        return world, run

    return start


def test_the_command_line_says_what_became_of_each_and_why_it_is_suspended(cli: Any) -> None:
    world, run = cli(given.line(quantity=2))
    one, two = (str(s.id) for s in world.services())

    first = run("suspend", one, "--reason", "abuse")
    assert (first.exit_code, first.stdout) == (0, "1 of 1 services are being suspended\n")
    both = run("suspend", one, two, "--reason", "dispute", "--json")
    assert both.exit_code == 1
    assert [json.loads(line) for line in both.stdout.splitlines()] == [
        {"service": one, "verdict": "suspended_already"},
        {"service": two, "verdict": "changed"},
    ]
    shown = json.loads(run("show", one, "--json", role="readonly").stdout)
    assert (shown["state"], shown["suspended_because"]) == ("suspended", "abuse")
    assert shown["suspended_by_operator"]
    assert shown["suspended_unpaid"] is None
    lines = run("list", "--suspended", "--json", role="readonly").stdout.splitlines()
    listed = map(json.loads, lines)
    assert {row["service"]: row["suspended_because"] for row in listed} == {
        one: "abuse", two: "dispute",
    }  # fmt: skip

    lifted = run("unsuspend", one, two)
    assert (lifted.exit_code, lifted.stdout) == (
        0, "2 of 2 services are not suspended by an operator any more\n",
    )  # fmt: skip
    again = run("unsuspend", one)
    assert (again.exit_code, again.stderr) == (1, f"{one}: not_suspended\n")


def test_the_command_line_wants_a_reason(cli: Any) -> None:
    world, run = cli()
    service = str(world.service().id)
    assert run("suspend", service).exit_code == 2
    assert "it says nothing" in run("suspend", service, "--reason", " ").stderr
    assert run("list").exit_code == 2
    assert world.service().state == "active"


def test_the_forecast_counts_what_an_operator_has_suspended(given_life: Any) -> None:
    world, operator, _ = given_life(given.line(quantity=2))
    operator.suspend(world.services()[0])
    today = world.fleet.clock.now().date()

    with world.database.engine("readonly").connect() as tx:
        (row,) = forecast(tx, today=today, until=today.replace(year=today.year + 1), by=By.MONTH)

    assert (row.decision, row.services, row.held) == ("will_renew", 2, 1)


def test_what_is_paid_while_it_is_being_resumed_is_not_unpaid_when_an_operator_suspends_it(
    given_life: Any,
) -> None:
    world, operator, first = given_life()
    declines(world)
    world.pass_until(first, 8)
    accepts(world)
    world.fleet.simulator.simulator.faults.add(
        {"fault": "refuse", "operation": "resume", "times": 10_000}
    )
    world.renew()
    resuming = world.service()
    assert (resuming.state, resuming.desired) == ("suspended", "active")

    operator.suspend()
    assert world.service().suspended_at is None
    accepts(world)
    operator.unsuspend()

    assert world.service().state == "active"
    world.clean()


def test_an_operator_suspends_what_is_being_suspended_for_want_of_payment(given_life: Any) -> None:
    world, operator, first = given_life()
    declines(world)
    world.fleet.simulator.simulator.faults.add(
        {"fault": "refuse", "operation": "suspend", "times": 10_000}
    )
    world.pass_until(first, 6)
    suspending_ = world.service()
    assert (suspending_.state, suspending_.desired) == ("active", "suspended")

    operator.suspend()
    assert world.service().suspended_at is not None
    accepts(world)
    operator.unsuspend()

    assert world.service().desired == "suspended"
    world.renew()
    assert world.service().desired == "active"
