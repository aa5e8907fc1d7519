"""What drivers say exists is compared with what should, once in a while."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# Whose failed tasks a person may drop.
GIVEN_UP = "'price', 'remind', 'request', 'withdraw', 'suspend', 'terminate', 'reconcile'"
UNIVERSES = ("web", "dedicated", "cloud", "telecom")


def upgrade() -> None:
    op.execute("""
        CREATE TABLE reconciliations (
            driver TEXT NOT NULL,
            id UUID NOT NULL,
            asked_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            ended_at TIMESTAMP WITH TIME ZONE,
            outcome TEXT,
            differences JSONB,
            CONSTRAINT reconciliations_pkey PRIMARY KEY (driver),
            CONSTRAINT reconciliations_id_key UNIQUE (id)
        )
    """)
    op.execute("GRANT SELECT ON reconciliations TO autorenew_readonly")
    op.execute("""
        GRANT SELECT (driver, asked_at), INSERT (driver, id), UPDATE (asked_at)
            ON reconciliations TO autorenew_scheduler
    """)
    op.execute("""
        GRANT SELECT (driver, id), UPDATE (ended_at, outcome, differences)
            ON reconciliations TO autorenew_provisioning
    """)
    op.execute(f"""
        ALTER POLICY tasks_api_delete ON tasks USING (state = 'failed' AND name IN ({GIVEN_UP}))
    """)
    for universe in UNIVERSES:
        op.execute(f"""
            INSERT INTO enqueuers VALUES
                ('reconcile', '{universe}', 'autorenew_scheduler'),
                ('converge', '{universe}', 'autorenew_provisioning')
        """)
