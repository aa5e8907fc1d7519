"""Who opens a lane may let it wait longer; the relay sees since when it is open."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for role in ("billing", "reminders", "provisioning"):
        op.execute(f"GRANT SELECT (probe_at) ON lane_breakers TO autorenew_{role}")
    op.execute("GRANT SELECT (opened_at) ON lane_breakers TO autorenew_relay")
