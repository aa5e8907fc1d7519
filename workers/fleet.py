"""What Dramatiq imports in each process of a worker group: the broker with its actors.

Started by ``autorenew worker``; the queues come in ``AUTORENEW_QUEUES``.
"""

import logging
import os
import signal

from schemas.database import connect
from schemas.settings import load_settings
from schemas.virtual_clock import clock_of
from workers.bootstrap import add_actors, handlers
from workers.broker import ReadOnlyBroker
from workers.garbage import collect_seldom
from workers.launcher import die_with_parent
from workers.runtime.runtime import Runtime


def build() -> ReadOnlyBroker:
    settings = load_settings()
    queues = os.environ["AUTORENEW_QUEUES"].split(",")
    threads = int(os.environ["AUTORENEW_THREADS"])
    broker = ReadOnlyBroker(settings.need("broker_url"))
    engine = connect(
        settings.need("database_url"),
        pool_size=threads + 1,
        application=f"autorenew worker {','.join(queues)}",
    )
    runtime = Runtime(engine, settings, threads)
    clock = clock_of(engine, virtual=settings.clock == "virtual")
    add_actors(broker, handlers(settings, queues, clock), lambda _queue: runtime)
    return broker


# Every lost connection is told by Dramatiq in one line; pika adds five tracebacks.
logging.getLogger("pika").setLevel(logging.CRITICAL)
die_with_parent(signal.SIGKILL)
broker = build()
collect_seldom()
