"""What e-mails said is kept, so that a person can see what a customer was told."""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE email_texts (
            email_id UUID NOT NULL,
            recipient TEXT NOT NULL,
            subject TEXT NOT NULL,
            body TEXT NOT NULL,
            sent_at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT email_texts_pkey PRIMARY KEY (email_id)
        )
    """)
    op.execute("GRANT SELECT ON email_texts TO autorenew_readonly")
    # Whoever writes them reads none.
    op.execute("""
        GRANT INSERT (email_id, recipient, subject, body, sent_at) ON email_texts
            TO autorenew_reminders
    """)
