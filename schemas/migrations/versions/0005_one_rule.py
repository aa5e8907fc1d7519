"""A payment method says itself until when it can be charged.

``services.pays_until``, a copy of it, is neither written nor read any more. The column stays for
processes of the release before, and goes with the next release.
"""

from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for role in ("reminders", "scheduler"):
        op.execute(f"GRANT SELECT (id, expires_on) ON payment_methods TO autorenew_{role}")
