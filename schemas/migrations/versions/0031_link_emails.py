"""Customers whose link is too old may have a new one sent."""

from alembic import op

revision = "0031"
down_revision = "0029"
branch_labels = None
depends_on = None

# Whose failed tasks a person may drop.
GIVEN_UP = (
    "'price', 'remind', 'request', 'withdraw', 'suspend', 'terminate', 'reconcile', 'deliver',"
    " 'send_link'"
)


def upgrade() -> None:
    op.execute("""
        CREATE TABLE link_emails (
            id UUID NOT NULL,
            customer_id TEXT NOT NULL,
            hour TIMESTAMP WITH TIME ZONE NOT NULL,
            asked_at TIMESTAMP WITH TIME ZONE NOT NULL,
            begun_at TIMESTAMP WITH TIME ZONE,
            sent_at TIMESTAMP WITH TIME ZONE,
            CONSTRAINT link_emails_pkey PRIMARY KEY (id),
            CONSTRAINT link_emails_customer_id_fkey
                FOREIGN KEY(customer_id) REFERENCES customers (id),
            CONSTRAINT link_emails_customer_id_hour_key UNIQUE (customer_id, hour)
        )
    """)
    op.execute("GRANT SELECT ON link_emails TO autorenew_readonly")
    op.execute("""
        GRANT SELECT (id, customer_id), INSERT (id, customer_id, hour, asked_at)
            ON link_emails TO autorenew_api
    """)
    op.execute("""
        GRANT SELECT (id, customer_id, begun_at, sent_at), UPDATE (begun_at, sent_at)
            ON link_emails TO autorenew_reminders
    """)
    op.execute("GRANT SELECT (subsidiary) ON customers TO autorenew_reminders")
    op.execute(f"""
        ALTER POLICY tasks_api_delete ON tasks USING (state = 'failed' AND name IN ({GIVEN_UP}))
    """)
    op.execute("INSERT INTO enqueuers VALUES ('send_link', 'reminders', 'autorenew_api')")
