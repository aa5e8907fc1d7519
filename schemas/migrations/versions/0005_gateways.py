"""A payment method belongs to a gateway: the name that one is configured under."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Those of the release before, and those it still writes, are of the only gateway there was.
    op.execute("ALTER TABLE payment_methods ADD COLUMN gateway TEXT DEFAULT 'default' NOT NULL")
    # The same token may be known at two gateways.
    op.execute("""
        ALTER TABLE payment_methods
            DROP CONSTRAINT payment_methods_customer_id_token_key,
            ADD CONSTRAINT payment_methods_customer_id_gateway_token_key
                UNIQUE (customer_id, gateway, token)
    """)
    for role in ("api", "readonly"):
        op.execute(f"GRANT SELECT (gateway) ON payment_methods TO autorenew_{role}")
