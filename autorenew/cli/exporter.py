"""The command ``exporter``."""

import threading
import time

import click
from prometheus_client import CollectorRegistry, ProcessCollector
from sqlalchemy import Engine

from autorenew.cli.common import on_stop
from autorenew.cli.processes import start
from monitoring import metrics
from monitoring.exporter.auditing import Auditor
from monitoring.exporter.books import Comparison
from monitoring.exporter.exporter import Exporter, World
from producers import counters
from producers.control.lanes import FIXED
from producers.intake import dead
from producers.ledger import GUARDED_LANES
from producers.loop import Loop
from producers.presence import Presence, version
from producers.steps import QUEUES, STEPS
from producers.web.metrics import application
from producers.web.serving import WebServer
from schemas.settings import Settings, load_settings
from workers.bootstrap import gateway_books_of

# A piece of the audit that took long is followed by so much longer a rest.
AUDIT_REST = 20


class Running:
    """The exporter's server and its background threads: collecting, and the audit.

    Args:
        engine: as the database role ``exporter``.

    Raises:
        ConfigurationError: the address is in use or may not be used.
    """

    def __init__(self, engine: Engine, settings: Settings, *, host: str, port: int) -> None:
        urls = settings.broker_url
        ask = None if urls is None else lambda: dead.count(urls.get_secret_value())
        # Only where it is configured with gateways: their books, and nothing else of theirs.
        gateways = None
        if settings.book_comparison_seconds and (settings.gateways or settings.gateway_url):
            gateways = gateway_books_of(settings)
        world = World(
            queues=QUEUES,
            steps=list(STEPS),
            lanes=FIXED,
            guarded=GUARDED_LANES,
            version=version(),
            dead_documents=ask,
            compares_books=gateways is not None,
        )
        exporter = Exporter(engine, world)
        # Its own: counters of tasks and of bulk operations have the names of gauges here.
        registry = CollectorRegistry()
        registry.register(exporter.collection)
        for metric in (
            metrics.loop_failures, metrics.clock_ahead, metrics.http_requests,
            metrics.http_seconds,
        ):  # fmt: skip
            registry.register(metric)
        ProcessCollector(registry=registry)
        counters.of_exporter()
        app = application(registry, {"database": lambda: _ask(engine)})
        self.server = WebServer(app, host=host, port=port, name="exporter", grace=2)
        self._presence = Presence(engine, "exporter")
        rounds = exporter.rounds()
        if settings.audit_seconds:
            auditor = Auditor(engine)

            def audit() -> float:
                started = time.monotonic()
                auditor.piece()
                return max(settings.audit_seconds, AUDIT_REST * (time.monotonic() - started))

            rounds["audit"] = audit
        if gateways is not None:
            rounds["books"] = Comparison(engine, gateways, settings.book_comparison_seconds).round
        self._loops = [
            Loop("exporter", round, longest_pause=30.0, first_pause=1.0)
            for round in rounds.values()
        ]
        self._threads = [
            threading.Thread(target=loop.run, name=f"exporter {group}", daemon=True)
            for group, loop in zip(rounds, self._loops, strict=True)
        ]

    def start(self) -> "Running":
        self._presence.keep()
        for thread in self._threads:
            thread.start()
        self.server.start()
        return self

    def stop(self) -> None:
        """A collection that is under way is not waited for longer than some seconds."""
        for loop in self._loops:
            loop.stop()
        for thread in self._threads:
            thread.join(5.0)
        self._presence.end()
        self.server.close()

    def __enter__(self) -> "Running":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9187,
    show_default=True,
    help="0: any that is free.",
)
def exporter(host: str, port: int) -> None:
    """Serve what the database says of the fleet as /metrics, and audit it piece by piece.

    One is enough; several do no harm. A scrape is answered from memory. Works as the database role
    `exporter`; with AUTORENEW_BROKER_URL it counts documents on `intake.dead`, too.
    """
    settings = load_settings()
    engine, _ = start(settings, "autorenew exporter", "exporter")
    running = Running(engine, settings, host=host, port=port)
    on_stop(running.server.stop)
    with running:
        running.server.wait()


def _ask(engine: Engine) -> None:
    with engine.connect() as tx:
        tx.exec_driver_sql("SELECT 1")
