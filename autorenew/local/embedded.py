"""Everything in one process: the same code, ledger and SQL, with Dramatiq's StubBroker.

PostgreSQL comes from a wheel; the outside world is the simulator, in a thread, over HTTP.
"""

import secrets
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dramatiq
from dramatiq.brokers.stub import StubBroker
from sqlalchemy import Engine, text

from autorenew.local.ports import free_port
from autorenew.local.postgres import PrivatePostgres
from monitoring import tracing
from producers import counters
from producers.api.app import build, refusal
from producers.api.doors import Doors
from producers.events.exchange import Exchange, NoExchange
from producers.events.publisher import Publishing
from producers.intake import Intake
from producers.intake.realms import Realms
from producers.relay.relay import Relay
from producers.relay.transport import LocalTransport
from producers.scheduler.scheduler import Scheduler
from producers.steps import QUEUES, ROLE_OF_QUEUE
from producers.web.serving import WebServer
from schemas import virtual_clock
from schemas.catalogue.models import Catalogue
from schemas.catalogue.store import CatalogueCache, save
from schemas.database import connect, migrate
from schemas.settings import Settings
from schemas.tables import ROLES
from schemas.values import Universe
from simulator.mailbox import Mailbox
from simulator.server import Running
from workers.bootstrap import add_actors, books_of, handlers, publisher
from workers.outside.books import Books
from workers.runtime.runtime import Runtime

if TYPE_CHECKING:  # a fleet without pages needs no HTTP server
    from producers.web.serving import WebServer

THREADS = 8


