"""One order at a time on an idle fleet: from the publish to the last delivery."""

import time
from collections.abc import Sequence

import pika
from sqlalchemy import text

from autorenew.local.fleet import PrivateFleet
from benchmarks.orders import documents
from producers.topology import INTAKE_EXCHANGE

SAMPLES = 200
WARM_UP = 20
TIMEOUT_SECONDS = 30.0


def run(fleet: PrivateFleet) -> list[float]:
    """Milliseconds of each order, from before its publish to the event that it was delivered.

    The event's time is the database's, on the same machine.
    """
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url("upstream")))
    channel = connection.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(user_id="upstream", delivery_mode=2)
    measured = []
    for number, body in enumerate(documents(WARM_UP + SAMPLES, 1)):
        started = time.time()
        channel.basic_publish(INTAKE_EXCHANGE, "", body, properties, mandatory=True)
        delivered = _wait(fleet, number + 1)
        if number >= WARM_UP:
            measured.append(round((delivered - started) * 1000, 2))
    connection.close()
    return measured


def _wait(fleet: PrivateFleet, count: int) -> float:
    """When the ``count``-th order was delivered, in seconds since 1970."""
    query = text(
        "SELECT count(*), extract(epoch FROM max(at))::float8 FROM events"
        " WHERE name = 'order.delivered'"
    )
    end = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < end:
        with fleet.owner.connect() as tx:
            done, last = tx.execute(query).one()
        if done == count:
            return float(last)
        time.sleep(0.01)
    raise TimeoutError(f"order {count} was not delivered in {TIMEOUT_SECONDS:g} s")


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
