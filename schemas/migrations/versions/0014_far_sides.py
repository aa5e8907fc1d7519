"""Which gateways and drivers a database belongs with."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# Who calls which kind, and says so the first time.
CALLS = {"billing": "gateway", "provisioning": "driver"}


def upgrade() -> None:
    op.execute("""
        CREATE TABLE far_sides (
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            identity TEXT NOT NULL,
            since TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            CONSTRAINT far_sides_pkey PRIMARY KEY (kind, name),
            CONSTRAINT far_sides_kind_check CHECK (kind IN ('gateway', 'driver'))
        )
    """)
    op.execute("GRANT SELECT ON far_sides TO autorenew_readonly")
    op.execute(
        "CREATE POLICY far_sides_readonly_all ON far_sides TO autorenew_readonly USING (true)"
    )
    for role, kind in CALLS.items():
        op.execute(f"""
            GRANT SELECT (kind, name, identity), INSERT (kind, name, identity) ON far_sides
                TO autorenew_{role}
        """)
        op.execute(f"""
            CREATE POLICY far_sides_{role}_all ON far_sides TO autorenew_{role}
            USING (kind = '{kind}')
        """)
    op.execute("ALTER TABLE far_sides ENABLE ROW LEVEL SECURITY")
