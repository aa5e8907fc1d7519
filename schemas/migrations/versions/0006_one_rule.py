"""A payment method says itself until when it can be charged; a renewal says what was announced.

``services.pays_until``, a copy of ``payment_methods.expires_on``, is neither written nor read any
more. The column stays for processes of the release before, and goes with the next release.

New columns of ``renewals`` are NULL or 0 for what the release before wrote, and what it goes on
writing meanwhile: nothing is known to be announced then, and a payment request stands.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ANNOUNCED = "announced, currency, announced_at, raised_at"
ASKED_FOR = "currency, stands_until, dearer, dearer_at"


def upgrade() -> None:
    for role in ("reminders", "scheduler"):
        op.execute(f"GRANT SELECT (id, expires_on) ON payment_methods TO autorenew_{role}")
    op.execute("""
        ALTER TABLE renewals
            ADD COLUMN currency TEXT,
            ADD COLUMN announced BIGINT,
            ADD COLUMN announced_at TIMESTAMP WITH TIME ZONE,
            ADD COLUMN raised_at TIMESTAMP WITH TIME ZONE,
            ADD COLUMN dearer SMALLINT DEFAULT '0' NOT NULL,
            ADD COLUMN dearer_at TIMESTAMP WITH TIME ZONE,
            ADD COLUMN stands_until TIMESTAMP WITH TIME ZONE
    """)
    op.execute(f"GRANT UPDATE ({ANNOUNCED}) ON renewals TO autorenew_reminders")
    op.execute(f"GRANT UPDATE ({ASKED_FOR}) ON renewals TO autorenew_billing")
