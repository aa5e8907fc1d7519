"""The module Dramatiq imports in each process of a worker group: it builds the broker and actors.

``autorenew worker`` starts it and passes the queues in ``AUTORENEW_QUEUES``.
"""

import os
import signal
from typing import Any

import dramatiq

from monitoring import tracing
from producers.presence import Presence
from schemas import logs
from schemas.database import connect
from schemas.settings import load_settings
from schemas.virtual_clock import clock_of
from workers.bootstrap import add_actors, handlers
from workers.broker import ReadOnlyBroker
from workers.garbage import collect_seldom
from workers.outside.calls import RECORDERS
from workers.runtime.runtime import Runtime


class Drain(dramatiq.Middleware):
    """At SIGTERM: begin no more calls, and end only when those under way are answered."""

    def __init__(self, runtime: Runtime, presence: Presence) -> None:
        self._runtime = runtime
        self._presence = presence

    def before_worker_shutdown(self, _broker: Any, _worker: Any) -> None:
        self._runtime.stop()

    def after_worker_shutdown(self, _broker: Any, _worker: Any) -> None:
        self._runtime.close()
        self._presence.end()
        tracing.close()


def build() -> ReadOnlyBroker:
    settings = load_settings()
    queues = os.environ["AUTORENEW_QUEUES"].split(",")
    threads = int(os.environ["AUTORENEW_THREADS"])
    broker = ReadOnlyBroker(settings.need("broker_url"))
    engine = connect(
        settings.need("database_url"),
        # Beside the threads: the heartbeat, and those that record answers.
        pool_size=threads + 1 + RECORDERS,
        application=f"autorenew worker {','.join(queues)}",
    )
    tracing.configure(settings, f"worker {','.join(queues)}")
    clock = clock_of(engine, virtual=settings.clock == "virtual")
    # The launcher starts the group again, once its host's clock is right.
    runtime = Runtime(engine, settings, clock, broken=lambda: os.kill(os.getpid(), signal.SIGTERM))
    broker.add_middleware(Drain(runtime, Presence(engine, "worker", queues).keep()))
    add_actors(broker, handlers(settings, queues, clock), lambda _queue: runtime)
    return broker


_settings = load_settings()
logs.configure(  # again: standard error is Dramatiq's pipe by now
    f"worker {os.environ['AUTORENEW_QUEUES']}",
    _settings.log_level,
    _settings.log_format,
    dramatiq=True,
)
broker = build()
collect_seldom()