class Embedded:
    """The whole fleet, for the demo, ``autorenew up`` and tests.

    Args:
        folder: where PostgreSQL and the simulator keep what they know.
        rules: how the simulated outside world misbehaves.
        temporary: delete the database at the end.
        ahead: live on a virtual clock that starts so far ahead of the real one.
        exchange: where events are published; None: to webhooks only.
        pages: serve the pages of customers, and have the links of e-mails lead there.
        catalogue: put in force before anything runs; None: what the database has.
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
        ahead: timedelta | None = None,
        exchange: Exchange | None = None,
        pages: bool = False,
        catalogue: Catalogue | None = None,
        **settings: Any,
    ) -> None:
        self._postgres = postgres or PrivatePostgres(folder / "postgresql")
        self._own_postgres = postgres is None
        self._database = database
        self._temporary = temporary
        self._rules = rules
        self._store = store
        self._overrides = settings
        self._ahead = ahead
        self._exchange = exchange
        self._has_pages = pages
        self._catalogue = catalogue
        self.pages: WebServer | None = None
        self._engines: dict[str, Engine] = {}
        self._runtimes: list[Runtime] = []
        self._scheduler_thread: threading.Thread | None = None
        self._doors: list[tuple[Doors, WebServer]] = []

    def start(self) -> "Embedded":
        if self._own_postgres:
            self._postgres.start()
        self._postgres.ensure_database(self._database)
        self.database_url = self._postgres.url(self._database)
        owner = connect(self.database_url)
        migrate(owner, self._postgres.role_passwords())
        if self._catalogue is not None:
            with owner.begin() as tx:
                save(tx, self._catalogue)
        if self._ahead is not None:
            with owner.begin() as tx:
                virtual_clock.start(tx, self._ahead)
        self.owner = owner
        self._engines = {
            role: connect(self._postgres.role_url(self._database, role), pool_size=THREADS + 4)
            for role in ROLES
        }
        self.mailbox = Mailbox()
        self.mailbox.start()
        self.simulator = Running(store=self._store, rules=self._rules, mailbox=self.mailbox)
        if self._has_pages and "link_base_url" not in self._overrides:
            # Its address is in the links, so it is known before anything is built with them.
            self._overrides["link_base_url"] = f"http://127.0.0.1:{free_port()}"
        self.settings = Settings(
            **{
                "calls_at_once": 4,
                "sweep_seconds": 0.05,
                "delivery_email_seconds": 0.3,
                "smtp_url": self.mailbox.url,
                "mail_from": "billing@example.com",
                "link_base_url": "https://example.com",
                "link_secret": secrets.token_urlsafe(32),
                "clock": "system" if self._ahead is None else "virtual",
                "gateway_url": f"{self.simulator.url}/gateway",
                "driver_urls": {
                    universe.value: f"{self.simulator.url}/infrastructure/{universe}"
                    for universe in Universe
                },
                **self._overrides,
            }
        )
        tracing.configure(self.settings, "embedded")
        self.clock = virtual_clock.clock_of(owner, virtual=self._ahead is not None)
        self.intake = Intake(
            self._engines["api"], CatalogueCache(), self.clock, Realms(self.settings.realms)
        )
        if self._has_pages:
            self._serve_pages()
        self._broker = StubBroker(middleware=[])
        add_actors(self._broker, handlers(self.settings, QUEUES, self.clock), self._runtime_for())
        self._worker = dramatiq.Worker(self._broker, worker_threads=THREADS, worker_timeout=100)
        self._worker.start()
        stopping = threading.Event()
        self._relay = Relay(
            self._engines["relay"],
            LocalTransport(self._broker, stopping.wait),
            self.settings,
            self.clock,
        )
        self._relay_thread = threading.Thread(target=self._relay.run, name="relay", daemon=True)
        self._relay_thread.start()
        self._publishing = Publishing(
            publisher(
                self._engines["events"],
                self._exchange or NoExchange(stopping.wait),
                self.settings,
            )
        )
        self._publishing.__enter__()
        self.start_scheduler()
        counters.of_relay()
        counters.of_scheduler()
        return self

    def _serve_pages(self) -> None:
        from producers.pages.app import application as pages_of
        from producers.web.serving import WebServer

        application = pages_of(
            self.settings,
            write=self._engines["api"],
            read=self._engines["readonly"],
            intake=self.intake,
            clock=self.clock,
        )
        port = urlsplit(self.settings.need("link_base_url")).port or 0
        self.pages = WebServer(application, host="127.0.0.1", port=port, name="pages").start()

    @property
    def pages_url(self) -> str | None:
        """Where the pages of customers are served; None: they are not."""
        return None if self.pages is None else self.pages.url

    def start_scheduler(self) -> None:
        """On a virtual clock it is :meth:`settle` that has it look, whenever time has passed."""
        self.scheduler = Scheduler(
            self._engines["scheduler"], CatalogueCache(), self.clock, self.settings
        )
        run = self.scheduler.run if self._ahead is None else self.scheduler.bulk.run
        self._scheduler_thread = threading.Thread(target=run, name="scheduler", daemon=True)
        self._scheduler_thread.start()

    def stop_publishing(self) -> None:
        """Events go out no more, to webhooks either."""
        self._publishing.__exit__()

    def serve_api(self, *, port: int = 0) -> WebServer:
        """Serve the HTTP API until :meth:`stop`."""
        doors = Doors(
            self._engines["api"],
            self._engines["readonly"],
            self.clock,
            Realms(self.settings.realms),
            keep_days=self.settings.rejected_days,
        )
        server = WebServer(
            build(doors), host="127.0.0.1", port=port, name="api", answer=refusal
        ).start()
        self._doors.append((doors, server))
        counters.of_intake("api")
        return server

    def _runtime_for(self) -> Callable[[str], Runtime]:
        """Each kind of queue works with its own database role, as in the fleet."""
        runtimes = {
            role: Runtime(self._engines[role], self.settings, self.clock)
            for role in set(ROLE_OF_QUEUE.values())
        }
        self._runtimes = list(runtimes.values())

        def runtime(queue: str) -> Runtime:
            return runtimes[ROLE_OF_QUEUE[queue]]

        return runtime

    def books(self) -> Books:
        """The books of its gateway and its infrastructure."""
        return books_of(self.settings)

    def engine(self, role: str) -> Engine:
        return self._engines[role]

    def tasks(self) -> dict[str, int]:
        """How many tasks there are in each state."""
        with self.owner.connect() as tx:
            rows = tx.execute(text("SELECT state, count(*) FROM tasks GROUP BY state"))
            return dict(rows.all())

    def is_busy(self) -> bool:
        """Whether anything is left to do but what waits for a person."""
        with self.owner.connect() as tx:
            return virtual_clock.busy(tx) is not None

    def wait_until_idle(self, timeout: float, watch: Callable[[], None] | None = None) -> None:
        """Until nothing is left to do but what waits for a person.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while self.is_busy():
            if time.monotonic() > end:
                raise TimeoutError(f"still busy after {timeout:g} s: {self.tasks()}")
            if watch is not None:
                watch()
            time.sleep(0.1 if watch is not None else 0.005)

    def settle(self, timeout: float) -> None:
        """Do everything that is due at this moment of the virtual clock.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        self.wait_until_idle(timeout)
        while self.scheduler.round():
            self.wait_until_idle(max(end - time.monotonic(), 0.0))

    def pass_time(
        self, by: timedelta, timeout: float = 60.0, *, hop: timedelta | None = None
    ) -> None:
        """Let virtual time pass, from one thing that falls due to the next.

        In hops that a fleet which watches itself for silence does not take for one; or in hops
        of a length, each of which does what fell due within it.

        Raises:
            TimeoutError: what fell due at one moment took longer than ``timeout`` seconds.
        """
        longest = timedelta(seconds=self.settings.silence_seconds * 0.9)
        end = self.clock.now() + by
        self.settle(timeout)
        while (left := end - (now := self.clock.now())) > timedelta():
            with self.owner.begin() as tx:
                if hop is None:
                    query = text("SELECT min(next_step_at) FROM services WHERE next_step_at > :now")
                    due = tx.execute(query, {"now": now}).scalar_one()
                    next_ = max(due - now, timedelta()) if due is not None else left
                else:
                    next_ = hop
                virtual_clock.advance(tx, min(left, next_, longest))
            self.settle(timeout)

    def leap(self, by: timedelta) -> None:
        """Let virtual time pass while no scheduler is running."""
        with self.owner.begin() as tx:
            virtual_clock.advance(tx, by)

    def stop(self) -> None:
        """In the order that loses nothing: no more messages, finish what runs, then the rest."""
        for doors, server in self._doors:
            doors.waiters.release()
            server.close()
            doors.stop()
        if self.pages is not None:
            self.pages.close()
        self.scheduler.stop()
        if self._scheduler_thread is not None:
            self._scheduler_thread.join(10)
        self.stop_publishing()
        self._relay.stop()
        self._relay_thread.join(10)
        for runtime in self._runtimes:
            runtime.stop()
        self._worker.stop(timeout=int(self.settings.shutdown_seconds * 1000))
        self._broker.close()
        for runtime in self._runtimes:
            runtime.close()
        tracing.close()
        self.simulator.stop()
        self.mailbox.stop()
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
