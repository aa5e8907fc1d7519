"""Servers for the whole run, and a database of its own for each test."""

import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from autorenew.local import end_on_sigterm
from autorenew.local.embedded import Embedded
from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from producers.intake import Answer, Intake
from schemas.catalogue.store import CatalogueCache, save
from schemas.clock import SystemClock
from schemas.database import connect, migrate
from schemas.errors import ConfigurationError
from simulator.server import Running
from tests.support import given
from tests.support.brokers import node
from tests.support.databases import Databases

TEMPLATE = "template_autorenew"


def pytest_configure() -> None:
    end_on_sigterm()


def pytest_xdist_auto_num_workers() -> int:
    """Most tests wait for a server half of their time: two workers a core."""
    return 2 * len(os.sched_getaffinity(0))


class Database:
    """A migrated database with the tests' catalogue in force, and engines for every role."""

    def __init__(self, postgres: PrivatePostgres, name: str) -> None:
        self._postgres = postgres
        self.name = name
        self.url = postgres.url(name)
        self.owner = connect(self.url)
        self._engines: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def engine(self, role: str) -> Engine:
        with self._lock:  # threads of a test may ask at once
            if role not in self._engines:
                url = self._postgres.role_url(self.name, role)
                self._engines[role] = connect(url, pool_size=10)
            return self._engines[role]

    def all(self, query: str, **parameters: Any) -> list[Any]:
        with self.owner.connect() as tx:
            return list(tx.execute(text(query), parameters))

    def value(self, query: str, **parameters: Any) -> Any:
        with self.owner.connect() as tx:
            return tx.execute(text(query), parameters).scalar_one()

    def run(self, statement: str, **parameters: Any) -> None:
        with self.owner.begin() as tx:
            tx.execute(text(statement), parameters)

    def place(self, *documents: Any, upstream: str = "shop") -> list[Answer]:
        intake = Intake(self.engine("api"), CatalogueCache(), SystemClock())
        return intake.place(upstream, "python", [given.body(d) for d in documents])

    def close(self) -> None:
        for engine in (self.owner, *self._engines.values()):
            engine.dispose()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgres]:
    server = PrivatePostgres(tmp_path_factory.mktemp("postgresql"), fast=True)
    with server:
        yield server
    server.remove()


@pytest.fixture(scope="session")
def template(postgres: PrivatePostgres) -> str:
    postgres.ensure_database(TEMPLATE)
    engine = connect(postgres.url(TEMPLATE))
    migrate(engine, postgres.role_passwords())
    with engine.begin() as tx:
        save(tx, given.CATALOGUE)
    engine.dispose()
    return TEMPLATE


@pytest.fixture(scope="session")
def databases(postgres: PrivatePostgres, template: str) -> Databases:
    return Databases(postgres, template)


_numbers = itertools.count(1)


@pytest.fixture
def database(postgres: PrivatePostgres, databases: Databases) -> Iterator[Database]:
    name = f"test_{next(_numbers)}"
    databases.take(name)
    database = Database(postgres, name)
    yield database
    database.close()
    databases.give_back(name)


@pytest.fixture
def embedded(database: Database, postgres: PrivatePostgres, tmp_path: Any) -> Iterator[Any]:
    """Starts a whole fleet in this process, on the test's database."""
    with ExitStack() as stack:

        def start(rules: list[dict[str, Any]] | None = None, **settings: Any) -> Embedded:
            quick = {
                "call_seconds": 0.5,
                "order_charge_delays": [0.05, 0.1],
                "retry_base_seconds": 0.05,
                "retry_attempts": 4,
            }
            fleet = Embedded(
                tmp_path,
                postgres=postgres,
                database=database.name,
                rules=rules,
                **(quick | settings),
            )
            return stack.enter_context(fleet)

        yield start


@pytest.fixture
def life(embedded: Any, database: Database) -> Callable[..., Any]:
    """Starts a fleet on a virtual clock, with renewal switched on for some brands, or all."""
    from tests.support.life import BRANDS, Life

    def start(rules: Any = None, brands: Sequence[str] = BRANDS, **settings: Any) -> Life:
        # Time passes in hops of a day at most, and that is no silence.
        quick = {"silence_seconds": 26 * 3600.0} | settings
        world = Life(embedded(rules, ahead=timedelta(), **quick), database)
        world.roll_out(*brands)
        return world

    return start


@pytest.fixture
def simulator() -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitMQ]:
    """A private node of the version that is installed. Without RabbitMQ on the machine its tests
    are skipped; in CI they fail."""
    with node("installed", tmp_path_factory.mktemp("rabbitmq")) as started:
        yield started


@pytest.fixture
def fleet_of(
    postgres: PrivatePostgres,
    databases: Databases,
    rabbitmq: PrivateRabbitMQ,
    simulator: Running,
    tmp_path: Any,
) -> Iterator[Callable[..., PrivateFleet]]:
    """Prepares a fleet of processes with short timeouts; starts none of them."""
    with ExitStack() as stack:

        def prepare(
            *, smtp_url: str | None = None, virtual: bool = False, **settings: str
        ) -> PrivateFleet:
            quick = {
                "call_seconds": "1",
                "lease_seconds": "4",
                "rescue_seconds": "2",
                "order_charge_delays": "[0.1, 0.2]",
                "retry_base_seconds": "0.1",
                "shutdown_seconds": "20",
                "log_level": "INFO",
            }
            name = f"fleet_{uuid.uuid4().hex[:8]}"
            databases.take(name)
            stack.callback(databases.give_back, name)
            fleet = PrivateFleet(
                tmp_path / "fleet",
                postgres,
                rabbitmq,
                database=name,
                simulator_url=simulator.url,
                smtp_url=smtp_url,
                virtual=virtual,
                **(quick | settings),
            )
            try:
                fleet.prepare(given.CATALOGUE)
            except ConfigurationError as error:
                if "INTERNAL_ERROR" not in str(error):
                    raise
                # RabbitMQ 3.10: a queue whose virtual host was deleted just after a restart ends
                # the supervisor of dead-lettering (rabbit_fifo_dlx_sup), until the next restart.
                rabbitmq.ctl("stop_app")
                rabbitmq.ctl("start_app")
                fleet.setup_broker()
            stack.callback(fleet.close, keep_database=True)
            return fleet

        yield prepare
