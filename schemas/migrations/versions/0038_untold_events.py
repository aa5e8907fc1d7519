"""Events that could not be composed are kept until they are told."""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE untold_events (
            event_id bigint NOT NULL,
            kind text NOT NULL,
            error text NOT NULL,
            found_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT untold_events_pkey PRIMARY KEY (event_id)
        )
    """)
    op.execute("""
        GRANT SELECT (event_id, kind, error), INSERT (event_id, kind, error),
            UPDATE (kind, error), DELETE
        ON untold_events TO autorenew_events
    """)
    op.execute("GRANT SELECT ON untold_events TO autorenew_api, autorenew_readonly")
