"""A payment method pays for its own customer only, and roles have the rights that they use."""

from alembic import op

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None

# Table -> its column of the customer, and when the key is checked. Orders and customers are written
# before the method that they name.
PAID_WITH = {
    "customers": ("id", "DEFERRABLE INITIALLY DEFERRED"),
    "orders": ("customer_id", "DEFERRABLE INITIALLY DEFERRED"),
    "services": ("customer_id", ""),
    "payment_requests": ("customer_id", ""),
}

# Those that tell the history. When something happened the database says.
TELLERS = ("api", "orders", "billing", "reminders", "provisioning", "relay", "scheduler")

# What one process does at a time -> who does it. Whoever may write such a table may lock it.
LOCKS = {
    "lock_dispatch": "relay",
    "lock_import": "api",
    "lock_snapshot": "scheduler",
    "lock_sweep": "scheduler",
}


def upgrade() -> None:
    # Rather give up than have everybody wait behind whoever holds one of these tables for long.
    op.execute("SET LOCAL lock_timeout = '5s'")
    _own_methods_only()
    for role in TELLERS:
        op.execute(f"REVOKE INSERT ON events FROM autorenew_{role}")
        op.execute(
            "GRANT INSERT (subject, name, task, waited, attempt, detail) ON events"
            f" TO autorenew_{role}"
        )
    for lock, role in LOCKS.items():
        op.execute(f"CREATE TABLE {lock} ()")
        op.execute(f"GRANT UPDATE ON {lock} TO autorenew_{role}")


def _own_methods_only() -> None:
    """What is wrong already stays as it is and is told by the audit; nothing is added to it."""
    op.execute("""
        ALTER TABLE payment_methods
            ADD CONSTRAINT payment_methods_id_customer_id_key UNIQUE (id, customer_id)
    """)
    for table, (customer, when) in PAID_WITH.items():
        key = f"{table}_payment_method_id_{customer}_fkey"
        op.execute(f"""
            ALTER TABLE {table} ADD CONSTRAINT {key} FOREIGN KEY (payment_method_id, {customer})
                REFERENCES payment_methods (id, customer_id) {when} NOT VALID
        """)
        op.execute(f"""
            DO $$ BEGIN
                ALTER TABLE {table} VALIDATE CONSTRAINT {key};
            EXCEPTION WHEN foreign_key_violation THEN
                RAISE WARNING '{key} is not validated: see what "autorenew audit" says';
            END $$
        """)
