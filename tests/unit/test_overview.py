"""The console's verdict: whether customers are being served."""

from datetime import UTC, datetime, timedelta

import pytest

from autorenew.console.pages.lanes import Held, Queue
from autorenew.console.pages.overview import _judge
from autorenew.console.today import Audit
from producers.control.breakers import OpenLane
from producers.control.lanes import Lane
from schemas.values import OpenCause

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOLDS = Audit(NOON, {})


def queue(name: str, waits: timedelta) -> Queue:
    return Queue(name, (), 1, 0, 0, 0, NOON - waits)


def opened(lane: str, queue: str) -> Held:
    since = OpenLane(lane, OpenCause.FAILING, "HTTP 500", NOON, 1, NOON)
    return Held(Lane(lane, queue, 1, 0, 0, 0), since, None)


@pytest.mark.parametrize(
    ("lane", "on", "level"),
    [("driver:web", "web", "bad"), ("webhook:shop", "webhooks", "warning")],
)
def test_far_side_that_fails_keeps_customers_waiting_unless_it_is_an_upstreams_endpoint(
    lane: str, on: str, level: str
) -> None:
    waits = [queue(on, timedelta(minutes=20))]

    verdict = _judge(waits, [opened(lane, on)], 0, HOLDS, NOON)

    assert verdict.level == level
    assert [said for said, _ in verdict.because if lane in said]
    assert [said for said, _ in verdict.because if "20 min" in said]


def test_customers_are_served_where_nothing_waits() -> None:
    assert _judge([queue("web", timedelta())], [], 0, HOLDS, NOON).level == "good"
