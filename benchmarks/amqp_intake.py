"""How fast one process takes documents from the queue `intake`: from the broker to the commit."""

import time
from collections.abc import Callable

import pika
from sqlalchemy import text

from autorenew.local.fleet import PrivateFleet
from benchmarks.orders import documents
from producers.topology import INTAKE_EXCHANGE, INTAKE_QUEUE

TIMEOUT_SECONDS = 300.0
_COUNT = text("SELECT count(*) FROM orders")


def publish(fleet: PrivateFleet, count: int) -> int:
    """Have orders wait in the queue; returns how many."""
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url("upstream")))
    channel = connection.channel()
    properties = pika.BasicProperties(user_id="upstream", delivery_mode=2)
    for body in documents(count, 1):
        channel.basic_publish(INTAKE_EXCHANGE, "", body, properties)
    connection.close()
    fleet.wait_until(lambda: _waiting(fleet) == count, 60, "all documents wait in the queue")
    return count


def run(fleet: PrivateFleet, count: int, watch: Callable[[int], None]) -> tuple[int, float]:
    """Start one intake, and see it take them.

    Returns:
        How many it took in how many seconds, from its first commit on: not how long it took to
        start.
    """
    fleet.start_intake()
    first, started = 0, 0.0
    end = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < end:
        with fleet.owner.connect() as tx:
            done = int(tx.execute(_COUNT).scalar_one())
        if done and not first:
            first, started = done, time.perf_counter()
        watch(done)
        if done == count:
            return count - first, time.perf_counter() - started
        time.sleep(0.02)
    raise TimeoutError(f"{done} of {count} documents after {TIMEOUT_SECONDS:g} s")


def _waiting(fleet: PrivateFleet) -> int:
    admin = pika.BlockingConnection(pika.URLParameters(fleet.rabbitmq.url(vhost=fleet.vhost)))
    declared = admin.channel().queue_declare(INTAKE_QUEUE, passive=True)
    admin.close()
    return int(declared.method.message_count)
