"""Events for upstream while things are killed: at least once, none lost, in their sequence."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from sqlalchemy import text

from autorenew.local.fleet import Member, PrivateFleet
from autorenew.local.rabbitmq import PrivateRabbitMQ
from producers.control import webhooks
from producers.failpoints import NAMES
from producers.steps import WEBHOOKS
from schemas.events import EXCHANGE
from simulator.server import Running
from tests.chaos.test_faults import (
    TIMEOUT_SECONDS,
    assert_clean,
    ended,
    handler_processes,
    kill,
    send,
)
from tests.support.dying import start_groups
from tests.support.given import wait_until
from tests.support.receiver import Receiver
from workers.events.signing import new_secret

pytestmark = pytest.mark.rabbitmq

REALM = "upstream"
# A process is started again after each of some fourteen deaths.
DEATHS_SECONDS = 4 * TIMEOUT_SECONDS
QUEUE = "events.upstream.all"
WAITING = """SELECT count(*) FROM events AS e, event_cursor AS c
    WHERE e.id > c.last_id AND event_kind(e.id, e.name, e.detail) IS NOT NULL"""
OPEN = "SELECT count(*) FROM webhook_deliveries WHERE ended_at IS NULL"
FREE = "UPDATE event_cursor SET held_until = clock_timestamp() WHERE holder = :holder"
WANTED = "SELECT count(*) FROM events AS e WHERE event_kind(e.id, e.name, e.detail) IS NOT NULL"


@pytest.fixture
def fleet(fleet_of: Callable[..., PrivateFleet]) -> PrivateFleet:
    fleet = fleet_of(webhook_allowed_networks='["127.0.0.0/8"]')
    bind(fleet)
    return fleet


@pytest.fixture
def receiver(fleet: PrivateFleet) -> Iterator[Receiver]:
    """Of an endpoint that answers now and then only."""
    count = 0

    def answer(_request: Any) -> tuple[int, dict[str, str]]:
        nonlocal count
        count += 1
        return (500 if count % 7 == 0 else 204), {}

    with Receiver(answer) as receiver:
        with fleet.owner.begin() as tx:
            webhooks.add(tx, "shop", receiver.url(), REALM, [], new_secret())
        yield receiver


def bind(fleet: PrivateFleet) -> None:
    """As upstream does."""
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url("upstream")))
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(QUEUE, EXCHANGE, f"{REALM}.#")
    connection.close()


def read(fleet: PrivateFleet) -> list[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url("upstream")))
    channel = connection.channel()
    found = []
    while (got := channel.basic_get(QUEUE, auto_ack=True))[0] is not None:
        found.append(json.loads(got[2]))
    connection.close()
    return found


def start(fleet: PrivateFleet, groups: int = 2, **extra: str) -> list[Member]:
    """Returns those that tell of events."""
    fleet.start_intake()
    fleet.start_relay()
    for queues in (("orders",), ("billing",), ("web", "dedicated", "cloud", "telecom")):
        fleet.start_worker(*queues, threads=2)
    return start_groups(fleet, WEBHOOKS, name="worker-events", groups=groups, **extra)


def finish(fleet: PrivateFleet, receiver: Receiver, orders: int) -> None:
    """Wait until everything is told; check that nothing is missing, and all in its sequence."""
    fleet.wait_until(lambda: ended(fleet) == orders, TIMEOUT_SECONDS, "all orders end")
    fleet.wait_until_idle(TIMEOUT_SECONDS)
    fleet.wait_until(lambda: fleet.scalar(WAITING) == 0, TIMEOUT_SECONDS, "all is published")
    fleet.wait_until(lambda: fleet.scalar(OPEN) == 0, TIMEOUT_SECONDS, "all is delivered")
    events = read(fleet)
    wanted = fleet.scalar(WANTED)
    assert len({event["id"] for event in events}) == wanted
    assert {json.loads(r.body)["id"] for r in receiver.requests} == {e["id"] for e in events}
    first: dict[str, list[int]] = {}
    seen = set()
    for event in events:
        if event["id"] not in seen:
            seen.add(event["id"])
            first.setdefault(event["subject"], []).append(int(event["sequence"]))
    wrong = {s: n for s, n in first.items() if n != list(range(1, len(n) + 1))}
    assert wrong == {}
    assert_clean(fleet)


def all_is_told(fleet: PrivateFleet, tellers: list[Member]) -> Callable[[], bool]:
    """Whether all is told by now. What a dead publisher holds is free at once, not in six seconds;
    the test that kills all of them waits for that."""
    holder, deaths = None, 0

    def look() -> bool:
        nonlocal holder, deaths
        before, counted = deaths, sum(member.deaths for member in tellers)
        if counted > before:
            deaths = counted
            with fleet.owner.begin() as tx:
                tx.execute(text(FREE), {"holder": holder})
        holder = fleet.scalar("SELECT holder FROM event_cursor")
        return bool(fleet.scalar(WAITING) + fleet.scalar(OPEN) == 0)

    return look


def test_nothing_is_lost_wherever_a_publisher_is_killed(
    fleet: PrivateFleet, receiver: Receiver, simulator: Running, tmp_path: Any
) -> None:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    names = [name for name in NAMES if name.startswith(("events", "worker"))]
    tellers = start(fleet, 3, failpoints=str(folder))
    told = all_is_told(fleet, tellers)
    sent = 0
    while missing := {name for name in names if not (folder / name).exists()}:
        assert sent < 400, f"never visited: {sorted(missing)}"
        send(fleet, 8, f"batch{sent}")
        sent += 8
        fleet.wait_until(lambda total=sent: ended(fleet) == total, TIMEOUT_SECONDS, "orders end")
        fleet.wait_until(told, DEATHS_SECONDS, f"{missing}")
    finish(fleet, receiver, sent)
    assert sum(member.deaths for member in tellers) >= sum(n.startswith("events") for n in names)


def test_nothing_is_lost_when_all_is_killed_and_the_broker_restarts(
    fleet: PrivateFleet, receiver: Receiver, simulator: Running, rabbitmq: PrivateRabbitMQ
) -> None:
    start(fleet)
    for number in range(3):
        send(fleet, 40, f"batch{number}")
        wait_until(lambda n=number: ended(fleet) > 40 * n, "it goes on", 60)
        kill(handler_processes(fleet))
        fleet.members[("worker-events", "worker-events-2")[number % 2]].kill()
        if number == 1:
            rabbitmq.kill()
            rabbitmq.start()
        time.sleep(0.3)
    finish(fleet, receiver, 120)
