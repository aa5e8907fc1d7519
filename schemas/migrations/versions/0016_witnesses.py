"""Processes know what they saw committed: a failover that lost nothing needs no person."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE heartbeat ADD COLUMN doubted_at TIMESTAMP WITH TIME ZONE")
    op.execute("""
        CREATE TABLE witnesses (
            process UUID NOT NULL,
            number BIGINT NOT NULL,
            beat_at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT witnesses_pkey PRIMARY KEY (process)
        )
    """)
    op.execute("""
        GRANT SELECT, INSERT, UPDATE (number, beat_at), DELETE ON witnesses
        TO autorenew_relay, autorenew_scheduler
    """)
    op.execute("GRANT SELECT ON witnesses TO autorenew_readonly")
    # A worker that misses a charge it recorded says so.
    op.execute("""
        GRANT SELECT (reason), INSERT (lane, reason), UPDATE (reason) ON lane_pauses
        TO autorenew_billing
    """)
