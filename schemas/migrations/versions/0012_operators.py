"""What an operator decides: a service is suspended, and what has failed is given up or settled.

Suspend services only once every process is of this release: one of the release before takes such a
service for one that was not paid.
"""

from alembic import op

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None

DECIDE = ("api", "billing", "provisioning", "reminders", "scheduler")


def upgrade() -> None:
    op.execute("""
        ALTER TABLE services
            ADD COLUMN held_at TIMESTAMP WITH TIME ZONE,
            ADD COLUMN held_because TEXT
    """)
    op.execute("CREATE INDEX services_held ON services (held_at) WHERE held_at IS NOT NULL")
    for role in DECIDE:
        op.execute(f"GRANT SELECT (held_at) ON services TO autorenew_{role}")
    op.execute("""
        GRANT UPDATE (held_at, held_because, suspended_at) ON services
        TO autorenew_api
    """)
    op.execute("GRANT UPDATE (suspended_at) ON services TO autorenew_billing")
    op.execute("INSERT INTO enqueuers VALUES ('request', 'billing', 'autorenew_billing')")
    _mail()


def _mail() -> None:
    """What nothing can be written about goes into an e-mail of its own."""
    op.execute("DROP INDEX emails_customer_day")
    op.execute("CREATE INDEX emails_customer_day ON emails (customer_id, day)")
    op.execute("""
        GRANT SELECT (day), INSERT (id, customer_id, day) ON emails TO autorenew_reminders
    """)
    op.execute("GRANT UPDATE (email_id) ON notices TO autorenew_reminders")
    op.execute("GRANT EXECUTE ON FUNCTION enqueue_tasks TO autorenew_reminders")
    op.execute("INSERT INTO enqueuers VALUES ('remind', 'reminders', 'autorenew_reminders')")
