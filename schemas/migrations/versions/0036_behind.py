"""The trace of an order, the last lines about a task that failed, the order behind a subject."""

from pathlib import Path

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

WORKERS = ("orders", "billing", "reminders", "provisioning")


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN trace text")
    op.execute("ALTER TABLE tasks ADD COLUMN lines text[]")
    op.execute("GRANT INSERT (trace) ON orders TO autorenew_api")
    for role in WORKERS:
        op.execute(f"GRANT SELECT (lines), UPDATE (lines) ON tasks TO autorenew_{role}")
    op.execute("GRANT SELECT (lines) ON tasks TO autorenew_api")
    op.execute(Path(__file__).with_suffix(".sql").read_text())
