-- Documents that cannot be changed unseen: each invoice and credit note holds a hash over itself and
-- the document before it in its series. The history is sealed in blocks soon after it is written.

-- A line as it goes into the hash of its document. All of these are inlined by the planner.
CREATE FUNCTION document_line(
    number smallint, service_id uuid, period_number integer, description text, net bigint,
    tax_rate numeric, tax bigint
) RETURNS json LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT json_build_array(number, service_id, period_number, description, net, tax_rate, tax)
$$;

CREATE FUNCTION invoice_digest(
    series text, number bigint, issued_on date, request_id uuid, customer_id text,
    subsidiary text, country text, vat_number text, currency text, tax_mention text, net bigint,
    tax bigint, total bigint, lines json
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(json_build_array(series, number, issued_on, request_id, customer_id,
        subsidiary, country, vat_number, currency, tax_mention, net, tax, total, lines)::text,
        'UTF8'))
$$;

CREATE FUNCTION credit_note_digest(
    series text, number bigint, issued_on date, invoice_id uuid, reason text, currency text,
    net bigint, tax bigint, total bigint, lines json
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(json_build_array(series, number, issued_on, invoice_id, reason,
        currency, net, tax, total, lines)::text, 'UTF8'))
$$;

-- What the first document of a series follows.
CREATE FUNCTION chain_start(series text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(series, 'UTF8'))
$$;

