"""Events for upstream: how soon they are there, and what they cost the order pipeline."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pika
from sqlalchemy import Engine, text

from autorenew.local.fleet import PrivateFleet
from benchmarks import orders
from producers.steps import WEBHOOKS
from schemas.events import EXCHANGE

SAMPLES = 200
WARM_UP = 10
TIMEOUT_SECONDS = 30.0
CAUGHT_UP_SECONDS = 120.0


def start(fleet: PrivateFleet) -> None:
    fleet.start_worker(WEBHOOKS, threads=1)
    fleet.wait_for_consumers()


def without(engine: Engine) -> None:
    """The history as it was before there were events."""
    with engine.begin() as tx:
        tx.execute(text("DROP TRIGGER events_transaction ON events"))
        tx.execute(text("DROP INDEX IF EXISTS events_outgoing"))


@contextmanager
def _queue(fleet: PrivateFleet) -> Iterator[tuple[Any, str]]:
    url = fleet.rabbitmq.url(vhost=fleet.vhost)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(name, EXCHANGE, "#")
    try:
        yield channel, name
    finally:
        connection.close()


def latency(fleet: PrivateFleet) -> list[float]:
    """Milliseconds of each event of orders that are delivered one by one, from when it was written
    to its consumer. It was written a little before its commit."""
    measured = []
    with _queue(fleet) as (channel, queue):
        for number in range(WARM_UP + SAMPLES):
            orders.place(fleet.owner, 1)
            is_delivered, end = False, time.monotonic() + TIMEOUT_SECONDS
            for method, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=1.0):
                now = time.time()
                if method is not None:
                    event = json.loads(body)
                    happened = datetime.fromisoformat(event["time"]).timestamp()
                    if number >= WARM_UP:
                        measured.append(round((now - happened) * 1000, 2))
                    is_delivered = event["type"].endswith("order.delivered")
                if is_delivered:
                    break
                if time.monotonic() > end:
                    raise TimeoutError(f"no event in {TIMEOUT_SECONDS:g} s")
    return measured


def catch_up(fleet: PrivateFleet) -> float:
    """Seconds until all events have gone out."""
    started = time.perf_counter()
    query = "SELECT (SELECT last_value FROM events_id_seq) - last_id FROM event_cursor"
    while fleet.scalar(query) > 1000:
        if time.perf_counter() - started > CAUGHT_UP_SECONDS:
            raise TimeoutError(f"events did not catch up in {CAUGHT_UP_SECONDS:g} s")
        time.sleep(0.05)
    return time.perf_counter() - started
