"""Customers are told by e-mail what became of an order that they paid."""

from pathlib import Path

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

ASKS = ("provisioning", "api")
# Of whose e-mail a person decides, because it failed.
FAILED = """
    EXISTS (SELECT FROM tasks AS t
        WHERE t.name = 'tell' AND t.subject = order_emails.order_id AND t.state = 'failed')
"""


def upgrade() -> None:
    op.execute((Path(__file__).parent / "0022_order_emails.sql").read_text())
    op.execute("GRANT SELECT ON order_emails TO autorenew_reminders, autorenew_readonly")
    op.execute("""
        GRANT INSERT (id, order_id, number, delivered, given_up, begun_at),
            UPDATE (sent_at, refused_at) ON order_emails TO autorenew_reminders
    """)
    op.execute("""
        GRANT SELECT (order_id, sent_at, refused_at, given_up_at), UPDATE (refused_at, given_up_at)
            ON order_emails TO autorenew_api
    """)
    op.execute("GRANT SELECT (id, customer_id) ON orders TO autorenew_reminders")
    op.execute("GRANT SELECT (details) ON services TO autorenew_reminders")
    op.execute("ALTER TABLE order_emails ENABLE ROW LEVEL SECURITY")
    for role in ("reminders", "readonly"):
        op.execute(
            f"CREATE POLICY order_emails_{role}_all ON order_emails"
            f" TO autorenew_{role} USING (true)"
        )
    op.execute("""
        CREATE POLICY order_emails_api_select ON order_emails
            FOR SELECT TO autorenew_api USING (true)
    """)
    op.execute(f"""
        CREATE POLICY order_emails_api_update ON order_emails FOR UPDATE TO autorenew_api
            USING (sent_at IS NULL AND {FAILED})
    """)
    for role in ASKS:
        op.execute(f"INSERT INTO enqueuers VALUES ('tell', 'reminders', 'autorenew_{role}')")
