"""The peer on Celery 5: start its workers, give it orders, stop it.

The defaults are the best of what was tried; the table is in README.md beside this file.
"""

import uuid
from collections.abc import Sequence

from celery import Celery

from benchmarks.peers.processes import Workers, stop

__all__ = ["enqueue", "start", "stop"]

QUEUE = "celery"  # Celery's own default


def start(
    database_url: str, broker_url: str, *, processes: int = 4, prefetch: int = 64
) -> list[Workers]:
    """Start a worker; returns when it reads its queue.

    Args:
        processes: children of its prefork pool, one task at a time each.
        prefetch: ``worker_prefetch_multiplier``: messages held per child.
    """
    master = Workers(
        "celery",
        [
            *("--quiet", "--app", "benchmarks.peers.celery_app", "worker"),
            *("--pool", "prefork", "--concurrency", str(processes)),
            *("--prefetch-multiplier", str(prefetch), "--loglevel", "WARNING"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ],
        database_url=database_url,
        broker_url=broker_url,
    )
    master.wait_for_consumers(broker_url, QUEUE, 1)
    return [master]


def enqueue(database_url: str, broker_url: str, order_ids: Sequence[uuid.UUID]) -> None:
    """Queue the first step of every order, each publish confirmed; workers begin at once.

    The clock of a measurement starts when this is called, not when it returns.
    """
    # By name, as from an upstream that does not have the workers' code.
    with Celery("upstream", broker=broker_url, set_as_current=False) as upstream:
        upstream.conf.broker_transport_options = {"confirm_publish": True}
        for order_id in order_ids:
            upstream.send_task("price", (str(order_id),))
