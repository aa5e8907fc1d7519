"""A customer belongs to a realm of upstreams, and has a name and a postal address.

Customers of the release before, and those that it still writes, belong to no realm: any upstream
may use them, as before, until ``autorenew customer assign`` gives them to one.
"""

from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("""
        ALTER TABLE customers
            ADD COLUMN realm TEXT,
            ADD COLUMN name TEXT,
            ADD COLUMN company TEXT,
            ADD COLUMN address JSONB
    """)
    op.execute("ALTER TABLE orders ADD COLUMN billed_to JSONB")
