"""An order that was refused is not open: it has no end, because it never began.

The index leaves it out by what refused orders alone lack, their customer. By `state` it would leave
them out, too, but then every step of an order would touch every index of its table.
"""

from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP INDEX orders_open")
    op.execute("""
        CREATE INDEX orders_open ON orders (accepted_at)
        WHERE ended_at IS NULL AND customer_id IS NOT NULL
    """)
