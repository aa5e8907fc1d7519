"""A task keeps the far side's own reason beside ours; a service what its driver says of it."""

from pathlib import Path

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE tasks ADD COLUMN code TEXT")
    for role in ("orders", "billing", "reminders", "provisioning", "relay"):
        op.execute(f"GRANT SELECT (code), UPDATE (code) ON tasks TO autorenew_{role}")
    op.execute("GRANT UPDATE (code) ON tasks TO autorenew_api")
    op.execute((Path(__file__).parent / "0019_enqueue.sql").read_text())
    op.execute("ALTER TABLE services ADD COLUMN details JSONB")
    op.execute("GRANT SELECT (details), UPDATE (details) ON services TO autorenew_provisioning")
