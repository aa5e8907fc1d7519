"""Indexes by which the exporter finds what is open, in doubt, undeliverable, or of today.

None of them is over a column that an update of the order pipeline changes and that no index was
over before: such an update would touch every index of its table from then on. Orders are the
exception, with their last update.
"""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_OF_A_DAY = "WITH (pages_per_range = 16, autosummarize = on)"
INDEXES = (
    "orders_open ON orders (accepted_at) WHERE ended_at IS NULL",
    "charges_unknown ON charges (started_at) WHERE state = 'unknown'",
    "refunds_unknown ON refunds (started_at) WHERE state = 'unknown'",
    f"charges_decided_at ON charges USING brin (decided_at) {_OF_A_DAY}",
    f"refunds_decided_at ON refunds USING brin (decided_at) {_OF_A_DAY}",
    f"invoices_issued_on ON invoices USING brin (issued_on) {_OF_A_DAY}",
    f"credit_notes_issued_on ON credit_notes USING brin (issued_on) {_OF_A_DAY}",
    "emails_refused ON emails (refused_at) WHERE refused_at IS NOT NULL",
    "order_emails_refused ON order_emails (refused_at) WHERE refused_at IS NOT NULL",
)


def upgrade() -> None:
    for index in INDEXES:
        op.execute(f"CREATE INDEX {index}")