-- As a window function over digests in order: the hash of each, the first one after `before`.
CREATE FUNCTION chain_link(state bytea, before bytea, digest bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sha256(coalesce(state, before) || digest)
$$;
CREATE AGGREGATE chained(before bytea, digest bytea) (SFUNC = chain_link, STYPE = bytea);

ALTER TABLE invoices ADD COLUMN hash BYTEA;
ALTER TABLE credit_notes ADD COLUMN hash BYTEA;
ALTER TABLE invoice_series ADD COLUMN last_hash BYTEA;

-- Every document with the digest of what it says now.
CREATE VIEW digested_documents AS
    SELECT i.id, i.series, i.number, i.hash, invoice_digest(i.series, i.number, i.issued_on,
        i.request_id, i.customer_id, i.subsidiary, i.country, i.vat_number, i.currency,
        i.tax_mention, i.net, i.tax, i.total, l.lines) AS digest
    FROM invoices AS i CROSS JOIN LATERAL (
        SELECT json_agg(document_line(l.number, l.service_id, l.period_number, l.description,
            l.net, l.tax_rate, l.tax) ORDER BY l.number) AS lines
        FROM invoice_lines AS l WHERE l.invoice_id = i.id) AS l
    UNION ALL
    SELECT n.id, n.series, n.number, n.hash, credit_note_digest(n.series, n.number, n.issued_on,
        n.invoice_id, n.reason, n.currency, n.net, n.tax, n.total, l.lines)
    FROM credit_notes AS n CROSS JOIN LATERAL (
        SELECT json_agg(document_line(l.invoice_line, l.service_id, l.period_number,
            l.description, l.net, l.tax_rate, l.tax) ORDER BY l.invoice_line) AS lines
        FROM credit_note_lines AS l WHERE l.credit_note_id = n.id) AS l;

CREATE TEMPORARY TABLE chained_documents ON COMMIT DROP AS
    SELECT id, series, number,
        chained(chain_start(series), digest) OVER (PARTITION BY series ORDER BY number) AS hash
    FROM digested_documents;
-- Nobody but a migration may do this.
ALTER TABLE invoices DISABLE TRIGGER USER;
ALTER TABLE credit_notes DISABLE TRIGGER USER;
UPDATE invoices AS i SET hash = c.hash FROM chained_documents AS c WHERE c.id = i.id;
UPDATE credit_notes AS n SET hash = c.hash FROM chained_documents AS c WHERE c.id = n.id;
UPDATE invoice_series AS s SET last_hash = coalesce(
    (SELECT c.hash FROM chained_documents AS c
     WHERE c.series = s.code ORDER BY c.number DESC LIMIT 1), chain_start(s.code));
ALTER TABLE invoices ENABLE TRIGGER USER;
ALTER TABLE credit_notes ENABLE TRIGGER USER;

-- Blocks of the history, chained: what their events said when they were sealed.
CREATE TABLE seals (
    number BIGINT NOT NULL,
    first_id BIGINT NOT NULL,
    last_id BIGINT NOT NULL,
    events BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    sealed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT seals_pkey PRIMARY KEY (number)
);
CREATE TRIGGER seals_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON seals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Up to where the history is complete, next: no transaction can add an event with an id up to
-- next_id once every one before complete_after has ended.
CREATE TABLE sealing (
    sole BOOLEAN NOT NULL CONSTRAINT sealing_sole_check CHECK (sole),
    last_id BIGINT NOT NULL,
    number BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    next_id BIGINT,
    complete_after BIGINT,
    noted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT sealing_pkey PRIMARY KEY (sole)
);
INSERT INTO sealing (sole, last_id, number, hash) VALUES (true, 0, 0, chain_start('events'));

-- Ids are given in the order of the rows on disk, nearly: an index of a few pages finds a block.
CREATE INDEX events_id_idx ON events USING brin (id) WITH (pages_per_range = 16, autosummarize = on);

CREATE FUNCTION event_text(e events) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ROW(e.id, e.subject, extract(epoch FROM e.at), e.name, e.task, e.waited, e.attempt,
        e.detail)::text
$$;

-- The hash of a block: over its events in order, after the hash of the block before.
CREATE FUNCTION block_hash(before bytea, first_id bigint, last_id bigint, OUT events bigint,
    OUT hash bytea) LANGUAGE sql STABLE PARALLEL SAFE
    -- While there are no statistics yet the planner would read all of the history for each block.
    SET enable_seqscan = off SET max_parallel_workers_per_gather = 0 AS $$
    SELECT count(*), sha256(before || sha256(convert_to(
        coalesce(string_agg(event_text(e), E'\n' ORDER BY e.id), ''), 'UTF8')))
    FROM events AS e WHERE e.id BETWEEN block_hash.first_id AND block_hash.last_id
$$;

-- Seals what is complete, in blocks of so many ids; returns how many events. Anybody who is too
-- early, or second, does nothing.
CREATE FUNCTION seal_events(block integer, blocks integer, settle interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    now_ sealing;
    upto bigint;
    sealed bigint := 0;
    found_ record;
BEGIN
    SELECT * INTO now_ FROM sealing FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF now_.next_id IS NULL THEN
        UPDATE sealing SET noted_at = clock_timestamp(), complete_after = NULL,
            next_id = (SELECT last_value FROM events_id_seq WHERE is_called);
        RETURN 0;
    END IF;
    IF now_.complete_after IS NULL THEN
        -- In a transaction of its own: whoever took one of these ids has an earlier number than it.
        UPDATE sealing SET complete_after = pg_current_xact_id()::text::bigint;
        RETURN 0;
    END IF;
    IF pg_snapshot_xmin(pg_current_snapshot())::text::bigint < now_.complete_after
        OR clock_timestamp() < now_.noted_at + settle THEN
        RETURN 0;
    END IF;
    PERFORM brin_summarize_new_values('events_id_idx');
    FOR i IN 1..blocks LOOP
        EXIT WHEN now_.last_id >= now_.next_id;
        upto := least(now_.last_id + block, now_.next_id);
        SELECT * INTO found_ FROM block_hash(now_.hash, now_.last_id + 1, upto);
        INSERT INTO seals (number, first_id, last_id, events, hash)
            VALUES (now_.number + 1, now_.last_id + 1, upto, found_.events, found_.hash);
        now_.last_id := upto;
        now_.number := now_.number + 1;
        now_.hash := found_.hash;
        sealed := sealed + found_.events;
    END LOOP;
    IF now_.last_id >= now_.next_id THEN
        now_.next_id := NULL;
    END IF;
    UPDATE sealing SET last_id = now_.last_id, number = now_.number, hash = now_.hash,
        next_id = now_.next_id;
    RETURN sealed;
END $$;
REVOKE ALL ON FUNCTION seal_events FROM PUBLIC;
GRANT EXECUTE ON FUNCTION seal_events TO autorenew_scheduler;
GRANT SELECT ON seals, sealing, digested_documents TO autorenew_readonly;
GRANT UPDATE (last_hash) ON invoice_series TO autorenew_billing;
