"""What is told of handler runs: lines in the log, and lines beside tasks that have failed."""

import logging
from typing import Any

import pytest

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
        assert all(run["orders"] is None for run in told if run["tasks"] > 3)


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
