"""Each kind of process has a database role that can do its work and nothing else."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from tests.conftest import Database


def refused(database: Database, role: str, statement: str) -> bool:
    try:
        with database.engine(role).begin() as tx:
            tx.execute(text(statement))
    except ProgrammingError as error:
        return "permission denied" in str(error)
    return False


@pytest.mark.parametrize("role", ["provisioning", "orders", "relay", "reminders", "readonly"])
def test_only_billing_reads_payment_methods(database: Database, role: str) -> None:
    assert refused(database, role, "SELECT token FROM payment_methods")
    assert not refused(database, "billing", "SELECT token FROM payment_methods")


def test_whoever_takes_orders_in_writes_payment_methods_and_cannot_read_them_back(
    database: Database,
) -> None:
    assert refused(database, "api", "SELECT token FROM payment_methods")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("provisioning", "SELECT * FROM charges"),
        ("provisioning", "SELECT * FROM invoices"),
        ("provisioning", "UPDATE services SET paid_periods = 99"),
        ("provisioning", "UPDATE services SET desired = 'active'"),
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
        ("readonly", "DELETE FROM tasks"),
        ("readonly", "UPDATE orders SET state = 'delivered'"),
    ],
)  # fmt: skip
def test_what_a_role_has_no_business_with_is_refused(
    database: Database, role: str, statement: str
) -> None:
    assert refused(database, role, statement)


@pytest.mark.parametrize(
    "role", ["api", "orders", "billing", "reminders", "provisioning", "relay", "readonly"]
)
def test_no_role_can_change_the_schema_or_the_history(database: Database, role: str) -> None:
    assert refused(database, role, "CREATE TABLE mine (id int)")
    for statement in ("UPDATE events SET name = 'x'", "DELETE FROM events", "TRUNCATE events"):
        assert refused(database, role, statement)
