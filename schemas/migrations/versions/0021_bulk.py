"""Failed tasks are retried and given up in bulk, by the scheduler, on behalf of an operator."""

from pathlib import Path

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

PROGRESS = (
    "state, batch, batch_left, paced_at, looked_at, sent, done, failed, skipped, reason,"
    " waits_for, ended_at"
)


def upgrade() -> None:
    op.get_bind().exec_driver_sql((Path(__file__).parent / "0021_bulk.sql").read_text())
    for role in ("api", "scheduler"):
        op.execute(f"GRANT SELECT ON bulk_operations, bulk_tasks TO autorenew_{role}")
    op.execute(f"""
        GRANT UPDATE ({PROGRESS}) ON bulk_operations TO autorenew_scheduler
    """)
    op.execute("""
        GRANT UPDATE (state, outcome, first_failed_at), DELETE ON bulk_tasks TO autorenew_scheduler
    """)
    op.execute("GRANT SELECT ON bulk_operations, bulk_tasks TO autorenew_readonly")
    op.execute("""
        GRANT INSERT (kind, asked_by, note, filters, rate, all_at_once, total)
            ON bulk_operations TO autorenew_api
    """)
    op.execute("""
        GRANT UPDATE (total, state, reason, waits_for, ended_at) ON bulk_operations
            TO autorenew_api
    """)
    op.execute("""
        GRANT INSERT (bulk_id, number, name, subject, lane, reason, code, first_failed_at,
            total_attempts) ON bulk_tasks TO autorenew_api
    """)
    op.execute("GRANT SELECT (code) ON tasks TO autorenew_api")
    _act()
    _show()


def _act() -> None:
    """The scheduler has failed tasks tried again, and gives up what an operator named."""
    op.execute("""
        GRANT SELECT (state, run_at, wanted, attempts, total_attempts, first_failed_at, reason,
                code),
            UPDATE (state, batched, wanted, attempts, starts, run_at, reason, code, error,
                first_failed_at) ON tasks TO autorenew_scheduler
    """)
    op.execute("""
        CREATE POLICY tasks_scheduler_update ON tasks FOR UPDATE TO autorenew_scheduler
            USING (state = 'failed')
            WITH CHECK (state = 'ready' AND NOT batched AND run_at <= clock_timestamp())
    """)
    function = (Path(__file__).parent / "0021_give_up.sql").read_text()
    op.get_bind().exec_driver_sql(function.replace("%", "%%"))


def _show() -> None:
    """What a person reads of a failed task before they decide."""
    op.execute("""
        GRANT SELECT (service_id, kind, generation, state, reason, started_at) ON operations
            TO autorenew_api
    """)
    op.execute("GRANT SELECT (confirmed, confirmed_until) ON services TO autorenew_api")
    op.execute("GRANT UPDATE (configuration) ON services TO autorenew_api")
    # What was delivered is what was ordered, or was corrected before: nobody changes it behind it.
    op.execute("""
        CREATE FUNCTION refuse_configuration() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the configuration of service %, which is %, does not change',
                OLD.id, OLD.state USING ERRCODE = 'check_violation';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER services_configuration BEFORE UPDATE OF configuration ON services
        FOR EACH ROW WHEN (OLD.state <> 'delivering'
            AND NEW.configuration IS DISTINCT FROM OLD.configuration)
        EXECUTE FUNCTION refuse_configuration()
    """)
    op.execute("GRANT SELECT (order_id, plan) ON order_lines TO autorenew_api")
    op.execute("GRANT SELECT (net, tax) ON request_lines TO autorenew_api")
    op.execute("GRANT SELECT (state, currency) ON payment_requests TO autorenew_api")
