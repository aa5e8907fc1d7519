-- How a task is asked for, by roles that may not touch the tasks of others: whoever works on orders
-- has payment requests charged, and cannot stop or put off a charge. Runs as the owner.
--
-- Tasks that are there already stay where they are: whoever has one in hand sees at the end that it
-- was wanted again, and one that waits is gathered by a relay.

CREATE OR REPLACE FUNCTION enqueue_tasks(
    step text,
    subjects uuid[],
    places integer[],  -- of each subject: which of the queues and lanes
    queues text[],
    lanes text[],
    delay double precision  -- seconds
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    -- Of new batches, for relays that sleep. A payload is less than 8,000 bytes.
    most_named CONSTANT integer := 200;
    names text;
BEGIN
    -- Who has connected, since the current user is the owner in here.
    IF EXISTS (
        SELECT FROM unnest(queues) AS wanted(queue) WHERE NOT EXISTS (
            SELECT FROM enqueuers AS e
            WHERE e.step = enqueue_tasks.step AND e.queue = wanted.queue
              AND pg_has_role(session_user, e.role, 'USAGE'))
    ) AND NOT pg_has_role(session_user, current_user, 'USAGE') THEN
        RAISE EXCEPTION '% may not enqueue % on %', session_user, step, queues
            USING ERRCODE = 'insufficient_privilege';
    END IF;

    WITH route AS (
        INSERT INTO routes (queue, name, lane)
        SELECT r.queue, enqueue_tasks.step, r.lane
        FROM unnest(queues, lanes) AS r(queue, lane)
        ORDER BY r.queue, r.lane
        ON CONFLICT DO NOTHING
    ), put AS (
        INSERT INTO tasks AS t (name, subject, queue, lane, run_at, batched)
        SELECT enqueue_tasks.step, r.subject, queues[r.place], lanes[r.place],
            clock_timestamp() + make_interval(secs => delay), delay <= 0
        FROM unnest(subjects, places) AS r(subject, place)
        ORDER BY r.subject
        ON CONFLICT (name, subject) DO UPDATE SET
            wanted = t.wanted + 1,
            queue = excluded.queue,
            lane = excluded.lane,
            attempts = 0,
            state = 'ready',
            batched = t.batched AND t.state <> 'failed',
            run_at = CASE
                WHEN t.state = 'failed' THEN excluded.run_at  -- a person is not a queue
                WHEN t.batched THEN t.run_at
                ELSE least(t.run_at, excluded.run_at) END,
            starts = CASE WHEN t.state = 'failed' THEN 0 ELSE t.starts END,
            reason = NULL, code = NULL, error = NULL
        RETURNING t.subject, t.queue, t.lane, t.run_at, t.batched AND t.wanted = 1 AS is_new
    ), batched AS (
        INSERT INTO batches (id, queue, name, lane, subjects, size, run_at)
        SELECT gen_random_uuid(), p.queue, enqueue_tasks.step, p.lane,
            array_agg(p.subject ORDER BY p.subject), count(*), min(p.run_at)
        FROM put AS p WHERE p.is_new GROUP BY p.queue, p.lane
        RETURNING id
    )
    SELECT CASE WHEN count(*) <= most_named THEN string_agg(b.id::text, ' ') END INTO names
    FROM batched AS b;

    PERFORM pg_notify('ledger', names) FROM sleeping_relays WHERE until > now() LIMIT 1;
END $$
