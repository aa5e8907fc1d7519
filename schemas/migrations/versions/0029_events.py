"""What happened goes out to upstream: a role, a cursor over the history, endpoints over HTTPS."""

from pathlib import Path

from alembic import op

revision = "0029"
down_revision = "0026"
branch_labels = None
depends_on = None

QUEUE = "webhooks"
READS = {
    "events": "id, subject, at, name, detail",
    "events_id_seq": "",
    "orders": "id, key, upstream, customer_id, reason, problems",
    "services": "id, order_id, line, customer_id, plan, period_months, state",
    "customers": "id, realm",
    "plans": "code, contract",
    "payment_requests": "id, order_id, customer_id, currency, total",
    "request_lines": "request_id, service_id",
    "invoices": "request_id, series, number, issued_on, currency, net, tax, total",
    # A worker's part of the ledger.
    "heartbeat": "trusted_until",
    "lane_pauses": "lane",
    "tasks": "name, subject, wanted, state, run_at, attempts, starts, reason, code, error,"
    " first_failed_at, total_attempts",
    "batches": "id, queue, name, lane, subjects, state, run_at",
    "lane_breakers": "lane, cause, opened_at, probes, probe_at, probe",
    "virtual_clock": "",
    "event_cursor": "sole, last_id, holder, held_until",
    "event_stretches": "first_id, last_id, events, digest",
    # Its secrets, too: nobody else reads those.
    "webhook_endpoints": "id, name, realm, url, kinds, state, secret, previous_secret,"
    " previous_until, failing_since",
    "webhook_deliveries": "id, endpoint_id, event, kind, body, attempts, tried_at, ended_at",
    "event_replays": "id, endpoint_id, since, until, after_id, events, asked_at, ended_at",
}
WRITES = (
    "INSERT (subject, name, task, waited, attempt, detail) ON events",
    "UPDATE (batched, run_at, state, attempts, starts, reason, code, error, first_failed_at,"
    " total_attempts), DELETE ON tasks",
    "UPDATE (id, state, dispatches, until, subjects, size), DELETE ON batches",
    "INSERT (lane, queue, cause, reason, probe_at),"
    " UPDATE (probe, probes, reason, cause, probe_at), DELETE ON lane_breakers",
    "UPDATE (last_id, holder, held_until) ON event_cursor",
    "INSERT (first_id, last_id, events, digest),"
    " UPDATE (last_id, events, digest, ended_at) ON event_stretches",
    "UPDATE (state, reason, changed_at, failing_since, delivered_at) ON webhook_endpoints",
    "INSERT (id, endpoint_id, event_id, event, kind, subject, sequence, body),"
    " UPDATE (body, attempts, tried_at, answer, ended_at, outcome, created_at), DELETE"
    " ON webhook_deliveries",
    "UPDATE (after_id, events, ended_at) ON event_replays",
)
SHOWN = (
    "id, name, realm, url, kinds, state, reason, created_at, changed_at, failing_since,"
    " delivered_at, previous_until"
)
GIVEN_UP = (
    "'price', 'remind', 'request', 'withdraw', 'suspend', 'terminate', 'reconcile', 'deliver'"
)


def upgrade() -> None:
    op.execute("""
        DO $$ BEGIN
            CREATE ROLE autorenew_events NOLOGIN;
        EXCEPTION WHEN duplicate_object THEN NULL;
        END $$
    """)
    script = (Path(__file__).parent / "0029_events.sql").read_text()
    op.get_bind().exec_driver_sql(script.replace("%", "%%"))
    op.execute("GRANT USAGE ON SCHEMA public TO autorenew_events")
    for table, columns in READS.items():
        listed = f" ({columns})" if columns else ""
        op.execute(f"GRANT SELECT{listed} ON {table} TO autorenew_events")
    for right in WRITES:
        op.execute(f"GRANT {right} TO autorenew_events")
    for role in ("events", "api"):
        op.execute(f"INSERT INTO enqueuers VALUES ('deliver', '{QUEUE}', 'autorenew_{role}')")
    op.execute("GRANT EXECUTE ON FUNCTION enqueue_tasks TO autorenew_events")
    for table in ("tasks", "batches"):
        op.execute(f"""
            CREATE POLICY {table}_events_all ON {table} TO autorenew_events
                USING (queue = '{QUEUE}')
        """)
    op.execute("""
        CREATE POLICY lane_breakers_events_select ON lane_breakers FOR SELECT
            TO autorenew_events USING (true)
    """)
    for verb, rows in (("INSERT", "WITH CHECK"), ("UPDATE", "USING"), ("DELETE", "USING")):
        op.execute(f"""
            CREATE POLICY lane_breakers_events_{verb.lower()} ON lane_breakers FOR {verb}
                TO autorenew_events {rows} (queue = '{QUEUE}')
        """)
    _people()


def _people() -> None:
    """An operator registers endpoints, and reads no secret."""
    op.execute(f"""
        GRANT SELECT ({SHOWN.replace("changed_at, ", "")}),
            INSERT (id, name, realm, url, kinds, secret),
            UPDATE (state, reason, secret, previous_until, changed_at, failing_since)
        ON webhook_endpoints TO autorenew_api
    """)
    op.execute("""
        GRANT SELECT (id, endpoint_id, event, kind, subject, sequence, created_at, attempts,
                tried_at, answer, ended_at, outcome),
            INSERT (id, endpoint_id, event_id, event, kind, subject, sequence, body),
            UPDATE (body, ended_at, outcome)
        ON webhook_deliveries TO autorenew_api
    """)
    op.execute("""
        GRANT SELECT, INSERT (id, endpoint_id, since, until) ON event_replays TO autorenew_api
    """)
    op.execute("GRANT SELECT (last_id) ON event_cursor TO autorenew_api")
    op.execute(f"""
        ALTER POLICY tasks_api_delete ON tasks USING (state = 'failed' AND name IN ({GIVEN_UP}))
    """)
    op.execute(f"GRANT SELECT ({SHOWN}) ON webhook_endpoints TO autorenew_readonly")
    op.execute("""
        GRANT SELECT ON event_cursor, event_stretches, webhook_deliveries, event_replays,
            events_id_seq
            TO autorenew_readonly
    """)
