"""What is told of handler runs: lines in the log, and lines beside tasks that have failed."""

import logging
import uuid
from typing import Any

import pytest

from producers import correlation
from producers.correlation import Order
from tests.conftest import Database
from tests.support.given import line, order, wait_until

RUNS = "workers.runtime.runs"
STEPS = ("orders.price", "billing.charge", "cloud.converge")
DOWN = {"target": "infrastructure", "fault": "error", "plan": "vm", "times": 1000}


def runs(caplog: pytest.LogCaptureFixture, step: str) -> list[dict[str, Any]]:
    return [r.fields for r in caplog.records if r.name == RUNS and r.getMessage() == step]  # type: ignore[attr-defined]


def all_told(caplog: pytest.LogCaptureFixture, tasks: int) -> None:
    """A run is told of after its tasks have ended."""
    wait_until(
        lambda: all(sum(run["tasks"] for run in runs(caplog, step)) == tasks for step in STEPS),
        "every run is told of",
    )


def test_run_has_one_line_with_the_order_it_is_for(
    embedded: Any, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, RUNS)
    fleet = embedded()
    database.place(order("k-1", line("vm")))
    fleet.wait_until_idle(30)

    all_told(caplog, 1)
    for step in STEPS:
        (told,) = runs(caplog, step)
        assert (told["tasks"], told["done"], told["failed"]) == (1, 1, None)
        assert (told["orders"], told["upstreams"]) == ("k-1", "shop")
        assert told["seconds"] >= 0
        assert told["waited"] >= 0


def test_run_of_many_tasks_is_one_line_and_counts_them(
    embedded: Any, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, RUNS)
    fleet = embedded()
    database.place(*(order(f"k-{n}", line("vm")) for n in range(40)))
    fleet.wait_until_idle(30)

    all_told(caplog, 40)
    for step in STEPS:
        told = runs(caplog, step)
        assert sum(run["done"] for run in told) == 40
        assert all("orders" not in run for run in told if run["tasks"] > 3)


def test_each_step_of_a_renewal_says_which_service_and_request_it_is_about(
    life: Any, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, RUNS)
    world = life()
    service = world.order(line("vm"))
    caplog.clear()
    world.pass_until(service, -2.9)
    request = str(database.value("SELECT id FROM payment_requests WHERE order_id IS NULL"))
    wait_until(lambda: len(runs(caplog, "cloud.converge")) == 1, "the extension is told of")

    told = {
        step: runs(caplog, step)
        for step in ("reminders.remind", "billing.request", "billing.charge", "cloud.converge")
    }
    for step, ran in told.items():
        assert ran, step
        for run in ran:
            assert (run["tasks"], run["done"], run["failed"]) == (1, 1, None)
            assert (run["orders"], run["upstreams"]) == ("k-1", "shop"), step
            assert run["services"] == str(service.id), step
    assert told["billing.charge"][0]["requests"] == request
    assert told["billing.charge"][0]["subjects"] == request
    assert told["cloud.converge"][0]["requests"] == request
    assert told["cloud.converge"][0]["subjects"] == str(service.id)
    batches = [run["batch"] for ran in told.values() for run in ran]
    assert len(set(map(uuid.UUID, batches))) == len(batches)


def test_event_that_is_delivered_is_about_what_it_happened_to(
    embedded: Any, database: Database
) -> None:
    fleet = embedded()
    database.place(order("k-1", line("vm")))
    fleet.wait_until_idle(30)
    service = database.value("SELECT id FROM services")
    order_id = database.value("SELECT id FROM orders")
    database.run("""
        INSERT INTO webhook_endpoints (id, name, realm, url, kinds, secret)
        VALUES (gen_random_uuid(), 'shop', 'shop', 'https://x.example', '{}', 's')
    """)
    deliveries = [uuid.uuid4() for _ in range(3)]
    subjects = [f"service/{service}", f"order/{order_id}", "webhook/shop"]
    for id_, subject in zip(deliveries, subjects, strict=True):
        database.run(
            """
            INSERT INTO webhook_deliveries (id, endpoint_id, event, kind, subject, sequence)
            SELECT :id, e.id, gen_random_uuid(), 'x', :subject, 1 FROM webhook_endpoints AS e
            """,
            id=id_,
            subject=subject,
        )

    found = correlation.look_up(database.engine("events"), deliveries)
    assert set(found) == set(deliveries[:2])
    assert list(found[deliveries[0]].services) == [service]
    assert all(list(one.orders) == [Order("shop", "k-1")] for one in found.values())


def test_last_lines_stand_beside_a_task_that_has_failed(
    embedded: Any, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, RUNS)
    fleet = embedded([DOWN], breaker={"failures": 1000}, retry_attempts=3)
    database.place(order("k-1", line("vm")))
    fleet.wait_until_idle(30)

    lines = database.value("SELECT lines FROM tasks WHERE name = 'converge' AND state = 'failed'")
    assert 0 < len(lines) <= 20
    assert [
        n
        for n in (1, 2, 3)
        if any(f"attempt {n}: driver_unknown (HTTP 500)" in said for said in lines)
    ]
    assert "attempt 3: driver_unknown (HTTP 500)" in lines[-1]
    assert any("driver:cloud: PUT" in said and "HTTP 500" in said for said in lines)
    (warning,) = [r for r in caplog.records if "waits for a person" in r.getMessage()]
    assert warning.fields["order"] == "k-1"  # type: ignore[attr-defined]


def test_lines_go_when_the_task_is_done(embedded: Any, database: Database) -> None:
    fleet = embedded([{**DOWN, "times": 4}], breaker={"failures": 1000})
    database.place(order("k-1", line("vm")))
    fleet.wait_until_idle(30)

    assert database.value("SELECT count(*) FROM tasks") == 0
