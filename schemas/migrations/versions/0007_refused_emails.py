"""An e-mail says when it was refused for its recipient.

The column is NULL for what the release before sent, and goes on sending meanwhile: such a refusal
is known by its failed task alone.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE emails ADD COLUMN refused_at TIMESTAMP WITH TIME ZONE")
    op.execute("GRANT UPDATE (refused_at) ON emails TO autorenew_reminders")
