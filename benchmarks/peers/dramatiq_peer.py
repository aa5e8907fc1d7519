"""The peer on plain Dramatiq 2.2: start its workers, give it orders, stop it.

The defaults are the best of what was tried; the table is in README.md beside this file.
"""

import uuid
from collections.abc import Sequence

from dramatiq import Message
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.peers.processes import Workers, stop

__all__ = ["enqueue", "start", "stop"]

QUEUE = "default"  # Dramatiq's own default


def start(
    database_url: str,
    broker_url: str,
    *,
    processes: int = 2,
    threads: int = 2,
    prefetch: int | None = 1,
) -> list[Workers]:
    """Start a worker group; returns when each of its processes reads the queue.

    Args:
        processes: worker processes.
        threads: per process, one message at a time each.
        prefetch: messages held per process; None for Dramatiq's own, two per thread.
    """
    master = Workers(
        "dramatiq",
        [
            *("benchmarks.peers.dramatiq_app", "--skip-logging"),
            *("--processes", str(processes), "--threads", str(threads)),
        ],
        database_url=database_url,
        broker_url=broker_url,
        environment={"dramatiq_queue_prefetch": str(prefetch)} if prefetch else None,
    )
    master.wait_for_consumers(broker_url, QUEUE, processes)
    return [master]


def enqueue(database_url: str, broker_url: str, order_ids: Sequence[uuid.UUID]) -> None:
    """Queue the first step of every order, each publish confirmed; workers begin at once.

    The clock of a measurement starts when this is called, not when it returns.
    """
    # By name, as from an upstream that does not have the workers' code.
    broker = RabbitmqBroker(url=broker_url, confirm_delivery=True)
    try:
        for order_id in order_ids:
            broker.enqueue(
                Message(
                    queue_name=QUEUE,
                    actor_name="price",
                    args=(str(order_id),),
                    kwargs={},
                    options={},
                )
            )
    finally:
        broker.close()
