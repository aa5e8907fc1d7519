"""An order is charged what it was accepted for, with the tax of the day of payment.

Lines of orders that the release before accepted have no price: they are priced by the catalogue.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE order_lines
            ADD COLUMN setup BIGINT CONSTRAINT order_lines_setup_check CHECK (setup >= 0),
            ADD COLUMN renewal BIGINT CONSTRAINT order_lines_renewal_check CHECK (renewal >= 0),
            ADD COLUMN currency TEXT,
            ADD CONSTRAINT order_lines_price_check
                CHECK (num_nulls(setup, renewal, currency) IN (0, 3))
    """)
    op.execute("ALTER TABLE payment_requests ADD COLUMN stands_until TIMESTAMP WITH TIME ZONE")
    for role in ("orders", "billing"):
        op.execute(f"GRANT INSERT (stands_until) ON payment_requests TO autorenew_{role}")
    op.execute("""
        GRANT UPDATE (tax_mention, tax, total, stands_until) ON payment_requests
        TO autorenew_billing
    """)
    op.execute("GRANT UPDATE (tax_rate, tax) ON request_lines TO autorenew_billing")
