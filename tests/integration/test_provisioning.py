"""Services are converged: the desired state is compared with the confirmed one."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from producers import ledger
from producers.control import failed
from producers.steps import CONVERGE, driver_place
from tests.conftest import Database
from tests.integration.test_billing import assert_clean, run
from tests.support.far_side import FarSide, answers
from tests.support.given import line, order, wait_until
from tests.support.operators import give_up
from workers.provisioning.drivers.http import HttpDriver
from workers.provisioning.drivers.port import DriverAnswer, DriverState, Operation


def want(database: Database, state: str) -> None:
    """Change the desired state of every service, as billing does."""
    with database.engine("billing").begin() as tx:
        rows = tx.exec_driver_sql(
            f"UPDATE services SET desired = '{state}', generation = generation + 1"
            " RETURNING id, universe, driver"
        ).all()
        ledger.enqueue(tx, CONVERGE, [(r.id, driver_place(r.universe, r.driver)) for r in rows])


def confirmed(database: Database) -> set[str]:
    return {row.confirmed for row in database.all("SELECT confirmed FROM services")}


def live(fleet: Any) -> list[tuple[str, str]]:
    return [(r["driver"], r["state"]) for r in fleet.simulator.simulator.store.resources(0, 100)]


def test_a_line_of_three_becomes_three_services_with_a_resource_each(
    embedded: Any, database: Database
) -> None:
    fleet = embedded()
    run(fleet, database, order("k-1", line("vm", quantity=3)))

    rows = database.all("SELECT unit, state, resource_id FROM services ORDER BY unit")
    assert [(unit, state) for unit, state, _ in rows] == [(n, "active") for n in (1, 2, 3)]
    assert len({resource for _, _, resource in rows}) == 3
    assert live(fleet) == [("cloud", "active")] * 3


def test_every_universe_has_its_own_queue_and_driver(embedded: Any, database: Database) -> None:
    fleet = embedded()
    run(fleet, database, order("k-1", line("site"), line("server"), line("vm"), line("phone")))

    assert sorted(live(fleet)) == [
        ("cloud", "active"),
        ("dedicated", "active"),
        ("telecom", "active"),
        ("web", "active"),
    ]


@pytest.mark.parametrize("fault", ["error", "hang_before", "hang_after", "late", "duplicate"])
def test_misbehaving_infrastructure_ends_with_one_resource_per_service(
    embedded: Any, database: Database, fault: str
) -> None:
    rules = [{"fault": fault, "target": "infrastructure", "seconds": 1.5, "times": 2}]
    fleet = embedded(rules)

    run(fleet, database, *(order(f"k-{n}", line("vm")) for n in range(4)))

    assert live(fleet) == [("cloud", "active")] * 4
    assert database.value("SELECT count(*) FROM orders WHERE state = 'delivered'") == 4


def test_refused_service_waits_for_a_person_who_may_retry_it(
    embedded: Any, database: Database
) -> None:
    fleet = embedded([{"fault": "refuse", "operation": "create"}])
    run(fleet, database, order("k-1"))
    assert database.all("SELECT state, reason FROM tasks") == [("failed", "driver_refused")]

    fleet.simulator.simulator.faults.clear()
    with database.engine("api").begin() as tx:
        failed.retry(tx, failed.list_failed(tx))
    fleet.wait_until_idle(30)

    assert database.value("SELECT state FROM orders") == "delivered"
    assert_clean(fleet, database)


def test_failed_service_cannot_be_cancelled_after_it_was_retried(
    embedded: Any, database: Database
) -> None:
    fleet = embedded([{"fault": "refuse", "operation": "create"}])
    run(fleet, database, order("k-1"))
    fleet.simulator.simulator.faults.clear()
    with database.engine("api").begin() as tx:
        (task,) = failed.list_failed(tx)
        failed.retry(tx, [task])
    fleet.wait_until_idle(30)

    with pytest.raises(failed.CannotCancel), database.engine("api").begin() as tx:
        give_up(tx, task.subject)


def test_cancelled_service_whose_create_was_in_doubt_leaves_no_resource(
    embedded: Any, database: Database
) -> None:
    """The create arrives after the refund; its resource is removed."""
    fleet = embedded([{"fault": "hang_after", "operation": "create", "seconds": 2, "times": 99}])
    database.place(order("k-1"))
    query = "SELECT count(*) FROM operations WHERE state = 'unknown'"
    wait_until(lambda: database.value(query) == 1, "the create is in doubt")
    database.run("UPDATE tasks SET state = 'failed', batched = false WHERE name = 'converge'")

    with database.engine("api").begin() as tx:
        give_up(tx, failed.list_failed(tx)[0].subject)
    fleet.wait_until_idle(30)

    assert live(fleet) == []
    assert database.value("SELECT state FROM orders") == "cancelled"
    assert_clean(fleet, database)


@pytest.mark.parametrize("fault", [None, "error", "hang_after", "late"])
def test_service_follows_changes_of_its_desired_state(
    embedded: Any, database: Database, fault: str | None
) -> None:
    fleet = embedded()
    run(fleet, database, order("k-1", line(quantity=2)))
    if fault:
        for operation in ("suspend", "resume", "terminate"):
            fleet.simulator.simulator.faults.add(
                {"fault": fault, "operation": operation, "seconds": 1.5}
            )

    for state in ("suspended", "active", "suspended", "absent"):
        want(database, state)
        fleet.wait_until_idle(30)
        assert confirmed(database) == {state}
        far = {state for _, state in live(fleet)}
        assert far == (set() if state == "absent" else {state})


def test_a_suspend_under_way_does_not_undo_the_resume_that_overtook_it(
    embedded: Any, database: Database
) -> None:
    fleet = embedded()
    run(fleet, database, order("k-1"))
    fleet.simulator.simulator.faults.add(
        {"fault": "late", "operation": "suspend", "seconds": 3, "times": 99}
    )

    want(database, "suspended")
    query = "SELECT count(*) FROM operations WHERE kind = 'suspend'"
    wait_until(lambda: database.value(query) == 1, "the suspend is under way")
    want(database, "active")
    fleet.wait_until_idle(30)

    assert live(fleet) == [("web", "active")]
    assert confirmed(database) == {"active"}


def test_service_without_a_configured_driver_fails_with_that_reason(
    embedded: Any, database: Database
) -> None:
    fleet = embedded(driver_urls={"web": "http://127.0.0.1:1"})
    database.place(order("k-1", line("vm")))
    fleet.wait_until_idle(30)

    (row,) = database.all("SELECT reason, error FROM tasks")
    assert row.reason == "no_such_driver"
    assert "'cloud'" in row.error


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (404, {"detail": "Not Found"}),
        (200, {"state": "absent", "generation": 1}),
        (200, {"state": "suspended", "generation": 1}),
        (200, {"state": "active", "generation": 0}),
        (200, {}),
        (204, {}),
    ],
)
def test_answer_without_the_resource_delivers_nothing(
    embedded: Any, database: Database, status: int, answer: dict[str, Any]
) -> None:
    with FarSide(answers(status, answer)) as far_side:
        fleet = embedded(driver_urls={"web": far_side.url}, retry_attempts=2)
        database.place(order("k-1"))
        fleet.wait_until_idle(30)

    assert database.value("SELECT state FROM services") == "delivering"
    assert database.value("SELECT state FROM tasks") == "failed"


def test_further_paid_period_is_extended_at_the_infrastructure(
    embedded: Any, database: Database
) -> None:
    fleet = embedded([{"fault": "late", "operation": "extend", "seconds": 1.5}])
    run(fleet, database, order("k-1"))
    (before,) = database.all("SELECT confirmed_until FROM services")

    database.run("UPDATE services SET paid_periods = 2")
    service = database.value("SELECT id FROM services")
    with database.engine("billing").begin() as tx:
        ledger.enqueue(tx, CONVERGE, [(service, driver_place("web", "web"))])
    fleet.wait_until_idle(30)

    (after,) = database.all("SELECT confirmed_until FROM services")
    assert after.confirmed_until > before.confirmed_until
    (far,) = fleet.simulator.simulator.store.resources(0, 9)
    assert far["paid_until"] == after.confirmed_until.isoformat()


def test_forged_subject_is_ignored(embedded: Any, database: Database) -> None:
    fleet = embedded()
    with database.owner.begin() as tx:
        for name, queue in (("converge", "web"), ("charge", "billing"), ("price", "orders"),
                            ("refund", "billing")):  # fmt: skip
            ledger.enqueue(tx, name, [(uuid.uuid4(), ledger.Place(queue, "x"))])

    fleet.wait_until_idle(30)

    assert database.value("SELECT count(*) FROM tasks") == 0


def test_creation_that_takes_long_is_called_off_when_nobody_wants_it_any_more(
    embedded: Any, database: Database
) -> None:
    slow = {"fault": "in_progress", "operation": "create", "seconds": 600.0}
    fleet = embedded([slow])
    database.place(order("k-1", line("vm")))
    begun = "SELECT count(*) FROM events WHERE name = 'operation.in_progress'"
    wait_until(lambda: database.value(begun) == 1, "it is begun")
    assert database.value("SELECT count(*) FROM batches WHERE state = 'leased'") == 0

    want(database, "absent")
    fleet.wait_until_idle(30)

    assert database.value("SELECT state FROM services") == "cancelled"
    assert live(fleet) == []
    assert_clean(fleet, database)


def test_answers_of_a_driver_of_another_package_are_written_down_within_bounds(
    embedded: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a driver that says too much: first that it is busy, then what it has built
    real, busy = HttpDriver.perform, iter([True])

    async def perform(self: HttpDriver, operation: Operation) -> DriverAnswer:
        if next(busy, False):
            nul = "\x00\x1b[31m" + "x" * 5000
            return DriverAnswer(DriverState.UNAVAILABLE, reason=nul, words=nul)
        answer = await real(self, operation)
        assert answer.resource is not None
        details = {"address": "192.0.2.7\x00", "root_pw": "hunter2", "long": "x" * 5000}
        details |= {f"n{number}": "x" for number in range(20)}
        named = f"{answer.resource.resource_id}\x00"
        resource = replace(answer.resource, resource_id=named, details=details)
        return replace(answer, resource=resource)

    monkeypatch.setattr(HttpDriver, "perform", perform)
    # When a service is built
    run(embedded(), database, order("k-1", line("vm")))
    # Then what can be kept is kept.
    (service,) = database.all("SELECT state, details, resource_id FROM services")
    assert service.state == "active"
    assert "\x00" not in service.resource_id
    assert service.details["address"] == "192.0.2.7"
    assert len(service.details["long"]) == 200
    assert len(service.details) == 10
    assert "root_pw" not in service.details
    (detail,) = database.all("SELECT detail FROM events WHERE name = 'operation.unavailable'")
    assert detail[0]["reason"] == "[31m" + "x" * 96
    assert detail[0]["words"] == "[31m" + "x" * 496
