"""Keys of the HTTP API, what it has answered, and indexes of what is looked up by name."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

SHOWN = (
    "id, name, prefix, upstream, scopes, brands, subsidiaries, per_second, created_at, created_by,"
    " expires_at, revoked_at, last_used_at"
)


def upgrade() -> None:
    op.execute("""
        CREATE TABLE api_keys (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            name TEXT NOT NULL,
            prefix TEXT NOT NULL,
            hash BYTEA NOT NULL,
            upstream TEXT,
            scopes TEXT[] NOT NULL,
            brands TEXT[],
            subsidiaries TEXT[],
            per_second INTEGER NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            created_by TEXT NOT NULL,
            expires_at TIMESTAMP WITH TIME ZONE,
            revoked_at TIMESTAMP WITH TIME ZONE,
            last_used_at TIMESTAMP WITH TIME ZONE,
            CONSTRAINT api_keys_pkey PRIMARY KEY (id),
            CONSTRAINT api_keys_name_key UNIQUE (name),
            CONSTRAINT api_keys_prefix_key UNIQUE (prefix)
        )
    """)
    op.execute("""
        CREATE TABLE api_answers (
            key_id UUID NOT NULL,
            name TEXT NOT NULL,
            request_hash BYTEA NOT NULL,
            status SMALLINT,
            body TEXT,
            answered_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            CONSTRAINT api_answers_pkey PRIMARY KEY (key_id, name),
            CONSTRAINT api_answers_key_id_fkey FOREIGN KEY (key_id) REFERENCES api_keys (id)
        )
    """)
    op.execute("CREATE INDEX api_answers_answered_at_idx ON api_answers (answered_at)")
    op.execute(f"GRANT SELECT ({SHOWN}) ON api_keys TO autorenew_readonly")
    op.execute("GRANT SELECT ON api_keys TO autorenew_api")
    op.execute("""
        GRANT INSERT (name, prefix, hash, upstream, scopes, brands, subsidiaries, per_second,
            created_by, expires_at), UPDATE (revoked_at, last_used_at) ON api_keys
            TO autorenew_api
    """)
    op.execute("""
        GRANT SELECT, INSERT (key_id, name, request_hash), UPDATE (status, body), DELETE
            ON api_answers TO autorenew_api
    """)
    # What somebody may be looked up by.
    op.execute("CREATE INDEX orders_customer_id_idx ON orders (customer_id)")
    op.execute("CREATE INDEX invoices_customer ON invoices (customer_id, issued_on, id)")
    op.execute("CREATE INDEX customers_email ON customers (lower(email))")
    op.execute("""
        CREATE INDEX services_domain ON services (lower(configuration->>'domain'))
            WHERE configuration->>'domain' IS NOT NULL
    """)
