"""Roles with least rights, rows that never change, and states that change by their table."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# S select, I insert, U update, D delete; "SU(a, b)": update of these columns only.
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
        "services": "SU(desired, generation)",
        "payment_requests": "S(id, order_id)",
    },
    "orders": LEDGER
    | CATALOGUE
    | {
        "orders": "SU(state)",
        "order_lines": "S",
        "services": "SI",
        "payment_requests": "SI",
        "request_lines": "SI",
    },
    "billing": LEDGER
    | CATALOGUE
    | {
        "orders": "SU(state, reason, ended_at)",
        "payment_methods": "S",
        "services": "SU(state, desired, generation, paid_periods)",
        "payment_requests": "SU(state, closed_at)",
        "request_lines": "SU(released_at)",
        "charges": "SIU(state, reference, reason, decided_at)",
        "invoice_series": "SIU(last_number, last_date)",
        "invoices": "SI",
        "invoice_lines": "SI",
        "credit_notes": "SI",
        "credit_note_lines": "SI",
        "refunds": "SIU(state, reference, reason, decided_at)",
    },
    "reminders": LEDGER | CATALOGUE | {"customers": "S", "services": "S"},
    "provisioning": LEDGER
    | CATALOGUE
    | {
        "orders": "SU(state, ended_at)",
        "services": "SU(state, anchor, expires_at, confirmed, confirmed_until, resource_id)",
        "operations": "SIU(state, reason, ended_at)",
    },
    "relay": {"tasks": "SU", "routes": "S", "lane_pauses": "S", "events": "I"},
}
VERBS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}
IMMUTABLE = ("invoices", "invoice_lines", "credit_notes", "credit_note_lines", "events")


# Table -> state -> the states that may follow. A copy: a migration must not change with the code.
TRANSITIONS = {
    "orders": {
        "accepted": "priced cancelled",
        "priced": "paid cancelled",
        "paid": "delivered partly_delivered cancelled",
    },
    "services": {
        "pending": "delivering cancelled",
        "delivering": "active cancelled",
        "active": "suspended terminated",
        "suspended": "active terminated",
    },
    "payment_requests": {"open": "paid split voided"},
    "charges": {"started": "succeeded declined unknown", "unknown": "succeeded declined started"},
    "refunds": {"started": "succeeded declined unknown", "unknown": "succeeded declined started"},
    "operations": {
        "pending": "done failed unknown",
        "unknown": "done failed pending",
        "failed": "pending",
    },
}


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
            granted = [VERBS[verb] for verb in verbs]
            if columns:
                granted[-1] += f" ({columns}"
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

    # The condition is decided without a function call; only what is refused calls one. AFTER:
    # a BEFORE trigger would lock every row once more.
    op.execute("""
        CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% cannot go from % to %', TG_TABLE_NAME, OLD.state, NEW.state
                USING ERRCODE = 'check_violation';
        END $$
    """)
    for table, steps in TRANSITIONS.items():
        allowed = ", ".join(
            f"'{old} {new}'" for old, following in steps.items() for new in following.split()
        )
        op.execute(f"""
            CREATE TRIGGER {table}_transition AFTER UPDATE OF state ON {table} FOR EACH ROW
            WHEN (OLD.state <> NEW.state AND OLD.state || ' ' || NEW.state NOT IN ({allowed}))
            EXECUTE FUNCTION refuse_transition()
        """)
