"""What an operator decides: a service is suspended, and what has failed is given up or settled.

Suspend services only once every process is of this release: one of the release before takes such a
service for one that was not paid.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Steps that are dropped, once a person has given them up or their cause is gone.
GIVEN_UP = "'price', 'remind', 'request', 'withdraw', 'suspend', 'terminate'"
# Roles that decide what is next for a service.
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
    _given_up()


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


def _given_up() -> None:
    """What has failed is given up, or settled by hand."""
    op.execute("ALTER TABLE emails ADD COLUMN given_up_at TIMESTAMP WITH TIME ZONE")
    op.execute(
        "GRANT SELECT (begun_at), UPDATE (refused_at, given_up_at) ON emails TO autorenew_api"
    )
    op.execute("GRANT DELETE ON notices TO autorenew_api")
    op.execute("ALTER TABLE payment_requests ADD COLUMN given_up_at TIMESTAMP WITH TIME ZONE")
    op.execute("GRANT UPDATE (given_up_at) ON payment_requests TO autorenew_api, autorenew_billing")
    op.execute("ALTER TABLE refunds ADD COLUMN by_hand BOOLEAN NOT NULL DEFAULT false")
    op.execute("GRANT UPDATE (by_hand) ON refunds TO autorenew_billing")
    op.execute(f"""
        ALTER POLICY tasks_api_delete ON tasks USING (state = 'failed' AND name IN ({GIVEN_UP}))
    """)
