"""Tasks are handed over in batches, and who may touch those."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Whoever enqueues or works. A relay gathers tasks; it never deletes one.
ROLES = ("api", "orders", "billing", "reminders", "provisioning", "scheduler", "relay")


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)
    for role in ROLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON batches TO autorenew_{role}")
        op.execute(f"GRANT SELECT ON sleeping_relays TO autorenew_{role}")
    op.execute("GRANT INSERT, UPDATE, DELETE ON sleeping_relays TO autorenew_relay")
    op.execute("GRANT SELECT ON batches, sleeping_relays TO autorenew_readonly")
