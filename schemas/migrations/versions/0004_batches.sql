-- Tasks are handed over in batches: a task is written when it is enqueued and deleted when it is done.

CREATE TABLE batches (
    id UUID NOT NULL,
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    lane TEXT NOT NULL,
    subjects UUID[] NOT NULL,
    size INTEGER NOT NULL,
    state TEXT DEFAULT 'ready' NOT NULL CONSTRAINT batches_state_check CHECK (state IN ('ready', 'dispatched', 'leased')),
    run_at TIMESTAMP WITH TIME ZONE NOT NULL,
    starts SMALLINT DEFAULT '0' NOT NULL,
    dispatches SMALLINT DEFAULT '0' NOT NULL,
    until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT batches_pkey PRIMARY KEY (id)
)
 WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX batches_ready ON batches (queue, name, lane, run_at) WHERE state = 'ready';

CREATE INDEX batches_held ON batches (state, queue, until) WHERE state <> 'ready';

CREATE UNLOGGED TABLE sleeping_relays (
    id UUID NOT NULL,
    until TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT sleeping_relays_pkey PRIMARY KEY (id)
);

-- An enqueue of the release before leaves it false: its task is gathered by a relay of this one.

ALTER TABLE tasks ADD COLUMN batched BOOLEAN DEFAULT 'false' NOT NULL;

-- What a worker of the release before holds is taken from it: its finish finds its lease lost.

UPDATE tasks SET
    starts = CASE WHEN state = 'leased' THEN greatest(starts - 1, 0) ELSE starts END,
    state = 'ready', dispatches = 0, rescue_at = NULL, lease_token = NULL, lease_until = NULL
WHERE state IN ('dispatched', 'leased');

-- A relay of the release before marks tasks dispatched: that is refused from here on.

ALTER TABLE tasks DROP CONSTRAINT tasks_state_check;

ALTER TABLE tasks ADD CONSTRAINT tasks_state_check CHECK (state IN ('ready', 'failed'));

DROP INDEX tasks_ready;

DROP INDEX tasks_dispatched;

DROP INDEX tasks_leased;

DROP INDEX tasks_suspect;

CREATE INDEX tasks_unbatched ON tasks (run_at) WHERE state = 'ready' AND NOT batched;
