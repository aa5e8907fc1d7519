"""The migrations and the tables in code describe the same database."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import SQLAlchemyError

from schemas.database import check_schema, connect, migrate
from schemas.errors import ConfigurationError
from schemas.tables import metadata
from tests.conftest import Database


def test_migrations_lead_to_the_tables_in_code(database: Database) -> None:
    with database.owner.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database.owner, {})

    assert database.value("SELECT count(*) FROM plans") > 0


@pytest.mark.parametrize(
    "table", ["invoices", "invoice_lines", "credit_notes", "credit_note_lines", "events"]
)
@pytest.mark.parametrize("change", ["UPDATE {} SET {}", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_what_the_law_knows_cannot_be_changed_even_by_the_owner(
    database: Database, table: str, change: str
) -> None:
    column = {"events": "name = 'x'", "credit_notes": "reason = 'x'"}.get(table, "tax = 0")

    with pytest.raises(SQLAlchemyError, match="append-only"):
        database.run(change.format(table, column))


def test_an_empty_database_is_refused_in_one_line(postgres: object) -> None:
    engine = connect(postgres.url("postgres"))  # type: ignore[attr-defined]

    with pytest.raises(ConfigurationError, match="run `autorenew migrate` first"):
        check_schema(engine)
    engine.dispose()
