"""Renewals: what they need beside what there is, and who may touch it."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# As in 0002: S select, I insert, U update, D delete, of these columns only.
NEXT = "next_step, next_step_at, next_subject"
LEDGER = {"tasks": "SIUD", "routes": "SI", "lane_pauses": "S", "events": "SI"}
CATALOGUE = {
    "catalogue_version": "S",
    "subsidiaries": "S",
    "contracts": "S",
    "plans": "S",
    "prices": "S",
}
# What whoever decides about a next step has to see.
STORY = {
    "policies": "S",
    "rollouts": "S",
    "renewals": "S",
    "notices": "S",
    "emails": "S",
}
NEW: dict[str, dict[str, str]] = {
    "api": STORY
    | {
        "services": "IU(mode, mode_before, mode_changed_at, payment_method_id, pays_until,"
        f" agreed_version, {NEXT})",
        "renewals": "SIU(asked_at)",
        "payment_methods": "U(expires_on)",
        "heartbeat": "S",
        "destructions": "SD",
        "forecasts": "S",
    },
    "orders": {
        "policies": "S",
        "rollouts": "S",
        "heartbeat": "S",
        "payment_methods": "S(id, expires_on)",
    },
    "billing": STORY
    | {
        "customers": "S",
        "agreements": "S",
        "recomputations": "S",
        "services": f"U(expires_at, agreed_version, payment_method_id, {NEXT})",
        "payment_requests": "IU(payment_method_id)",
        "request_lines": "IU(refused_at)",
        "renewals": "SIU(request_id, requests, asked_at, declines, declined_at, last_declined_at)",
        "heartbeat": "S",
    },
    "reminders": STORY
    | {"services": f"U({NEXT})", "emails": "SU(begun_at, sent_at)", "heartbeat": "S"},
    "provisioning": STORY | {"services": f"U(suspended_at, generation, {NEXT})", "heartbeat": "S"},
    "relay": {"heartbeat": "SIU", "lane_pauses": "IU(reason)"},
    "scheduler": LEDGER
    | CATALOGUE
    | STORY
    | {
        "lane_pauses": "SIU(reason)",
        "services": f"SU({NEXT})",
        "renewals": "SI",
        "notices": "SI",
        "emails": "SIU(begun_at)",
        "recomputations": "SUD",
        "heartbeat": "SIU",
        "destructions": "SIUD",
        "forecasts": "SID",
    },
}
VERBS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}


def upgrade() -> None:
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)
    op.execute("""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'autorenew_scheduler') THEN
                CREATE ROLE autorenew_scheduler NOLOGIN;
            END IF;
        END $$
    """)
    op.execute("GRANT USAGE ON SCHEMA public TO autorenew_scheduler")
    for role, tables in NEW.items():
        for table, rights in tables.items():
            verbs, _, columns = rights.partition("(")
            granted = [VERBS[verb] for verb in verbs]
            if columns:
                granted[-1] += f" ({columns}"
            op.execute(f"GRANT {', '.join(granted)} ON {table} TO autorenew_{role}")
        op.execute(f"GRANT SELECT ON virtual_clock TO autorenew_{role}")
    op.execute("GRANT SELECT (id, customer_id, expires_on) ON payment_methods TO autorenew_api")
    op.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO autorenew_readonly")
    op.execute("REVOKE SELECT ON payment_methods FROM autorenew_readonly")
    op.execute(
        "GRANT SELECT (id, customer_id, expires_on) ON payment_methods TO autorenew_readonly"
    )
