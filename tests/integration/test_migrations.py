"""The migrations and the tables in code describe the same database."""

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from click.testing import CliRunner
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from autorenew.cli import main
from monitoring.audit import audit
from monitoring.seals import broken_blocks, broken_documents, heads
from schemas.database import MIGRATIONS, check_schema, connect, migrate
from schemas.errors import AutorenewError, ConfigurationError
from schemas.tables import metadata
from tests.conftest import Database

# Ids of what the release before left behind.
ORDERS, METHODS, SERVICES = ([uuid.UUID(int=16 * n + m) for m in range(4)] for n in (1, 2, 3))

BEFORE = f"""
INSERT INTO contracts VALUES ('terms', 3, '{{}}');
INSERT INTO plans (code, universe, brand, driver, contract, definition) VALUES
    ('site', 'web', 'ovh', 'web', 'terms', '{{}}'), ('free', 'web', 'ovh', 'web', NULL, '{{}}');
INSERT INTO customers (id, subsidiary, country, language, email) VALUES
    ('alice', 'FR', 'FR', 'fr', 'alice@example.com'), ('bob', 'FR', 'FR', 'fr', 'bob@example.com'),
    ('carol', 'FR', 'FR', 'fr', 'carol@example.com');
INSERT INTO payment_methods (id, customer_id, token) VALUES
    ('{METHODS[0]}', 'alice', 'tok-old'), ('{METHODS[1]}', 'alice', 'tok-new'),
    ('{METHODS[2]}', 'bob', 'tok-bob');
INSERT INTO agreements (customer_id, contract, version) VALUES
    ('alice', 'terms', 1), ('alice', 'terms', 2), ('alice', 'other', 9), ('bob', 'other', 9);
INSERT INTO orders (id, upstream, key, body_hash, state, customer_id, subsidiary, country,
    payment_method_id, accepted_at) VALUES
    ('{ORDERS[0]}', 'shop', 'k-0', '', 'delivered', 'alice', 'FR', 'FR', '{METHODS[0]}',
        '2026-01-01'),
    ('{ORDERS[1]}', 'shop', 'k-1', '', 'paid', 'alice', 'FR', 'FR', '{METHODS[1]}', '2026-02-01'),
    ('{ORDERS[2]}', 'shop', 'k-2', '', 'delivered', 'bob', 'FR', 'FR', '{METHODS[2]}',
        '2026-01-01'),
    ('{ORDERS[3]}', 'shop', 'k-3', '', 'refused', NULL, NULL, NULL, NULL, '2026-03-01');
INSERT INTO services (id, order_id, line, unit, customer_id, subsidiary, plan, universe, brand,
    driver, configuration, period_months, state, anchor, paid_periods, expires_at, desired,
    confirmed) VALUES
    ('{SERVICES[0]}', '{ORDERS[0]}', 1, 1, 'alice', 'FR', 'site', 'web', 'ovh', 'web', '{{}}', 1,
        'active', '2026-01-01', 1, '2026-01-31 23:00Z', 'active', 'active'),
    ('{SERVICES[1]}', '{ORDERS[1]}', 1, 1, 'alice', 'FR', 'free', 'web', 'ovh', 'web', '{{}}', 1,
        'delivering', NULL, 1, NULL, 'active', 'absent'),
    ('{SERVICES[2]}', '{ORDERS[2]}', 1, 1, 'bob', 'FR', 'site', 'web', 'ovh', 'web', '{{}}', 12,
        'active', '2026-01-01', 1, '2026-12-31 23:00Z', 'active', 'active');
INSERT INTO payment_requests (id, order_id, payment_method_id, customer_id, subsidiary, country,
    currency, tax_mention, net, tax, total, state) VALUES
    ('{uuid.UUID(int=64)}', '{ORDERS[0]}', '{METHODS[0]}', 'alice', 'FR', 'FR', 'EUR', 'VAT FR',
        3787, 757, 4544, 'paid');
INSERT INTO charges (key, request_id, attempt, amount, currency, state) VALUES
    ('{uuid.UUID(int=65)}', '{uuid.UUID(int=64)}', 1, 4544, 'EUR', 'succeeded');
"""


