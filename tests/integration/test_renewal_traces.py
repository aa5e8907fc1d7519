"""One renewal is one trace, from its first reminder to the driver's call."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from producers.control import failed
from producers.control.selection import TaskId as Tried
from tests.conftest import Database
from tests.support import given
from tests.support.api import Client, make_key
from tests.support.collector import Collector, attributes, collecting, links
from tests.support.given import line

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def traces_of(database: Database) -> list[str]:
    """The ids of the traces of renewals, the oldest first."""
    rows = database.all("SELECT trace FROM renewals ORDER BY service_id, period_number")
    return [row.trace.split("-")[1] for row in rows]


def names(spans: list[Any]) -> Counter[str]:
    return Counter(span.name for span in spans)


def test_a_renewal_is_one_trace_from_its_reminder_to_its_extension(
    life: Any, database: Database, collector: Collector
) -> None:
    world = life(traces_url=collector.url)
    service = world.order(line("vm"))
    world.pass_until(service, -2.9)
    assert world.service().paid_periods == 2
    collector.flush()

    (trace,) = traces_of(database)
    spans = {span.span_id: span for span in collector.of_trace(trace)}
    seen = names(list(spans.values()))
    assert seen["begin renewal"] == 1
    assert seen["reminders.remind"] >= 1
    for name in ("billing.request", "billing.charge", "billing.charge call"):
        assert seen[name] == 1, seen
    assert seen["cloud.converge"] >= 1
    assert seen["cloud.converge call"] == 1
    assert seen["PUT"] + seen["POST"] >= 2  # the gateway's and the driver's

    # It hangs together, and it is not the order's, but tells of it.
    (root,) = [span for span in spans.values() if span.name == "begin renewal"]
    assert root.parent_span_id == b""
    assert all(s.parent_span_id in spans for s in spans.values() if s is not root)
    order_trace = database.value("SELECT trace FROM orders").split("-")[1]
    assert order_trace != trace
    assert links(root) == {order_trace}
    assert attributes(root) == {"because": "reminder", "service": str(service.id), "period": 2}


def test_each_service_of_one_payment_request_has_the_charge_in_its_trace(
    life: Any, database: Database, collector: Collector
) -> None:
    world = life(traces_url=collector.url)
    service = world.order(line("vm", quantity=3))
    world.pass_until(service, -2.9)
    collector.flush()

    traces = traces_of(database)
    assert len(set(traces)) == 3
    calls = []
    for trace in traces:
        spans = collector.of_trace(trace)
        seen = names(spans)
        assert seen["billing.request"] == seen["billing.charge"] == 1, seen
        assert seen["cloud.converge call"] == 1
        calls += [span for span in spans if span.name == "billing.charge call"]
    # There was one call for all: it is in one trace, and linked to the others.
    (call,) = calls
    assert {call.trace_id.hex()} | links(call) == set(traces)


def test_the_next_renewal_is_another_trace(
    life: Any, database: Database, collector: Collector
) -> None:
    world = life(traces_url=collector.url)
    service = world.order()
    world.pass_until(service, -2.9)
    world.pass_until(world.service(), -2.9)
    assert world.service().paid_periods == 3
    collector.flush()

    first, second = traces_of(database)
    assert first != second
    assert names(collector.of_trace(second))["billing.charge"] == 1
    assert names(collector.of_trace(first))["billing.charge"] == 1


def test_a_renewal_that_upstream_asks_for_is_in_the_trace_of_its_command(
    life: Any, database: Database, collector: Collector
) -> None:
    world = life(traces_url=collector.url)
    service = world.order(line("vm"))
    wanted = [{"id": str(service.id), "expires_on": world.expiry(service).isoformat()}]
    body = given.body({"command": "renew", "customer": "alice", "services": wanted})
    (answer,) = world.fleet.intake.place("shop", "python", [body], [PARENT])
    assert answer.verdict == "accepted", answer
    world.fleet.settle(30)
    assert world.service().paid_periods == 2
    collector.flush()

    assert traces_of(database) == [TRACE]
    seen = names(collector.of_trace(TRACE))
    assert seen["take document"] == seen["begin renewal"] == seen["billing.charge call"] == 1, seen
    assert seen["cloud.converge call"] == 1


def test_a_renewal_that_upstream_asks_for_over_http_is_in_the_trace_of_its_request(
    life: Any, database: Database, collector: Collector
) -> None:
    world = life(traces_url=collector.url)
    service = world.order()
    client = Client(world.fleet.serve_api().url, make_key(world.fleet.engine("api"), "shop-key"))
    body = {"expires_on": world.expiry(service).isoformat()}
    path = f"/v1/services/{service.id}:renew"
    assert client("POST", path, body, traceparent=PARENT).json == {"changed": True}
    client.close()
    world.fleet.settle(30)
    collector.flush()

    assert traces_of(database) == [TRACE]
    assert names(collector.of_trace(TRACE))["billing.charge call"] == 1


def test_a_renewal_that_began_untraced_is_traced_from_its_request_on(
    life: Any, database: Database, collector: Collector
) -> None:
    world = life(traces_url=collector.url)
    service = world.order(line("vm"))
    world.pass_until(service, -5)
    database.run("UPDATE renewals SET trace = NULL")
    world.pass_until(service, -2.9)
    collector.flush()

    (trace,) = traces_of(database)
    spans = collector.of_trace(trace)
    (root,) = [span for span in spans if span.name == "begin renewal"]
    assert attributes(root)["because"] == "request"
    assert names(spans)["billing.charge"] == names(spans)["cloud.converge call"] == 1


def test_nothing_is_kept_or_asked_where_nothing_is_traced(life: Any, database: Database) -> None:
    world = life()
    service = world.order()
    world.pass_until(service, -2.9)
    assert world.service().paid_periods == 2
    assert [row.trace for row in database.all("SELECT trace FROM renewals")] == [None]


def test_retry_of_a_failed_task_is_seen_in_the_trace_of_its_order(
    embedded: Any, database: Database, collector: Collector
) -> None:
    down = {"target": "infrastructure", "fault": "error", "plan": "vm", "times": 1000}
    fleet = embedded([down], traces_url=collector.url, breaker={"failures": 1000})
    fleet.intake.place("shop", "python", [given.body(given.order("k-1", line("vm")))], [PARENT])
    fleet.wait_until_idle(30)
    fleet.simulator.simulator.faults.clear()
    tasks = [Tried(row.name, row.subject) for row in database.all("SELECT * FROM tasks")]
    with fleet.engine("api").begin() as tx:
        assert len(failed.retry(tx, tasks)) == 1
    fleet.wait_until_idle(30)
    collector.flush()

    (retry,) = [span for span in collector.spans if span.name == "retry failed tasks"]
    assert links(retry) == {TRACE}
    (seen,) = [s for s in collector.of_trace(TRACE) if s.name == "retry failed task"]
    assert links(seen) == {retry.trace_id.hex()}
    # Each attempt before and after it is in the same trace.
    assert names(collector.of_trace(TRACE))["cloud.converge"] >= 4 + 1
