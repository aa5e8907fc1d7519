CREATE TABLE bulk_operations (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    kind TEXT NOT NULL,
    state TEXT DEFAULT 'running' NOT NULL,
    asked_by TEXT NOT NULL,
    note TEXT,
    filters JSONB NOT NULL,
    rate REAL,
    all_at_once BOOLEAN NOT NULL,
    batch INTEGER DEFAULT 1 NOT NULL,
    batch_left INTEGER DEFAULT 1 NOT NULL,
    paced_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    looked_at INTEGER DEFAULT 0 NOT NULL,
    total INTEGER NOT NULL,
    sent INTEGER DEFAULT 0 NOT NULL,
    done INTEGER DEFAULT 0 NOT NULL,
    failed INTEGER DEFAULT 0 NOT NULL,
    skipped INTEGER DEFAULT 0 NOT NULL,
    reason TEXT,
    waits_for TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT bulk_operations_pkey PRIMARY KEY (id),
    CONSTRAINT bulk_operations_kind_check CHECK (kind IN ('retry', 'cancel')),
    CONSTRAINT bulk_operations_state_check
        CHECK (state IN ('running', 'done', 'stopped', 'halted'))
) WITH (fillfactor = 70);

CREATE INDEX bulk_operations_open ON bulk_operations (created_at) WHERE ended_at IS NULL;
CREATE INDEX bulk_operations_newest ON bulk_operations (created_at);

CREATE TABLE bulk_tasks (
    bulk_id UUID NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    subject UUID NOT NULL,
    lane TEXT NOT NULL,
    reason TEXT,
    code TEXT,
    first_failed_at TIMESTAMP WITH TIME ZONE,
    total_attempts INTEGER NOT NULL,
    state TEXT DEFAULT 'waiting' NOT NULL,
    outcome TEXT,
    CONSTRAINT bulk_tasks_pkey PRIMARY KEY (bulk_id, number),
    CONSTRAINT bulk_tasks_bulk_id_fkey FOREIGN KEY (bulk_id) REFERENCES bulk_operations (id),
    CONSTRAINT bulk_tasks_state_check
        CHECK (state IN ('waiting', 'sent', 'retrying', 'done', 'failed', 'skipped'))
) WITH (fillfactor = 70);

CREATE INDEX bulk_tasks_waiting ON bulk_tasks (bulk_id, number) WHERE state = 'waiting';
CREATE INDEX bulk_tasks_sent ON bulk_tasks (bulk_id, number) WHERE state IN ('sent', 'retrying');
CREATE INDEX bulk_tasks_left ON bulk_tasks (bulk_id, number) WHERE state IN ('failed', 'skipped');

-- A state that has ended does not go on.
CREATE TRIGGER bulk_operations_transition AFTER UPDATE OF state ON bulk_operations FOR EACH ROW
WHEN (OLD.state <> NEW.state AND OLD.state <> 'running')
EXECUTE FUNCTION refuse_transition();
