"""Which processes run, and what the audit found; a role that watches."""

from pathlib import Path

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

# Each writes about its own processes, and no other's.
WRITERS = (
    "api", "orders", "billing", "reminders", "provisioning", "relay", "scheduler", "events",
    "exporter",
)  # fmt: skip


def upgrade() -> None:
    op.execute(Path(__file__).with_suffix(".sql").read_text())
    for role in WRITERS:
        op.execute(f"""
            CREATE POLICY processes_{role}_own ON processes TO autorenew_{role}
            USING (role = CURRENT_USER) WITH CHECK (role = CURRENT_USER)
        """)
        if role != "exporter":  # as a member of readonly it does already
            op.execute(f"GRANT SELECT (id, beat_at) ON processes TO autorenew_{role}")
        op.execute(f"""
            GRANT INSERT (id, process, queues, version, host, pid),
                UPDATE (beat_at, ended_at), DELETE
            ON processes TO autorenew_{role}
        """)
