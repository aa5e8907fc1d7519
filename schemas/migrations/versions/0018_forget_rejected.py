"""Rejected documents are deleted some time after they came: by intake, a few at a time."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT SELECT (received_at), DELETE ON rejected_documents TO autorenew_api")
