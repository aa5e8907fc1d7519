"""The trace of a renewal, and all that a task is about: not its order alone."""

from pathlib import Path

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

# Whoever begins a renewal: by a reminder, by a payment request, or at the customer's wish.
BEGINNERS = ("scheduler", "billing", "api")


def upgrade() -> None:
    op.execute("ALTER TABLE renewals ADD COLUMN trace text")
    for role in BEGINNERS:
        op.execute(f"GRANT UPDATE (trace) ON renewals TO autorenew_{role}")
    op.execute(Path(__file__).with_suffix(".sql").read_text())