def upgrade(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


@pytest.fixture
def of_the_release_before(postgres: Any) -> Iterator[Engine]:
    """A database at revision 0002, with rows of the previous release."""
    name = f"before_{uuid.uuid4().hex[:8]}"
    postgres.ensure_database(name)
    engine = connect(postgres.url(name))
    upgrade(engine, "0002")
    with engine.begin() as tx:
        tx.exec_driver_sql(BEFORE)
    yield engine
    engine.dispose()
    postgres.drop_database(name)


def rows(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as tx:
        return list(tx.execute(text(query)))


def test_migrated_services_keep_the_payment_method_and_the_contract_of_their_order(
    of_the_release_before: Engine,
) -> None:
    migrate(of_the_release_before, {})

    found = rows(
        of_the_release_before,
        "SELECT id, payment_method_id, agreed_version FROM services ORDER BY id",
    )
    assert found == [
        (SERVICES[0], METHODS[0], 2),
        (SERVICES[1], METHODS[1], None),  # a plan without a contract
        (SERVICES[2], METHODS[2], None),  # who accepted another one
    ]


def test_migrated_customers_have_their_newest_payment_method_saved(
    of_the_release_before: Engine,
) -> None:
    migrate(of_the_release_before, {})

    found = rows(of_the_release_before, "SELECT id, payment_method_id FROM customers ORDER BY id")
    assert found == [("alice", METHODS[1]), ("bob", METHODS[2]), ("carol", None)]


def test_migrated_services_have_no_next_step_before_renewal_is_switched_on(
    of_the_release_before: Engine,
) -> None:
    migrate(of_the_release_before, {})

    states = (
        "SELECT state, next_step, next_step_at, mode, imported_periods FROM services ORDER BY id"
    )
    assert rows(of_the_release_before, states) == [
        ("active", None, None, "automatic", 0),
        ("delivering", None, None, "automatic", 0),
        ("active", None, None, "automatic", 0),
    ]
    for table in ("rollouts", "renewals", "notices", "emails", "recomputations", "virtual_clock"):
        assert rows(of_the_release_before, f"SELECT 1 FROM {table}") == []
    assert rows(of_the_release_before, "SELECT 1 FROM charges WHERE payment_method_id IS NULL")


def test_database_of_the_previous_release_migrates_to_the_tables_in_code(
    of_the_release_before: Engine,
) -> None:
    migrate(of_the_release_before, {})

    with of_the_release_before.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_processes_of_the_previous_release_still_work_after_the_migration(
    of_the_release_before: Engine,
) -> None:
    """They know nothing of the new columns, and write rows without them."""
    migrate(of_the_release_before, {})

    order, service = uuid.uuid4(), uuid.uuid4()
    with of_the_release_before.begin() as tx:
        tx.exec_driver_sql(f"""
            INSERT INTO orders (id, upstream, key, body_hash, state, customer_id, subsidiary,
                country, payment_method_id)
            VALUES ('{order}', 'shop', 'k-9', '', 'paid', 'bob', 'FR', 'FR', '{METHODS[2]}');
            INSERT INTO services (id, order_id, line, unit, customer_id, subsidiary, plan,
                universe, brand, driver, configuration, period_months)
            VALUES ('{service}', '{order}', 1, 1, 'bob', 'FR', 'site', 'web', 'ovh', 'web',
                '{{}}', 1);
            UPDATE services SET state = 'delivering' WHERE id = '{service}';
            INSERT INTO prices (plan, subsidiary, period_months, currency, setup, renewal)
            SELECT 'site', code, 1, 'EUR', 0, 1 FROM subsidiaries;
        """)
    assert rows(of_the_release_before, "SELECT 1 FROM services WHERE state = 'delivering'")


def test_a_migration_that_locks_crosswise_with_the_fleet_says_so(database: Database) -> None:
    """Given somebody who waits for what the migration holds, while it waits for them."""
    ended: list[BaseException] = []

    def run() -> None:
        try:
            migrate(database.owner, {})
        except BaseException as error:
            ended.append(error)

    with database.owner.connect() as other:
        other.exec_driver_sql("SET deadlock_timeout = '1min'")
        other.exec_driver_sql("LOCK TABLE alembic_version IN SHARE UPDATE EXCLUSIVE MODE")
        migration = threading.Thread(target=run)
        migration.start()
        while not database.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            time.sleep(0.01)
        other.exec_driver_sql("LOCK TABLE alembic_version")  # it was read by the migration
        migration.join(30)
    assert [getattr(error, "code", error) for error in ended] == ["table_locked"]


def test_a_migration_does_not_wait_for_a_table_that_is_long_in_use(
    of_the_release_before: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.database.MIGRATION_LOCK_TIMEOUT", "200ms")
    with of_the_release_before.connect() as reader:
        reader.execute(text("SELECT FROM tasks"))
        with pytest.raises(AutorenewError, match="nothing was changed") as raised:
            migrate(of_the_release_before, {})
    assert raised.value.code == "table_locked"
    assert rows(of_the_release_before, "SELECT version_num FROM alembic_version") == [("0002",)]

    migrate(of_the_release_before, {})


def test_wrong_payment_methods_of_before_stay_and_no_others_are_accepted(
    of_the_release_before: Engine,
) -> None:
    others = f"UPDATE services SET payment_method_id = '{METHODS[2]}' WHERE customer_id = 'alice'"
    upgrade(of_the_release_before, "0006")
    with of_the_release_before.begin() as tx:
        tx.exec_driver_sql(others)

    migrate(of_the_release_before, {})

    unchecked = "SELECT conrelid::regclass::text FROM pg_constraint WHERE NOT convalidated"
    assert rows(of_the_release_before, unchecked) == [("services",)]
    with of_the_release_before.connect() as tx:
        wrong = next(f for f in audit(tx) if "own customer" in f.invariant)
    assert sorted(wrong.ids) == sorted(map(str, SERVICES[:2]))
    with pytest.raises(IntegrityError), of_the_release_before.begin() as tx:
        tx.exec_driver_sql(
            f"UPDATE services SET payment_method_id = '{METHODS[0]}' WHERE customer_id = 'bob'"
        )


def test_migrations_of_an_empty_database_lead_to_the_tables_in_code(database: Database) -> None:
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
def test_invoices_and_credit_notes_cannot_be_changed_even_by_the_owner(
    database: Database, table: str, change: str
) -> None:
    column = {"events": "name = 'x'", "credit_notes": "reason = 'x'"}.get(table, "tax = 0")

    with pytest.raises(SQLAlchemyError, match="append-only"):
        database.run(change.format(table, column))


def test_database_that_was_not_migrated_is_a_one_line_error(postgres: object) -> None:
    engine = connect(postgres.url("postgres"))  # type: ignore[attr-defined]

    with pytest.raises(ConfigurationError, match="run `autorenew migrate` first"):
        check_schema(engine)
    engine.dispose()


def test_an_owner_who_is_no_superuser_migrates_and_is_told_what_stays_open(
    postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = connect(postgres.url())
    at_once = server.execution_options(isolation_level="AUTOCOMMIT")
    with at_once.connect() as tx:
        tx.exec_driver_sql("CREATE ROLE plain LOGIN CREATEROLE PASSWORD 'plain'")
        tx.exec_driver_sql("CREATE DATABASE of_plain OWNER plain")
    try:
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", postgres.url("of_plain", "plain", "plain"))
        result = CliRunner().invoke(main, ["migrate"])

        assert result.exit_code == 0, result.output
        assert "every role may write large objects" in result.output
        engine = connect(postgres.url("of_plain", "plain", "plain"))
        with engine.begin() as tx:
            tx.exec_driver_sql(
                "SELECT enqueue_tasks('x', ARRAY[gen_random_uuid()], '{1}', '{q}', '{l}', 0)"
            )
            assert tx.exec_driver_sql("SELECT count(*) FROM tasks").scalar_one() == 1
        engine.dispose()
        reader = connect(postgres.role_url("of_plain", "readonly"))
        with pytest.raises(SQLAlchemyError, match="permission denied"), reader.connect() as tx:
            tx.exec_driver_sql("CREATE TEMPORARY TABLE mine ()")
        reader.dispose()
    finally:
        with at_once.connect() as tx:
            tx.exec_driver_sql("DROP DATABASE of_plain WITH (FORCE)")
            tx.exec_driver_sql("DROP ROLE plain")
        server.dispose()


def test_documents_of_before_are_chained_in_the_order_of_their_numbers(
    of_the_release_before: Engine,
) -> None:
    request, service = uuid.UUID(int=64), SERVICES[0]
    invoices = [uuid.UUID(int=80 + n) for n in range(3)]
    with of_the_release_before.begin() as tx:
        tx.exec_driver_sql(f"""
            INSERT INTO invoice_series VALUES ('FR-2026', 2, '2026-01-02'),
                ('IE-2026', 0, '2026-01-01'),
                ('FR-2026-C', 1, '2026-01-03');
            INSERT INTO payment_requests (id, payment_method_id, customer_id, subsidiary, country,
                currency, tax_mention, net, tax, total, state) VALUES
                ('{uuid.UUID(int=66)}', '{METHODS[0]}', 'alice', 'FR', 'FR', 'EUR', 'VAT FR',
                    3787, 757, 4544, 'paid');
            INSERT INTO invoices (id, series, number, issued_on, request_id, customer_id,
                subsidiary, country, currency, tax_mention, net, tax, total) VALUES
                ('{invoices[0]}', 'FR-2026', 2, '2026-01-02', '{uuid.UUID(int=66)}', 'alice', 'FR',
                    'FR', 'EUR', 'VAT FR', 3787, 757, 4544),
                ('{invoices[1]}', 'FR-2026', 1, '2026-01-01', '{request}', 'alice', 'FR', 'FR',
                    'EUR', 'VAT FR', 3787, 757, 4544);
            INSERT INTO invoice_lines (invoice_id, number, service_id, period_number, description,
                net, tax_rate, tax) VALUES
                ('{invoices[1]}', 1, '{service}', 1, 'Síte|"P1M"', 3787, 20, 757);
            INSERT INTO credit_notes (id, series, number, issued_on, invoice_id, reason, currency,
                net, tax, total) VALUES
                ('{uuid.UUID(int=90)}', 'FR-2026-C', 1, '2026-01-03', '{invoices[1]}', 'x', 'EUR',
                    3787, 757, 4544);
            INSERT INTO credit_note_lines (credit_note_id, invoice_id, invoice_line, service_id,
                period_number, description, net, tax_rate, tax) VALUES
                ('{uuid.UUID(int=90)}', '{invoices[1]}', 1, '{service}', 1, 'x', 3787, 20, 757);
        """)  # fmt: skip

    migrate(of_the_release_before, {})

    with of_the_release_before.connect() as tx:
        assert broken_documents(tx) == []
        assert list(broken_blocks(tx)) == []
        assert {head.chain: head.number for head in heads(tx)} == {"FR-2026": 2, "FR-2026-C": 1}
    with pytest.raises(IntegrityError, match="append-only"), of_the_release_before.begin() as tx:
        tx.exec_driver_sql("UPDATE invoices SET hash = NULL")


def test_database_of_a_release_that_this_one_does_not_know_is_left_as_it_is(
    database: Database,
) -> None:
    """Given a database that a newer release has migrated
    When this release is to migrate it, such as after it was rolled back
    Then it says so, in one line, and changes nothing.
    """
    database.run("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(AutorenewError, match=r"another release.*9999") as raised:
        migrate(database.owner, {"api": "not-to-be-set"})
    assert raised.value.code == "newer_release"
    with database.engine("api").connect() as tx:
        tx.execute(text("SELECT 1"))


@pytest.mark.parametrize("revision", ["'0001'", "NULL"])
def test_process_does_not_start_on_a_database_of_an_older_release(
    database: Database, revision: str
) -> None:
    """It would take what it does not find there for defects of the tasks."""
    check_schema(database.engine("billing"))
    database.run(f"COMMENT ON TABLE alembic_version IS {revision}")
    with pytest.raises(ConfigurationError, match="run `autorenew migrate` first"):
        check_schema(database.engine("billing"))

    migrate(database.owner, {})
    check_schema(database.engine("billing"))
    database.run("COMMENT ON TABLE alembic_version IS '9999'")
    check_schema(database.engine("billing"))
