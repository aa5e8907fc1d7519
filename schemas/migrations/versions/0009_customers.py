"""A customer belongs to a realm of upstreams, and has a name and a postal address.

Customers of the release before, and those that it still writes, belong to no realm: any upstream
may use them, as before, until ``autorenew customer assign`` gives them to one.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


# What an operator, or a change of an address, has done from here on: step -> its queues.
ENQUEUES = {
    "remind": ["reminders"],
    "withdraw": ["billing"],
    "converge": ["web", "dedicated", "cloud", "telecom"],
}


def upgrade() -> None:
    op.execute("""
        ALTER TABLE customers
            ADD COLUMN realm TEXT,
            ADD COLUMN name TEXT,
            ADD COLUMN company TEXT,
            ADD COLUMN address JSONB
    """)
    op.execute("ALTER TABLE orders ADD COLUMN billed_to JSONB")
    told = "realm, name, company, address"
    op.execute(f"""
        GRANT SELECT ({told}), INSERT ({told}), UPDATE ({told}) ON customers
        TO autorenew_api
    """)
    op.execute("GRANT INSERT (billed_to) ON orders TO autorenew_api")
    op.execute("GRANT SELECT (customer_id) ON emails TO autorenew_api")
    for step, queues in ENQUEUES.items():
        for queue in queues:
            op.execute(f"INSERT INTO enqueuers VALUES ('{step}', '{queue}', 'autorenew_api')")
    # An order changes nothing of a customer any more.
    op.execute("REVOKE UPDATE (subsidiary) ON customers FROM autorenew_api")
    # `autorenew order show`, for whoever places orders.
    op.execute("GRANT SELECT (upstream, reason) ON orders TO autorenew_api")
    op.execute("""
        GRANT SELECT (id, at, subject, name, waited, attempt, detail) ON events TO autorenew_api
    """)
    op.execute("GRANT SELECT (line, unit) ON services TO autorenew_api")
