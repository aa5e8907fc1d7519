"""What a role gives up of e-mails: those alone that could not be sent, or not be written."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Roles that read and write e-mails and notices as their columns allow.
ROLES = ("billing", "provisioning", "reminders", "scheduler", "readonly")
# Of whose e-mail a person decides, because it failed.
FAILED = """
    EXISTS (SELECT FROM tasks AS t
        WHERE t.name = 'remind' AND t.subject = {email} AND t.state = 'failed')
"""
# No e-mail may have gone out with what it would have told.
NEVER_BEGUN = """
    EXISTS (SELECT FROM emails AS e
        WHERE e.id = email_id AND e.begun_at IS NULL AND e.sent_at IS NULL)
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("emails", "notices"):
        for role in ROLES:
            op.execute(
                f"CREATE POLICY {table}_{role}_all ON {table} TO autorenew_{role} USING (true)"
            )
        op.execute(
            f"CREATE POLICY {table}_api_select ON {table} FOR SELECT TO autorenew_api USING (true)"
        )
    op.execute(f"""
        CREATE POLICY emails_api_update ON emails FOR UPDATE TO autorenew_api
        USING (sent_at IS NULL AND {FAILED.format(email="emails.id")})
    """)
    op.execute(f"""
        CREATE POLICY notices_api_delete ON notices FOR DELETE TO autorenew_api
        USING ({FAILED.format(email="email_id")} AND {NEVER_BEGUN})
    """)
    op.execute("ALTER TABLE emails ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE notices ENABLE ROW LEVEL SECURITY")
