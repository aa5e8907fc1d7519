"""The console of operators: who may sign in, who has, and what operators did, the newest first."""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

# No other role may read these, the one that reads everything neither.
RIGHTS = {
    "operators": "SELECT, INSERT (name, role, password_hash, issuer), DELETE,"
    " UPDATE (role, password_hash, changed_at, signed_in_at)",
    "console_sessions": "SELECT, INSERT (token_hash, operator), UPDATE (seen_at), DELETE",
    "one_time_logins": "SELECT, INSERT (token_hash, operator, expires_at), DELETE",
    "sign_in_failures": "SELECT, INSERT (who), UPDATE (failures, last_at), DELETE",
}


def upgrade() -> None:
    op.execute("""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'autorenew_console') THEN
                CREATE ROLE autorenew_console NOLOGIN;
            END IF;
            -- It does what operators do at the command line, which works as that role.
            IF NOT pg_has_role('autorenew_console', 'autorenew_api', 'MEMBER') THEN
                GRANT autorenew_api TO autorenew_console;
            END IF;
        END $$
    """)
    op.execute("GRANT USAGE ON SCHEMA public TO autorenew_console")
    op.execute("""
        CREATE TABLE operators (
            name TEXT NOT NULL,
            role TEXT NOT NULL CONSTRAINT operators_role_check
                CHECK (role IN ('reader', 'operator', 'administrator')),
            password_hash TEXT,
            issuer TEXT,
            created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            signed_in_at TIMESTAMP WITH TIME ZONE,
            CONSTRAINT operators_pkey PRIMARY KEY (name)
        )
    """)
    op.execute("""
        CREATE TABLE console_sessions (
            token_hash BYTEA NOT NULL,
            operator TEXT NOT NULL,
            begun_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            seen_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            CONSTRAINT console_sessions_pkey PRIMARY KEY (token_hash),
            CONSTRAINT console_sessions_operator_fkey FOREIGN KEY(operator)
                REFERENCES operators (name) ON DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX console_sessions_operator_idx ON console_sessions (operator)")
    op.execute("""
        CREATE TABLE one_time_logins (
            token_hash BYTEA NOT NULL,
            operator TEXT NOT NULL,
            expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT one_time_logins_pkey PRIMARY KEY (token_hash),
            CONSTRAINT one_time_logins_operator_fkey FOREIGN KEY(operator)
                REFERENCES operators (name) ON DELETE CASCADE
        )
    """)
    op.execute("""
        CREATE TABLE sign_in_failures (
            who TEXT NOT NULL,
            failures INTEGER DEFAULT '1' NOT NULL,
            last_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            CONSTRAINT sign_in_failures_pkey PRIMARY KEY (who)
        )
    """)
    for table, rights in RIGHTS.items():
        op.execute(f"GRANT {rights} ON {table} TO autorenew_console")
    # What operators did, the newest first. What a bulk operation did to each task is not in it.
    op.execute("""
        CREATE INDEX events_by_operators ON events (id)
            WHERE detail ? 'by' AND NOT detail ? 'bulk'
    """)
    # What today brought. A moment that never changes costs an update nothing.
    op.execute("""
        CREATE INDEX orders_accepted_at ON orders USING brin (accepted_at)
            WITH (pages_per_range = 16, autosummarize = on)
    """)
    # How far the history is: what happened lately is found by it.
    op.execute("GRANT SELECT ON SEQUENCE events_id_seq TO autorenew_readonly")
