"""Everything in one process: the same code, ledger and SQL, with Dramatiq's StubBroker.

PostgreSQL comes from a wheel; the outside world is the simulator, in a thread, over HTTP.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.stub import StubBroker
from sqlalchemy import Engine, text

from autorenew.private.postgres import PrivatePostgres
from producers.intake import Intake
from producers.relay import Relay
from producers.steps import BILLING, ORDERS, QUEUES
from producers.transport import LocalTransport
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.database import connect, migrate
from schemas.settings import Settings
from schemas.tables import ROLES
from schemas.values import Universe
from simulator.server import Running
from workers.bootstrap import add_actors, handlers
from workers.runtime import Runtime

THREADS = 8


class Embedded:
    """The whole fleet, for the demo, ``autorenew up`` and tests.

    Args:
        folder: where PostgreSQL and the simulator keep what they know.
        rules: how the simulated outside world misbehaves.
        temporary: delete the database at the end.
        settings: overrides, such as ``call_seconds``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rules: list[dict[str, Any]] | None = None,
        postgres: PrivatePostgres | None = None,
        database: str = "autorenew",
        temporary: bool = False,
        store: str = ":memory:",
        **settings: Any,
    ) -> None:
        self._postgres = postgres or PrivatePostgres(folder / "postgresql")
        self._own_postgres = postgres is None
        self._database = database
        self._temporary = temporary
        self._rules = rules
        self._store = store
        self._overrides = settings
        self._engines: dict[str, Engine] = {}
        self._runtimes: list[Runtime] = []

    def start(self) -> "Embedded":
        if self._own_postgres:
            self._postgres.start()
        self._postgres.ensure_database(self._database)
        self.database_url = self._postgres.url(self._database)
        owner = connect(self.database_url)
        migrate(owner, self._postgres.role_passwords())
        self.owner = owner
        self._engines = {
            role: connect(self._postgres.role_url(self._database, role), pool_size=THREADS + 2)
            for role in ROLES
        }
        self.simulator = Running(store=self._store, rules=self._rules)
        self.settings = Settings(
            **{
                "calls_at_once": 4,
                "gateway_url": f"{self.simulator.url}/gateway",
                "driver_urls": {
                    universe.value: f"{self.simulator.url}/infrastructure/{universe}"
                    for universe in Universe
                },
                **self._overrides,
            }
        )
        self.intake = Intake(self._engines["api"], CatalogueCache(), SystemClock())
        self._broker = StubBroker(middleware=[])
        add_actors(
            self._broker, handlers(self.settings, QUEUES, SystemClock()), self._runtime_for()
        )
        self._worker = dramatiq.Worker(self._broker, worker_threads=THREADS, worker_timeout=100)
        self._worker.start()
        stopping = threading.Event()
        self._relay = Relay(
            self._engines["relay"], LocalTransport(self._broker, stopping.wait), self.settings
        )
        self._relay_thread = threading.Thread(target=self._relay.run, name="relay", daemon=True)
        self._relay_thread.start()
        return self

    def _runtime_for(self) -> Callable[[str], Runtime]:
        """Each kind of queue works with its own database role, as in the fleet."""
        runtimes = {
            role: Runtime(self._engines[role], self.settings, THREADS)
            for role in ("orders", "billing", "provisioning")
        }
        self._runtimes = list(runtimes.values())

        def runtime(queue: str) -> Runtime:
            return runtimes[queue if queue in (ORDERS, BILLING) else "provisioning"]

        return runtime

    def engine(self, role: str) -> Engine:
        return self._engines[role]

    def tasks(self) -> dict[str, int]:
        """How many tasks there are in each state."""
        with self.owner.connect() as tx:
            rows = tx.execute(text("SELECT state, count(*) FROM tasks GROUP BY state"))
            return dict(rows.all())

    def wait_until_idle(self, timeout: float, watch: Callable[[], None] | None = None) -> None:
        """Until nothing is left to do but what waits for a person.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while any(state != "failed" for state in self.tasks()):
            if time.monotonic() > end:
                raise TimeoutError(f"still busy after {timeout:g} s: {self.tasks()}")
            if watch is not None:
                watch()
            time.sleep(0.1)

    def stop(self) -> None:
        """In the order that loses nothing: no more messages, finish what runs, then the rest."""
        self._relay.stop()
        self._relay_thread.join(10)
        self._worker.stop(timeout=int(self.settings.shutdown_seconds * 1000))
        self._broker.close()
        for runtime in self._runtimes:
            runtime.close()
        self.simulator.stop()
        for engine in (self.owner, *self._engines.values()):
            engine.dispose()
        if self._temporary:
            self._postgres.drop_database(self._database)
        if self._own_postgres:
            self._postgres.stop()

    def __enter__(self) -> "Embedded":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
