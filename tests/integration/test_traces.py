"""One order is one trace, from the door to the driver's call, as a collector receives it."""

import logging
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.conftest import Database
from tests.support import given
from tests.support.collector import Collector, attributes, collecting
from tests.support.given import line, order, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def test_one_order_is_one_trace(embedded: Any, database: Database, collector: Collector) -> None:
    fleet = embedded(traces_url=collector.url)
    bodies = [given.body(order("k-1", line("vm", quantity=2))), given.body(order("k-2"))]
    fleet.intake.place("shop", "python", bodies, [PARENT, None])
    fleet.wait_until_idle(30)
    collector.flush()

    spans = {span.span_id: span for span in collector.of_trace(TRACE)}
    names = [span.name for span in spans.values()]
    assert names.count("take document") == 1
    for name, count in (("orders.price", 1), ("billing.charge", 1), ("cloud.converge", 2)):
        assert names.count(name) == count, names
    assert names.count("billing.charge call") == 1
    assert names.count("cloud.converge call") == 2

    # Every span of it hangs together: but for the door's, its parent is in the trace as well.
    (door,) = [span for span in spans.values() if span.name == "take document"]
    assert door.parent_span_id.hex() == "00f067aa0ba902b7"
    assert all(s.parent_span_id in spans for s in spans.values() if s is not door)

    # What went over the wire to gateway and infrastructure.
    called = [s for s in spans.values() if s.name == "PUT" or s.name == "POST"]
    assert len(called) >= 3
    assert all(spans[span.parent_span_id].name.endswith(" call") for span in called)


def test_far_side_gets_the_context_of_its_call(
    embedded: Any, database: Database, collector: Collector
) -> None:
    fleet = embedded(traces_url=collector.url)
    seen: list[str] = []

    class Look:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"].startswith("/infrastructure"):
                seen.append(dict(scope["headers"]).get(b"traceparent", b"").decode())
            await self._app(scope, receive, send)

    fleet.simulator.simulator.app.add_middleware(Look)
    fleet.intake.place("shop", "python", [given.body(order("k-1"))], [PARENT])
    fleet.wait_until_idle(30)

    assert seen
    assert {traceparent.split("-")[1] for traceparent in seen} == {TRACE}


def test_batch_links_to_the_orders_it_holds(
    embedded: Any, database: Database, collector: Collector
) -> None:
    fleet = embedded(traces_url=collector.url)
    bodies = [given.body(order(f"k-{n}")) for n in range(5)]
    fleet.intake.place("shop", "python", bodies, [PARENT, OTHER, None, None, "nonsense"])
    fleet.wait_until_idle(30)
    collector.flush()

    linked = defaultdict(set)
    for span in collector.spans:
        if span.name == "orders.price batch":
            linked[span.trace_id].update(link.trace_id.hex() for link in span.links)
    traces = set().union(*linked.values())
    assert len(traces) == 5
    assert {TRACE, OTHER.split("-")[1]} < traces


def test_context_of_upstream_is_kept_where_nothing_is_traced(
    embedded: Any, database: Database
) -> None:
    fleet = embedded()
    bodies = [given.body(order(f"k-{n}")) for n in range(3)]
    fleet.intake.place("shop", "python", bodies, [PARENT, "00-" + "0" * 32 + "-x-01", None])
    fleet.wait_until_idle(30)

    kept = {row.key: row.trace for row in database.all("SELECT key, trace FROM orders")}
    assert kept == {"k-0": PARENT, "k-1": None, "k-2": None}


@pytest.fixture
def lookups() -> Iterator[list[str]]:
    """The statements that ask for what is behind tasks."""
    seen: list[str] = []

    def see(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "work_behind" in statement:
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", see)
    yield seen
    event.remove(Engine, "before_cursor_execute", see)


def test_contexts_are_looked_up_once_a_batch(
    embedded: Any,
    database: Database,
    collector: Collector,
    lookups: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "workers.runtime.runs")
    fleet = embedded(traces_url=collector.url)
    database.place(*(order(f"k-{n}") for n in range(40)))
    fleet.wait_until_idle(30)

    def batches() -> list[Any]:
        collector.flush()
        return [span for span in collector.spans if span.name.endswith(" batch")]

    wait_until(lambda: len(batches()) == len(lookups), "each run has ended")
    tasks = sum(attributes(span)["tasks"] for span in batches())
    assert tasks >= 3 * 40  # priced, charged, delivered
    assert len(lookups) < tasks


def test_nothing_is_looked_up_where_nothing_is_traced(
    embedded: Any, database: Database, lookups: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "workers.runtime.runs")
    fleet = embedded()
    database.place(*(order(f"k-{n}") for n in range(4)))
    fleet.wait_until_idle(30)
    assert database.value("SELECT count(*) FROM services WHERE state = 'active'") == 4
    assert not lookups
