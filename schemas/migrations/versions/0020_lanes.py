"""Lanes that open by themselves while their far side fails, and limits of the whole fleet."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

QUEUES = {
    "billing": "('billing')",
    "reminders": "('reminders')",
    "provisioning": "('web', 'dedicated', 'cloud', 'telecom')",
}
SHOWN = "lane, cause, reason, opened_at, probes, probe_at"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE lane_breakers (
            lane TEXT NOT NULL,
            queue TEXT NOT NULL,
            cause TEXT NOT NULL,
            reason TEXT NOT NULL,
            opened_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            probes INTEGER DEFAULT 0 NOT NULL,
            probe_at TIMESTAMP WITH TIME ZONE NOT NULL,
            probe UUID,
            CONSTRAINT lane_breakers_pkey PRIMARY KEY (lane),
            CONSTRAINT lane_breakers_cause_check CHECK (cause IN ('failing', 'asked'))
        )
    """)
    op.execute("""
        CREATE TABLE lane_limits (
            lane TEXT NOT NULL,
            at_once INTEGER,
            per_second DOUBLE PRECISION,
            burst INTEGER,
            tokens DOUBLE PRECISION DEFAULT 0 NOT NULL,
            filled_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            CONSTRAINT lane_limits_pkey PRIMARY KEY (lane),
            CONSTRAINT lane_limits_bounds_check CHECK (
                (at_once IS NOT NULL OR per_second IS NOT NULL)
                AND (burst IS NULL) = (per_second IS NULL)
                AND at_once > 0 AND per_second > 0 AND burst > 0)
        )
    """)
    op.execute("ALTER TABLE lane_breakers ENABLE ROW LEVEL SECURITY")
    for role in ("api", "relay", "orders", "scheduler", "readonly", *QUEUES):
        op.execute(f"""
            CREATE POLICY lane_breakers_{role}_select ON lane_breakers FOR SELECT
            TO autorenew_{role} USING (true)
        """)
    for role in ("api", "relay"):
        op.execute(f"""
            CREATE POLICY lane_breakers_{role}_update ON lane_breakers FOR UPDATE
            TO autorenew_{role} USING (true)
        """)
    op.execute("""
        CREATE POLICY lane_breakers_api_delete ON lane_breakers FOR DELETE
        TO autorenew_api USING (true)
    """)
    # Who calls a far side says how it answers, and nobody else does.
    for role, queues in QUEUES.items():
        for verb, rows in (
            ("INSERT", f"WITH CHECK (queue IN {queues})"),
            ("UPDATE", f"USING (queue IN {queues})"),
            ("DELETE", f"USING (queue IN {queues})"),
        ):
            op.execute(f"""
                CREATE POLICY lane_breakers_{role}_{verb.lower()} ON lane_breakers FOR {verb}
                TO autorenew_{role} {rows}
            """)
        op.execute(f"""
            GRANT SELECT (lane, cause, opened_at, probes, probe),
                INSERT (lane, queue, cause, reason, probe_at),
                UPDATE (probe, probes, reason, cause, probe_at), DELETE
            ON lane_breakers TO autorenew_{role}
        """)
    op.execute(f"""
        GRANT SELECT ({SHOWN}), UPDATE (probe, probe_at), DELETE ON lane_breakers TO autorenew_api
    """)
    op.execute("GRANT SELECT (lane, probe) ON lane_breakers TO autorenew_orders")
    op.execute("GRANT SELECT (lane) ON lane_breakers TO autorenew_scheduler")
    op.execute("GRANT SELECT (source) ON lane_pauses TO autorenew_scheduler")
    op.execute("""
        GRANT SELECT (lane, probe_at), UPDATE (probe, probe_at) ON lane_breakers TO autorenew_relay
    """)
    op.execute("GRANT SELECT ON lane_breakers, lane_limits TO autorenew_readonly")
    op.execute("""
        GRANT SELECT (lane, at_once, per_second, burst, tokens),
            INSERT (lane, at_once, per_second, burst, tokens),
            UPDATE (at_once, per_second, burst, tokens), DELETE
        ON lane_limits TO autorenew_api
    """)
    op.execute("""
        GRANT SELECT, UPDATE (tokens, filled_at) ON lane_limits TO autorenew_relay
    """)
