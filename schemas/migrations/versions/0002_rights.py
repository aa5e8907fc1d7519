"""Roles with least rights, and rows that never change."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# S select, I insert, U update, D delete; "U(a, b)" only these columns.
# Provisioning cannot read a payment method; billing never touches operations.
LEDGER = {"tasks": "SIUD", "routes": "SI", "lane_pauses": "S", "events": "SI"}
CATALOGUE = {
    "catalogue_version": "S",
    "subsidiaries": "S",
    "contracts": "S",
    "plans": "S",
    "prices": "S",
}
RIGHTS: dict[str, dict[str, str]] = {
    "api": LEDGER
    | CATALOGUE
    | {
        "lane_pauses": "SIUD",
        "customers": "SIU",
        "payment_methods": "I",
        "agreements": "SI",
        "orders": "SIU(state, reason, ended_at)",
        "order_lines": "SI",
        "rejected_documents": "SIU",
        "services": "SU(desired, generation, mode)",
    },
    "orders": LEDGER
    | CATALOGUE
    | {
        "orders": "SU(state, reason, ended_at)",
        "order_lines": "S",
        "customers": "S",
        "services": "SI",
        "payment_requests": "SI",
        "request_lines": "SI",
    },
    "billing": LEDGER
    | CATALOGUE
    | {
        "orders": "SU(state, reason, ended_at)",
        "customers": "S",
        "payment_methods": "S",
        "services": "SU(state, desired, generation, paid_periods)",
        "payment_requests": "SU(state, closed_at)",
        "request_lines": "SU(released_at)",
        "charges": "SIU",
        "invoice_series": "SIU",
        "invoices": "SI",
        "invoice_lines": "SI",
        "credit_notes": "SI",
        "credit_note_lines": "SI",
        "refunds": "SIU",
    },
    "reminders": LEDGER | CATALOGUE | {"customers": "S", "services": "S"},
    "provisioning": LEDGER
    | CATALOGUE
    | {
        "orders": "SU(state, reason, ended_at)",
        "services": "SU(state, anchor, expires_at, confirmed, confirmed_until, resource_id)",
        "operations": "SIU",
    },
    "relay": {"tasks": "SUD", "routes": "S", "lane_pauses": "S"},
}
VERBS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}
IMMUTABLE = ("invoices", "invoice_lines", "credit_notes", "credit_note_lines", "events")


def upgrade() -> None:
    for role in (*RIGHTS, "readonly"):
        op.execute(f"""
            DO $$ BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'autorenew_{role}') THEN
                    CREATE ROLE autorenew_{role} NOLOGIN;
                END IF;
            END $$
        """)
        op.execute(f"GRANT USAGE ON SCHEMA public TO autorenew_{role}")
    for role, tables in RIGHTS.items():
        for table, rights in tables.items():
            verbs, _, columns = rights.partition("(")
            granted = [
                VERBS[verb] + (f" ({columns}" if verb == "U" and columns else "") for verb in verbs
            ]
            op.execute(f"GRANT {', '.join(granted)} ON {table} TO autorenew_{role}")
    op.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO autorenew_readonly")
    op.execute("REVOKE SELECT ON payment_methods FROM autorenew_readonly")

    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
                USING ERRCODE = 'restrict_violation';
        END $$
    """)
    for table in IMMUTABLE:
        op.execute(f"""
            CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """)
