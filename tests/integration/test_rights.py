"""Each kind of process has a database role with the rights that its work needs, and no others."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError

from autorenew import rights
from autorenew.local.postgres import PrivatePostgres
from producers.ledger.dispatching import dispatch
from schemas import locks
from schemas.database import connect, is_circumstance, migrate
from schemas.locks import Lock
from schemas.tables import ROLES, metadata, payment_methods
from tests.conftest import Database
from tests.integration.test_billing import run
from tests.support.given import order


def refused(database: Database, role: str, statement: str) -> bool:
    try:
        with database.engine(role).begin() as tx:
            tx.execute(text(statement))
    except ProgrammingError as error:
        return getattr(error.orig, "sqlstate", None) == "42501"  # insufficient_privilege
    return False


@pytest.mark.parametrize("role", [role for role in ROLES if role != "billing"])
def test_only_billing_reads_payment_methods(database: Database, role: str) -> None:
    assert refused(database, role, "SELECT token FROM payment_methods")
    assert not refused(database, "billing", "SELECT token FROM payment_methods")


def test_role_api_writes_payment_methods_and_cannot_read_them_back(
    database: Database,
) -> None:
    assert refused(database, "api", "SELECT token FROM payment_methods")


@pytest.mark.parametrize(
    ("role", "columns"),
    [
        ("api", "id, expires_on"),
        ("billing", "id, token, expires_on, gateway"),
        ("reminders", "id, expires_on"),
        ("scheduler", "id, expires_on"),
        ("exporter", "id, customer_id, created_at, expires_on, gateway"),
        ("readonly", "id, customer_id, created_at, expires_on, gateway"),
    ],
)
def test_of_a_payment_method_a_role_reads_what_it_uses(
    database: Database, role: str, columns: str
) -> None:
    assert not refused(database, role, f"SELECT {columns} FROM payment_methods")
    for column in payment_methods.c:
        unused = column.name not in columns.split(", ")
        assert refused(database, role, f"SELECT {column.name} FROM payment_methods") is unused


def test_provisioning_says_once_from_when_on_a_service_lasts(
    embedded: Any, database: Database
) -> None:
    run(embedded(), database, order("k-1"))
    for moved in ("expires_at = expires_at + interval '1 year'", "anchor = anchor - 30"):
        assert refused(database, "provisioning", f"UPDATE services SET {moved}")
    with database.engine("provisioning").begin() as tx:  # as it is when anything else is confirmed
        tx.execute(text("UPDATE services SET expires_at = expires_at, anchor = anchor"))
    with database.engine("billing").begin() as tx:
        tx.execute(text("UPDATE services SET expires_at = expires_at + interval '1 month'"))


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("provisioning", "SELECT * FROM charges"),
        ("provisioning", "SELECT * FROM invoices"),
        ("provisioning", "UPDATE services SET paid_periods = 99"),
        ("provisioning", "UPDATE services SET desired = 'active'"),
        ("provisioning", "SELECT payment_method_id FROM orders"),
        ("provisioning", "SELECT vat_number FROM orders"),
        ("provisioning", "SELECT vat_number FROM customers"),
        ("provisioning", "SELECT total FROM payment_requests"),
        ("provisioning", "UPDATE services SET customer_id = 'x'"),
        ("billing", "SELECT email FROM customers"),
        ("billing", "SELECT language FROM customers"),
        ("billing", "SELECT vat_number FROM orders"),
        ("billing", "UPDATE charges SET started_at = now()"),
        ("billing", "INSERT INTO charges (started_at) VALUES (now())"),
        ("billing", "UPDATE request_lines SET net = 0"),
        ("orders", "SELECT expires_on FROM payment_methods"),
        ("orders", "SELECT id FROM services"),
        ("orders", "SELECT id FROM payment_requests"),
        ("orders", "INSERT INTO services (state) VALUES ('active')"),
        ("orders", "INSERT INTO payment_requests (state) VALUES ('paid')"),
        ("reminders", "SELECT updated_at FROM customers"),
        ("reminders", "UPDATE emails SET customer_id = 'x'"),
        ("scheduler", "UPDATE emails SET begun_at = now()"),
        ("api", "SELECT vat_number FROM orders"),
        ("api", "SELECT body FROM rejected_documents"),
        ("api", "SELECT net FROM payment_requests"),
        ("api", "INSERT INTO orders (accepted_at) VALUES ('2020-01-01')"),
        ("api", "INSERT INTO agreements (accepted_at) VALUES ('2020-01-01')"),
        ("billing", "SELECT * FROM operations"),
        ("billing", "UPDATE services SET resource_id = 'x'"),
        ("billing", "UPDATE invoices SET total = 0"),
        ("billing", "DELETE FROM invoices"),
        ("billing", "DELETE FROM credit_notes"),
        ("orders", "SELECT * FROM charges"),
        ("orders", "DELETE FROM orders"),
        ("relay", "SELECT * FROM orders"),
        ("relay", "INSERT INTO routes VALUES ('x', 'x', 'x')"),
        ("relay", "DELETE FROM tasks"),
        ("api", "SELECT * FROM charges"),
        ("api", "UPDATE orders SET customer_id = 'x'"),
        ("api", "UPDATE services SET state = 'terminated'"),
        ("api", "UPDATE services SET paid_periods = 99"),
        ("api", "UPDATE services SET expires_at = now()"),
        ("api", "UPDATE renewals SET net = 0"),
        ("api", "INSERT INTO notices DEFAULT VALUES"),
        ("api", "INSERT INTO payment_requests DEFAULT VALUES"),
        ("api", "UPDATE destructions SET services = 0"),
        ("api", "UPDATE heartbeat SET beat_at = now()"),
        ("orders", "SELECT * FROM renewals"),
        ("orders", "UPDATE services SET next_step = 'terminate'"),
        ("billing", "UPDATE services SET mode = 'stop'"),
        ("billing", "UPDATE services SET held_at = NULL"),
        ("provisioning", "UPDATE services SET held_at = NULL"),
        ("api", "UPDATE refunds SET by_hand = true"),
        ("billing", "UPDATE renewals SET net = 0"),
        ("billing", "INSERT INTO notices DEFAULT VALUES"),
        ("billing", "INSERT INTO emails DEFAULT VALUES"),
        ("billing", "UPDATE customers SET email = 'x'"),
        ("billing", "DELETE FROM lane_pauses"),
        ("reminders", "SELECT * FROM charges"),
        ("reminders", "SELECT * FROM payment_requests"),
        ("reminders", "SELECT * FROM operations"),
        ("reminders", "UPDATE services SET mode = 'stop'"),
        ("reminders", "UPDATE services SET state = 'suspended'"),
        ("reminders", "UPDATE renewals SET asked_at = now()"),
        ("reminders", "INSERT INTO emails (sent_at) VALUES (now())"),
        ("reminders", "UPDATE emails SET given_up_at = now()"),
        ("reminders", "INSERT INTO notices DEFAULT VALUES"),
        ("reminders", "DELETE FROM notices"),
        ("provisioning", "SELECT * FROM customers"),
        ("provisioning", "UPDATE services SET mode = 'stop'"),
        ("provisioning", "UPDATE renewals SET asked_at = now()"),
        ("provisioning", "INSERT INTO notices DEFAULT VALUES"),
        ("relay", "SELECT * FROM services"),
        ("relay", "DELETE FROM lane_pauses"),
        ("relay", "SELECT * FROM emails"),
        # It decides what is next; it neither does it nor resumes what was paused.
        ("scheduler", "SELECT * FROM customers"),
        ("scheduler", "SELECT * FROM orders"),
        ("scheduler", "SELECT * FROM payment_requests"),
        ("scheduler", "SELECT * FROM charges"),
        ("scheduler", "SELECT * FROM invoices"),
        ("scheduler", "SELECT * FROM operations"),
        ("scheduler", "UPDATE services SET state = 'suspended'"),
        ("scheduler", "UPDATE services SET desired = 'absent'"),
        ("scheduler", "UPDATE services SET mode = 'stop'"),
        ("scheduler", "UPDATE services SET paid_periods = 99"),
        ("scheduler", "UPDATE services SET expires_at = now()"),
        ("scheduler", "INSERT INTO services DEFAULT VALUES"),
        ("scheduler", "UPDATE renewals SET net = 0"),
        ("scheduler", "UPDATE emails SET sent_at = now()"),
        ("scheduler", "DELETE FROM notices"),
        ("scheduler", "DELETE FROM lane_pauses"),
        ("scheduler", "UPDATE rollouts SET starts_on = now()"),
        # It puts a change in force that was planned, and plans none.
        ("scheduler", "INSERT INTO subsidiary_changes DEFAULT VALUES"),
        ("scheduler", "UPDATE subsidiaries SET definition = '{}'"),
        ("scheduler", "UPDATE prices SET renewal = 0"),
        ("scheduler", "UPDATE notices SET expires_at = now()"),
        ("scheduler", "UPDATE renewals SET currency = 'EUR'"),
        ("billing", "SELECT change_subsidiary(1)"),
        ("api", "SELECT carry_over(1, '{}', now())"),
        ("billing", "UPDATE renewals SET currency = 'EUR'"),
        ("reminders", "UPDATE renewals SET currency = 'EUR'"),
        ("readonly", "DELETE FROM tasks"),
        ("readonly", "UPDATE virtual_clock SET ahead = '1 day'"),
        ("readonly", "UPDATE orders SET state = 'delivered'"),
    ],
)  # fmt: skip
def test_role_is_refused_what_its_work_does_not_need(
    database: Database, role: str, statement: str
) -> None:
    assert refused(database, role, statement)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("scheduler", "UPDATE services SET next_step = NULL, next_step_at = NULL"),
        ("scheduler", "SELECT agreed_version, suspended_at FROM services"),
        ("scheduler", "SELECT id, expires_on FROM payment_methods"),
        ("reminders", "SELECT id, expires_on FROM payment_methods"),
        ("scheduler", "SELECT begun_at FROM emails FOR SHARE"),
        ("scheduler", "DELETE FROM recomputations"),
        ("scheduler", "DELETE FROM destructions"),
        ("scheduler", "SELECT change_subsidiary(1)"),
        ("reminders", "UPDATE renewals SET announced_currency = NULL"),
        ("readonly", "SELECT * FROM subsidiary_changes"),
        ("scheduler", "INSERT INTO lane_pauses (lane, reason) VALUES ('renewals', 'x')"),
        ("reminders", "UPDATE emails SET sent_at = now()"),
        ("reminders", "SELECT email, language FROM customers"),
        ("provisioning", "UPDATE services SET suspended_at = now()"),
        ("billing", "UPDATE services SET expires_at = NULL"),
        ("billing", "UPDATE renewals SET declines = declines + 1"),
        ("relay", "INSERT INTO lane_pauses (lane, reason) VALUES ('renewals', 'x')"),
        ("relay", "SELECT beat_at FROM heartbeat"),
        ("api", "UPDATE services SET mode = 'stop', mode_changed_at = now()"),
        ("api", "UPDATE renewals SET asked_at = now()"),
        ("api", "DELETE FROM lane_pauses"),
        ("readonly", "SELECT * FROM renewals, notices, emails, policies, rollouts, forecasts"),
    ],
)  # fmt: skip
def test_role_is_granted_what_its_work_needs(database: Database, role: str, statement: str) -> None:
    assert not refused(database, role, statement)


@pytest.mark.parametrize("role", ROLES)
def test_every_role_reads_the_virtual_clock_and_none_moves_it(
    database: Database, role: str
) -> None:
    assert not refused(database, role, "SELECT ahead FROM virtual_clock")
    for statement in (
        "INSERT INTO virtual_clock VALUES (true, '0')",
        "UPDATE virtual_clock SET ahead = '1 day'",
        "DELETE FROM virtual_clock",
    ):
        assert refused(database, role, statement)


@pytest.mark.parametrize("role", ROLES)
def test_no_role_can_change_the_schema_or_the_history(database: Database, role: str) -> None:
    assert refused(database, role, "CREATE TABLE mine (id int)")
    for statement in ("UPDATE events SET name = 'x'", "DELETE FROM events", "TRUNCATE events"):
        assert refused(database, role, statement)


@pytest.fixture(scope="module")
def migrated(postgres: PrivatePostgres) -> Iterator[Database]:
    """A database that was migrated itself: a copy of one has not its rights to connect."""
    name = "rights"
    postgres.ensure_database(name)
    database = Database(postgres, name)
    migrate(database.owner, postgres.role_passwords())
    yield database
    database.close()
    postgres.drop_database(name)


def test_the_page_lists_the_rights_of_a_database_that_was_just_migrated(
    migrated: Database,
) -> None:
    with migrated.owner.connect() as tx:
        listed = rights.table_of_rights(tx)

    page = rights.PAGE.read_text()
    assert page == rights.written(page, listed), "run `make rights`"


@pytest.mark.parametrize("role", ROLES)
def test_no_role_stores_large_objects_or_creates_anything(migrated: Database, role: str) -> None:
    for statement in (
        "SELECT lo_creat(-1)",
        "SELECT lo_create(7)",
        "SELECT lo_from_bytea(7, 'x')",
        "SELECT lo_get(7)",
        "SELECT lo_unlink(7)",
        "CREATE TABLE mine (id int)",
        "CREATE SCHEMA mine",
    ):
        assert refused(migrated, role, statement)


@pytest.mark.parametrize("role", [role for role in ROLES if role not in ("api", "console")])
def test_only_an_import_makes_temporary_tables(migrated: Database, role: str) -> None:
    assert refused(migrated, role, "CREATE TEMPORARY TABLE mine (id int)")
    assert not refused(migrated, "api", "CREATE TEMPORARY TABLE mine (id int)")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reaches_no_other_database(
    migrated: Database, postgres: PrivatePostgres, role: str
) -> None:
    assert not refused(migrated, role, "SELECT 1")
    for other in ("postgres", "template1"):
        elsewhere = connect(postgres.role_url(other, role))
        with pytest.raises(OperationalError, match="permission denied for database"):
            elsewhere.connect()


def test_a_login_that_was_granted_nothing_does_not_reach_the_database(
    migrated: Database, postgres: PrivatePostgres
) -> None:
    migrated.run("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    try:
        with pytest.raises(OperationalError, match="permission denied for database"):
            connect(postgres.url(migrated.name, "stranger", "stranger")).connect()
    finally:
        migrated.run("DROP ROLE stranger")


def test_migrating_again_closes_what_was_opened(migrated: Database) -> None:
    migrated.run(f"GRANT CONNECT, TEMPORARY ON DATABASE {migrated.name} TO PUBLIC")

    migrate(migrated.owner, {})

    assert refused(migrated, "readonly", "CREATE TEMPORARY TABLE mine (id int)")


@pytest.mark.parametrize("role", ROLES)
def test_no_role_says_when_something_happened(database: Database, role: str) -> None:
    told = "INSERT INTO events (subject, name) VALUES (gen_random_uuid(), 'x')"
    assert refused(database, role, told) is (role in ("exporter", "readonly"))
    dated = "INSERT INTO events (subject, name, at) VALUES (gen_random_uuid(), 'x', '2020-01-01')"
    assert refused(database, role, dated)


MODES = ("ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "EXCLUSIVE")


@pytest.mark.parametrize("lock", Lock)
def test_only_those_who_work_under_a_lock_can_take_it(database: Database, lock: Lock) -> None:
    takes = f"LOCK TABLE {lock} IN EXCLUSIVE MODE NOWAIT"
    able = [role for role in ROLES if not refused(database, role, takes)]

    named = {
        "lock_audit": ["exporter"], "lock_dispatch": ["relay"], "lock_import": ["api", "console"],
    }  # fmt: skip
    assert able == named.get(lock, ["scheduler"])
    for role in set(ROLES) - set(able):
        for mode in MODES:
            assert refused(database, role, f"LOCK TABLE {lock} IN {mode} MODE NOWAIT")


def test_what_a_reader_can_lock_stops_nobody(database: Database) -> None:
    """With the keys that the release before used, and every table it can read locked."""
    database.place(order("k-1"))
    with database.engine("readonly").begin() as reader:
        for key in (0x6175746F, 0x73776570, 0x61757472, 0x666F7265):
            reader.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        for table in metadata.sorted_tables:
            if reader.execute(
                text("SELECT has_table_privilege(:table, 'SELECT')"), {"table": table.name}
            ).scalar_one():
                reader.execute(text(f"LOCK TABLE {table.name} IN ACCESS SHARE MODE"))

        with database.engine("relay").begin() as tx:
            tx.execute(text("SET LOCAL lock_timeout = '2s'"))
            assert dispatch(tx, batch=lambda name: 100, cap=100, rescue_seconds=30)
        with database.engine("scheduler").begin() as tx:
            tx.execute(text("SET LOCAL lock_timeout = '2s'"))
            assert locks.try_to_take(tx, Lock.SWEEP)
            locks.take(tx, Lock.SNAPSHOT)
        with database.engine("api").begin() as tx:
            assert locks.try_to_take(tx, Lock.IMPORT)


def test_a_lock_that_is_held_is_not_waited_for(database: Database) -> None:
    with database.engine("scheduler").begin() as first:
        assert locks.try_to_take(first, Lock.SWEEP)
        with database.engine("scheduler").begin() as second:
            assert not locks.try_to_take(second, Lock.SWEEP)
            assert second.execute(text("SELECT 1")).scalar_one() == 1
    with database.engine("scheduler").begin() as third:
        assert locks.try_to_take(third, Lock.SWEEP)


def test_a_lock_whose_holder_is_frozen_is_free_again_in_seconds(database: Database) -> None:
    frozen = database.engine("relay").connect()
    assert dispatch(frozen, batch=lambda name: 100, cap=100, rescue_seconds=30) == []
    started = time.monotonic()

    with database.engine("relay").begin() as tx:
        dispatch(tx, batch=lambda name: 100, cap=100, rescue_seconds=30)

    assert time.monotonic() - started < 20
    with pytest.raises(DBAPIError) as caught:
        frozen.execute(text("SELECT 1"))
    assert is_circumstance(caught.value)
    frozen.close()


OTHERS = """INSERT INTO customers (id, subsidiary, country, language, email)
        VALUES ('bob', 'FR', 'FR', 'fr', 'bob@example.com');
    INSERT INTO payment_methods (id, customer_id, token)
        VALUES ('00000000-0000-0000-0000-000000000b0b', 'bob', 'tok-bob')"""


@pytest.mark.parametrize("table", ["customers", "orders", "services", "payment_requests"])
def test_nothing_is_paid_with_a_payment_method_of_another_customer(
    embedded: Any, database: Database, table: str
) -> None:
    run(embedded(), database, order("k-1"))
    database.run(OTHERS)
    assert database.value(f"SELECT count(*) FROM {table} WHERE payment_method_id IS NOT NULL") == 1

    with pytest.raises(IntegrityError, match="payment_method_id"):
        database.run(
            f"UPDATE {table} SET payment_method_id = '00000000-0000-0000-0000-000000000b0b'"
            " WHERE payment_method_id IS NOT NULL"
        )
