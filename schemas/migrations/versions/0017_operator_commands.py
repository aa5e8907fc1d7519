"""What operators need to act on exactly what they mean: how long a task has failed, pauses that
stand beside each other, and tasks that back off made ready."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

WORKERS = ("orders", "billing", "reminders", "provisioning")
# Roles whose processes pause lanes because of what the guard finds.
GUARDS = ("relay", "scheduler", "billing")


def upgrade() -> None:
    _failures()
    _pauses()
    _selection()


def _failures() -> None:
    """Since when a task has failed, and how often: kept when it is tried again."""
    op.execute("""
        ALTER TABLE tasks
            ADD COLUMN first_failed_at TIMESTAMP WITH TIME ZONE,
            ADD COLUMN total_attempts INTEGER DEFAULT 0 NOT NULL
    """)
    # When a failed task was set aside; of one that backs off the beginning is not known.
    op.execute("""
        UPDATE tasks SET first_failed_at = least(run_at, now()), total_attempts = attempts
        WHERE state = 'failed' OR attempts > 0
    """)
    kept = "first_failed_at, total_attempts"
    for role in WORKERS:
        op.execute(f"GRANT SELECT ({kept}), UPDATE ({kept}) ON tasks TO autorenew_{role}")
    op.execute(f"GRANT SELECT ({kept}), UPDATE (first_failed_at) ON tasks TO autorenew_api")


def _pauses() -> None:
    """A lane is paused while it has a row; each has its own owner and reason."""
    op.execute("ALTER TABLE lane_pauses DROP CONSTRAINT lane_pauses_pkey")
    op.execute("""
        ALTER TABLE lane_pauses
            ADD COLUMN id BIGINT GENERATED ALWAYS AS IDENTITY,
            ADD COLUMN source TEXT DEFAULT 'operator' NOT NULL,
            ADD COLUMN paused_by TEXT DEFAULT SESSION_USER NOT NULL,
            ADD COLUMN cause TEXT,
            ADD CONSTRAINT lane_pauses_pkey PRIMARY KEY (lane, id),
            ADD CONSTRAINT lane_pauses_source_check CHECK (source IN ('operator', 'guard'))
    """)
    op.execute("UPDATE lane_pauses SET paused_by = 'unknown'")
    # Until now the guard's reason was put behind an operator's.
    op.execute("""
        INSERT INTO lane_pauses (lane, reason, paused_at, source, paused_by, cause)
        SELECT lane, substr(reason, strpos(reason, 'guard: ')), paused_at, 'guard', 'guard',
            'before'
        FROM lane_pauses WHERE reason LIKE '%guard: %'
    """)
    op.execute("DELETE FROM lane_pauses WHERE source = 'operator' AND reason LIKE 'guard: %'")
    op.execute("""
        UPDATE lane_pauses SET reason = substr(reason, 1, strpos(reason, '; guard: ') - 1)
        WHERE source = 'operator' AND reason LIKE '%; guard: %'
    """)
    # What is said twice is one pause.
    op.execute("""
        CREATE UNIQUE INDEX lane_pauses_operator ON lane_pauses (lane, paused_by, reason)
        WHERE source = 'operator'
    """)
    op.execute("""
        CREATE UNIQUE INDEX lane_pauses_guard ON lane_pauses (lane, cause) WHERE source = 'guard'
    """)
    op.execute("""
        GRANT SELECT (id, source, paused_by), INSERT (paused_by) ON lane_pauses TO autorenew_api
    """)
    op.execute("REVOKE UPDATE (reason) ON lane_pauses FROM autorenew_api")
    for role in GUARDS:
        op.execute(f"""
            GRANT INSERT (source, paused_by, cause) ON lane_pauses TO autorenew_{role}
        """)
        op.execute(f"REVOKE SELECT (reason), UPDATE (reason) ON lane_pauses FROM autorenew_{role}")


def _selection() -> None:
    """Tasks are found by what a person knows of them, and made ready."""
    op.execute("GRANT SELECT (customer_id) ON orders, payment_requests TO autorenew_api")
    op.execute("""
        GRANT SELECT (request_id, service_id, released_at) ON request_lines TO autorenew_api
    """)
    op.execute("GRANT SELECT (batched) ON tasks TO autorenew_api")
    op.execute("""
        GRANT SELECT (id, queue, name, subjects, size, until) ON batches TO autorenew_api
    """)
    # What waits for its time in no batch is nobody's: it is due now, and otherwise as it was.
    op.execute("""
        ALTER POLICY tasks_api_update ON tasks
            USING (state = 'failed' OR (state = 'ready' AND NOT batched))
            WITH CHECK (state = 'ready' AND NOT batched AND run_at <= clock_timestamp())
    """)
