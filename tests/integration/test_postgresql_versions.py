"""The versions of PostgreSQL that are supported, beside the one on which all other tests run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from autorenew.local.postgres import PrivatePostgres
from monitoring.audit import audit
from producers.intake import Intake
from schemas.catalogue.store import CatalogueCache, save
from schemas.clock import SystemClock
from schemas.database import connect, migrate
from schemas.tables import metadata
from tests.conftest import TEMPLATE, Database
from tests.support import given
from tests.support.databases import Databases
from tests.support.postgresqls import VERSIONS, install_of
from tests.support.standby import Pair


@pytest.fixture(scope="module", params=VERSIONS)
def install(request: pytest.FixtureRequest) -> Path:
    return install_of(request.param)


@pytest.fixture(scope="module")
def postgres(install: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgres]:
    server = PrivatePostgres(tmp_path_factory.mktemp("postgresql"), fast=True, install=install)
    with server:
        yield server
    server.remove()


@pytest.fixture(scope="module")
def template(postgres: PrivatePostgres) -> str:
    postgres.ensure_database(TEMPLATE)
    engine = connect(postgres.url(TEMPLATE))
    migrate(engine, postgres.role_passwords())
    with engine.begin() as tx:
        save(tx, given.CATALOGUE)
    engine.dispose()
    return TEMPLATE


@pytest.fixture(scope="module")
def databases(postgres: PrivatePostgres, template: str) -> Databases:
    return Databases(postgres, template)


def test_migrations_from_nothing_make_what_the_code_says(database: Database) -> None:
    with database.owner.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_orders_are_delivered_and_the_books_agree(database: Database, embedded: Any) -> None:
    fleet = embedded()

    database.place(*(given.order(f"order-{n}", customer=f"customer-{n}") for n in range(40)))

    fleet.wait_until_idle(60)
    assert database.value("SELECT count(*) FROM orders WHERE state = 'delivered'") == 40
    with database.owner.connect() as tx:
        assert [finding for finding in audit(tx, fleet.books()) if finding.broken] == []


def test_roles_are_kept_apart(database: Database) -> None:
    engine = database.engine("provisioning")

    with engine.connect() as tx, pytest.raises(ProgrammingError) as refused:
        tx.execute(text("SELECT token FROM payment_methods"))

    assert isinstance(refused.value.orig, InsufficientPrivilege)


def test_standby_that_is_promoted_takes_orders_at_once(install: Path, tmp_path: Path) -> None:
    pair = Pair(tmp_path / "servers", synchronous=True, install=install)
    try:
        pair.start()
        pair.primary.ensure_database("promoted")
        engine = connect(pair.primary.url("promoted"))
        migrate(engine, {})
        with engine.begin() as tx:
            save(tx, given.CATALOGUE)
        intake = Intake(engine, CatalogueCache(), SystemClock())
        intake.place("shop", "python", [given.body(given.order("before"))])

        pair.crash()
        engine.dispose()
        intake.place("shop", "python", [given.body(given.order("after"))])

        with engine.connect() as tx:
            keys = tx.execute(text("SELECT key FROM orders ORDER BY accepted_at")).scalars().all()
        assert keys == ["before", "after"]
        engine.dispose()
    finally:
        pair.stop()
