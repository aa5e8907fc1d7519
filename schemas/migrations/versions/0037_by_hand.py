"""Failed tasks are corrected in bulk, and told as done by hand, on behalf of an operator; texts of
e-mails are not kept for ever."""

from pathlib import Path

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

# Whose failed tasks a person may drop.
GIVEN_UP = (
    "'price', 'remind', 'request', 'withdraw', 'suspend', 'terminate', 'reconcile', 'deliver',"
    " 'send_link', 'by_hand'"
)
QUEUES = {
    "provisioning": ("web", "dedicated", "cloud", "telecom"),
    "billing": ("billing",),
}


def upgrade() -> None:
    op.execute("""
        ALTER TABLE bulk_operations
            ADD COLUMN detail JSONB,
            DROP CONSTRAINT bulk_operations_kind_check,
            ADD CONSTRAINT bulk_operations_kind_check
                CHECK (kind IN ('retry', 'cancel', 'edit', 'done', 'settle'))
    """)
    op.execute("GRANT INSERT (detail) ON bulk_operations TO autorenew_api")
    sql = (Path(__file__).parent / "0037_by_hand.sql").read_text()
    op.get_bind().exec_driver_sql(sql.replace("%", "%%"))
    _write_down()
    # The oldest first.
    op.execute("CREATE INDEX email_texts_sent_at ON email_texts (sent_at)")
    op.execute("""
        GRANT SELECT (email_id, sent_at), DELETE ON email_texts TO autorenew_scheduler
    """)


def _write_down() -> None:
    """Whoever may do a step writes down that a person did it."""
    op.execute("GRANT SELECT (queue) ON tasks TO autorenew_scheduler")
    for role, queues in QUEUES.items():
        op.execute(f"""
            GRANT SELECT (id, kind, asked_by, note, detail) ON bulk_operations TO autorenew_{role}
        """)
        op.execute(f"""
            GRANT SELECT (bulk_id, number, name, subject, first_failed_at, total_attempts, state,
                outcome), UPDATE (outcome) ON bulk_tasks TO autorenew_{role}
        """)
        for queue in queues:
            op.execute(f"""
                INSERT INTO enqueuers VALUES ('by_hand', '{queue}', 'autorenew_scheduler'),
                    ('by_hand', '{queue}', 'autorenew_{role}')
            """)
    op.execute(f"""
        ALTER POLICY tasks_api_delete ON tasks USING (state = 'failed' AND name IN ({GIVEN_UP}))
    """)
