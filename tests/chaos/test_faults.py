"""A fleet of real processes, on a real broker and database, while things are killed.

After each fault the fleet finishes by itself and the audit is clean: no order lost, no double
charge, no double resource, compared with the far side's own books.
"""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pika
import pytest

from autorenew.local.fleet import Member, PrivateFleet, descendants
from monitoring.audit import audit
from producers.failpoints import NAMES
from producers.ledger.dispatching import Dispatch
from producers.relay.relay import Relay
from producers.relay.transport import RabbitTransport
from schemas.clock import SystemClock
from schemas.database import connect
from schemas.settings import Settings
from simulator.server import Running
from tests.support.dying import start_groups
from tests.support.given import body, line, order

pytestmark = pytest.mark.rabbitmq

PLANS = ("site", "server", "vm", "phone")
TIMEOUT_SECONDS = 90.0


@pytest.fixture
def fleet(fleet_of: Callable[..., PrivateFleet]) -> PrivateFleet:
    return fleet_of()


def send(fleet: PrivateFleet, count: int, prefix: str = "k", customer: str = "") -> None:
    """Publish documents with confirms to the exchange ``intake``, as upstream does."""
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url("upstream")))
    channel = connection.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(user_id="upstream", delivery_mode=2)
    for n in range(count):
        document = order(
            f"{prefix}-{n}",
            line(PLANS[n % 4], quantity=1 + n % 3),
            customer=customer or f"{prefix}-{n % 50}",
        )
        channel.basic_publish("intake", "", body(document), properties, mandatory=True)
    connection.close()


def ended(fleet: PrivateFleet) -> int:
    return int(fleet.scalar("SELECT count(*) FROM orders WHERE ended_at IS NOT NULL"))


def finish(fleet: PrivateFleet, orders: int, simulator: Running) -> None:
    """Wait until every order that was sent has ended; check that all books agree."""
    query = "SELECT count(*) FROM orders"
    fleet.wait_until(lambda: fleet.scalar(query) == orders, TIMEOUT_SECONDS, "all are taken in")
    fleet.wait_until_idle(TIMEOUT_SECONDS)
    failed = fleet.scalar(
        "SELECT json_agg(DISTINCT ARRAY[name, reason, error]) FROM tasks WHERE state = 'failed'"
    )
    assert fleet.scalar("SELECT count(*) FROM orders WHERE state = 'delivered'") == orders, failed
    assert_clean(fleet)


def assert_clean(fleet: PrivateFleet) -> None:
    with fleet.owner.connect() as tx:
        findings = audit(tx, fleet.books())
    assert [(f.invariant, f.ids) for f in findings if f.broken] == []


def workers(fleet: PrivateFleet) -> list[Member]:
    return [member for name, member in fleet.members.items() if name.startswith("worker")]


def handler_processes(fleet: PrivateFleet) -> list[int]:
    """The processes that run handlers: the leaves below each launcher."""
    return [
        pid
        for member in workers(fleet)
        for pid in descendants(member.pid)
        if not list(descendants(pid))
    ]


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it died by itself


def test_every_failpoint_is_visited_and_nothing_is_lost(
    fleet: PrivateFleet, simulator: Running, tmp_path: Any
) -> None:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    armed = {"failpoints": str(folder)}
    fleet.start_intake(**armed)
    fleet.start_relay(**armed)
    # The first of them to work dies most often.
    for queues, groups in ((("orders",), 3), (("billing",), 2), (PLANS_QUEUES, 1)):
        start_groups(fleet, *queues, groups=groups, **armed)

    sent = 0
    names = [name for name in NAMES if not name.startswith(("scheduler", "bulk", "events"))]
    while missing := {name for name in names if not (folder / name).exists()}:
        assert sent < 2000, f"never visited: {sorted(missing)}"
        send(fleet, 40, f"batch{sent}")
        sent += 40
        fleet.wait_until(
            lambda total=sent: ended(fleet) == total, TIMEOUT_SECONDS, f"end; missing {missing}"
        )

    finish(fleet, sent, simulator)
    deaths = sum(member.deaths for member in fleet.members.values())
    assert deaths >= sum(name.startswith(("intake", "relay")) for name in names)


PLANS_QUEUES = ("web", "dedicated", "cloud", "telecom")


class Twice(RabbitTransport):
    """A transport that delivers every message twice."""

    messages = 0

    def publish(self, batch: Sequence[Dispatch]) -> set[str]:
        self.messages += len(batch)
        return super().publish([*batch, *batch])


def test_message_that_is_delivered_twice_does_nothing_the_second_time(
    fleet: PrivateFleet, simulator: Running
) -> None:
    fleet.start_intake()
    for queues in (("orders",), ("billing",), PLANS_QUEUES):
        fleet.start_worker(*queues, threads=4)
    engine = connect(fleet.database_url("relay"))
    transport = Twice(fleet.broker_url("relay"))
    relay = Relay(engine, transport, Settings(calls_at_once=3), SystemClock())
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        send(fleet, 150)
        finish(fleet, 150, simulator)
        assert transport.messages > 50
    finally:
        relay.stop()
        thread.join(20)
        engine.dispose()


def test_worker_that_freezes_during_a_call_and_wakes_up_too_late_does_no_harm(
    fleet: PrivateFleet, simulator: Running
) -> None:
    simulator.simulator.faults.add({"fault": "slow", "operation": "charge", "seconds": 0.7})
    fleet.start_all(threads=1)
    send(fleet, 6)
    query = "SELECT count(*) FROM charges WHERE state = 'started'"
    fleet.wait_until(lambda: fleet.scalar(query) > 0, TIMEOUT_SECONDS, "charges are under way")
    billing = fleet.members["worker-billing"]
    frozen = [pid for pid in descendants(billing.pid) if not list(descendants(pid))]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        fleet.start_worker("billing", name="worker-billing-2", threads=2)
        fleet.wait_until(lambda: ended(fleet) == 6, TIMEOUT_SECONDS, "the other one takes over")
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    send(fleet, 6, "afterwards")

    finish(fleet, 12, simulator)


POISON = '''
"""Loaded by every Python process of the fleet: customer `killer` kills who works for it."""
import os
from workers.orders import price as module

original = module.price

def price(order, *rest):
    if order.customer_id == "killer":
        os.kill(os.getpid(), 9)
    return original(order, *rest)

module.price = price
'''


def test_a_subject_that_kills_its_process_fails_alone(
    fleet_of: Callable[..., PrivateFleet],
    simulator: Running,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = fleet_of(lease_seconds="2")  # a task whose worker has died is free when it is over
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "sitecustomize.py").write_text(POISON)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "poison"), prepend=os.pathsep)
    fleet.start_all(threads=4)
    fleet.start_worker("orders", name="worker-orders-2")
    monkeypatch.undo()
    send(fleet, 30)
    send(fleet, 1, "poison", customer="killer")
    send(fleet, 30, "more")

    query = "SELECT count(*) FROM tasks WHERE state = 'failed'"
    fleet.wait_until(lambda: fleet.scalar(query) == 1, TIMEOUT_SECONDS, "it is set aside")
    fleet.wait_until_idle(TIMEOUT_SECONDS)

    assert fleet.scalar("SELECT name || ' ' || reason FROM tasks") == "price crashed"
    assert fleet.scalar("SELECT count(*) FROM orders WHERE state = 'delivered'") == 60
    key = "SELECT key FROM orders JOIN tasks ON tasks.subject = orders.id"
    assert fleet.scalar(key) == "poison-0"
    assert_clean(fleet)
