"""What a test finds in its database is what the template has, whatever ran before it."""

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from autorenew.local.postgres import PrivatePostgres
from schemas.database import migrate
from tests.conftest import Database
from tests.support.databases import Databases, shape
from tests.support.given import order

TABLES = """
SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
OID = "SELECT oid FROM pg_database WHERE datname = current_database()"
RIGHTS = "SELECT datacl FROM pg_database WHERE datname = current_database()"
CHANGES = (
    "ALTER TABLE services ADD COLUMN colour text",
    "DROP INDEX tasks_failed",
    "CREATE TABLE more (id int)",
    "GRANT SELECT ON services TO autorenew_relay",
    "GRANT UPDATE (state) ON services TO autorenew_relay",
    "GRANT EXECUTE ON FUNCTION lo_creat(integer) TO autorenew_relay",
    "ALTER TABLE events DISABLE TRIGGER USER",
    "ALTER TABLE services ALTER COLUMN state DROP NOT NULL",
    "ALTER ROLE autorenew_relay IN DATABASE {name} SET statement_timeout = '1s'",
    "ALTER DATABASE {name} CONNECTION LIMIT 90",
    "COMMENT ON TABLE alembic_version IS '0001'",
    "CREATE SCHEMA other",
    "ANALYZE plans",
)


@pytest.fixture
def databases(postgres: PrivatePostgres, template: str) -> Databases:
    return Databases(postgres, template)


@pytest.fixture
def used(postgres: PrivatePostgres, databases: Databases) -> Iterator[Database]:
    databases.take("used")
    database = Database(postgres, "used")
    yield database
    database.close()
    postgres.drop_database("used")


def again(postgres: PrivatePostgres, databases: Databases) -> Database:
    databases.give_back("used")
    databases.take("again")
    return Database(postgres, "again")


def rows_of(database: Database) -> dict[str, int]:
    tables = [name for (name,) in database.all(TABLES)]
    return {table: database.value(f"SELECT count(*) FROM {table}") for table in tables}


def test_large_table_is_emptied(
    postgres: PrivatePostgres, databases: Databases, used: Database
) -> None:
    rows = rows_of(used)
    used.run(
        "INSERT INTO events (subject, name) SELECT gen_random_uuid(), 'order.delivered'"
        " FROM generate_series(1, 5000)"
    )
    used.close()

    fresh = again(postgres, databases)
    try:
        assert rows_of(fresh) == rows
        assert fresh.value("SELECT pg_relation_size('events')") == 0
    finally:
        fresh.close()
        postgres.drop_database("again")


def test_rows_sequences_and_templates_of_rows_are_as_in_the_template(
    postgres: PrivatePostgres, databases: Databases, used: Database
) -> None:
    before = {
        table: used.all(f"SELECT * FROM {table} ORDER BY 1, 2")
        for table in ("plans", "prices", "enqueuers", "contracts")
    }
    oid, rows = used.value(OID), rows_of(used)
    used.place(order("a"), order("b"))
    used.run("UPDATE contracts SET version = version + 1")
    used.run("DELETE FROM enqueuers")
    migrate(used.owner, {})
    used.close()

    fresh = again(postgres, databases)
    try:
        assert fresh.value(OID) == oid
        assert rows_of(fresh) == rows
        assert fresh.value(RIGHTS) is None
        assert fresh.value("SELECT count(*) FROM orders") == 0
        assert fresh.all("SELECT 1 FROM pg_sequences WHERE last_value IS NOT NULL") == []
        after = {table: fresh.all(f"SELECT * FROM {table} ORDER BY 1, 2") for table in before}
        assert after == before
        assert [answer.verdict for answer in fresh.place(order("a"))] == ["accepted"]
    finally:
        fresh.close()
        postgres.drop_database("again")


def test_every_change_of_more_than_rows_is_noticed(used: Database) -> None:
    with psycopg.connect(used.url) as connection:
        before = shape(connection)
        for change in CHANGES:
            with connection.transaction(force_rollback=True):
                connection.execute(change.format(name=used.name))
                assert shape(connection) != before, change
        assert shape(connection) == before


def test_database_is_copied_anew_after_a_change_of_more_than_rows(
    postgres: PrivatePostgres, databases: Databases, used: Database
) -> None:
    oid = used.value(OID)
    used.run("ALTER TABLE services ADD COLUMN colour text")
    used.close()

    fresh = again(postgres, databases)
    try:
        assert fresh.value(OID) != oid
        assert fresh.all("SELECT * FROM pg_attribute WHERE attname = 'colour'") == []
    finally:
        fresh.close()
        postgres.drop_database("again")


def test_whoever_is_still_connected_neither_hinders_nor_sees_the_next(
    postgres: PrivatePostgres, databases: Databases, used: Database
) -> None:
    with used.owner.connect() as late:
        late.execute(text("LOCK TABLE services"))
        fresh = again(postgres, databases)
        try:
            assert fresh.value("SELECT count(*) FROM services") == 0
            with pytest.raises(OperationalError):
                late.execute(text("SELECT 1"))
            late.invalidate()
        finally:
            fresh.close()
            postgres.drop_database("again")
    with pytest.raises(OperationalError, match='"used" does not exist'):
        used.value("SELECT 1")
