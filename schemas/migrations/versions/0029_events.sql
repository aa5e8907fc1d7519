-- What happened goes out to upstream: which events of the history do, under which kind, how far they
-- went out, and to which endpoints over HTTPS.

-- Whoever takes an id of the history has a transaction id before it. So once every transaction before
-- a later one has ended, no event with a smaller id can appear any more.
CREATE FUNCTION assign_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_current_xact_id();
    RETURN NULL;
END $$;
CREATE TRIGGER events_transaction BEFORE INSERT ON events
    FOR EACH STATEMENT EXECUTE FUNCTION assign_transaction();

-- As what an event of the history goes out; NULL: it does not. What happened before this release does
-- not. A later kind must leave out what happened before it, too: the sequence of a subject is counted.
DO $$
BEGIN
    EXECUTE format($f$
        CREATE FUNCTION event_kind(id bigint, name text, detail jsonb) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $k$
            SELECT CASE WHEN id <= %s THEN NULL ELSE CASE name
                WHEN 'mode.changed' THEN CASE WHEN detail->>'mode' = 'stop'
                    THEN 'service.stopped' ELSE 'service.mode_changed' END
                WHEN 'charge.declined' THEN 'charge.failed'
                WHEN 'order.paid' THEN CASE WHEN detail ? 'invoice' THEN 'invoice.issued' END
                WHEN 'notice.sent' THEN CASE WHEN detail->'kinds' @? '$[*] ? (@ starts with "contract-")'
                    THEN 'contract.awaited' END
                WHEN 'notice.refused' THEN CASE WHEN detail->'kinds' @? '$[*] ? (@ starts with "contract-")'
                    THEN 'contract.awaited' END
                WHEN 'order.delivered' THEN name
                WHEN 'order.partly_delivered' THEN name
                WHEN 'order.cancelled' THEN name
                WHEN 'order.refused' THEN name
                WHEN 'service.delivered' THEN name
                WHEN 'service.cancelled' THEN name
                WHEN 'service.renewed' THEN name
                WHEN 'service.suspended' THEN name
                WHEN 'service.resumed' THEN name
                WHEN 'service.terminated' THEN name
                WHEN 'invoice.issued' THEN name
            END END
        $k$ $f$, coalesce((SELECT last_value FROM events_id_seq WHERE is_called), 0));
END $$;

CREATE INDEX events_outgoing ON events (id) WHERE name IN (
    'order.delivered', 'order.partly_delivered', 'order.cancelled', 'order.refused', 'order.paid',
    'charge.declined', 'invoice.issued', 'service.delivered', 'service.cancelled',
    'service.renewed', 'service.suspended', 'service.resumed', 'service.terminated',
    'mode.changed', 'notice.sent', 'notice.refused');

-- How far the history went out, and who is at it.
CREATE TABLE event_cursor (
    sole BOOLEAN NOT NULL CONSTRAINT event_cursor_sole_check CHECK (sole),
    last_id BIGINT NOT NULL,
    holder UUID,
    held_until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT event_cursor_pkey PRIMARY KEY (sole)
);
INSERT INTO event_cursor (sole, last_id)
    SELECT true, coalesce((SELECT last_value FROM events_id_seq WHERE is_called), 0);

-- Stretches of the history that went out: how many events of them, and which, with which sequences.
CREATE TABLE event_stretches (
    first_id BIGINT NOT NULL,
    last_id BIGINT NOT NULL,
    events BIGINT NOT NULL,
    digest BIGINT NOT NULL,
    begun_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT event_stretches_pkey PRIMARY KEY (first_id)
);

CREATE FUNCTION event_digest(id bigint, kind text, sequence bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT hashtextextended(id || ' ' || kind || ' ' || sequence, 0)
$$;

CREATE TABLE webhook_endpoints (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    realm TEXT NOT NULL,
    url TEXT NOT NULL,
    kinds TEXT[] NOT NULL,
    state TEXT DEFAULT 'enabled' NOT NULL CONSTRAINT webhook_endpoints_state_check
        CHECK (state IN ('enabled', 'disabled', 'removed')),
    reason TEXT,
    secret TEXT NOT NULL,
    previous_secret TEXT,
    previous_until TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    failing_since TIMESTAMP WITH TIME ZONE,
    delivered_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id)
);
-- Who gives an endpoint another secret does not read the one before.
CREATE FUNCTION keep_previous_secret() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.previous_secret := OLD.secret;
    RETURN NEW;
END $$;
CREATE TRIGGER webhook_endpoints_secret BEFORE UPDATE OF secret ON webhook_endpoints
    FOR EACH ROW EXECUTE FUNCTION keep_previous_secret();
CREATE UNIQUE INDEX webhook_endpoints_name ON webhook_endpoints (name) WHERE state <> 'removed';

CREATE TABLE webhook_deliveries (
    id UUID NOT NULL,
    endpoint_id UUID NOT NULL,
    event_id BIGINT,
    event UUID NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    body TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    tried_at TIMESTAMP WITH TIME ZONE,
    answer TEXT,
    ended_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT CONSTRAINT webhook_deliveries_outcome_check
        CHECK (outcome IN ('delivered', 'dropped')),
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_deliveries_endpoint_id_fkey FOREIGN KEY(endpoint_id)
        REFERENCES webhook_endpoints (id)
);
CREATE INDEX webhook_deliveries_endpoint_id_idx ON webhook_deliveries (endpoint_id, created_at);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

-- What an operator wants sent once more: to an endpoint, or to the exchange.
CREATE TABLE event_replays (
    id UUID NOT NULL,
    endpoint_id UUID,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    until TIMESTAMP WITH TIME ZONE NOT NULL,
    after_id BIGINT,
    events BIGINT DEFAULT 0 NOT NULL,
    asked_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT event_replays_pkey PRIMARY KEY (id),
    CONSTRAINT event_replays_endpoint_id_fkey FOREIGN KEY(endpoint_id)
        REFERENCES webhook_endpoints (id)
);
CREATE INDEX event_replays_open ON event_replays (asked_at) WHERE ended_at IS NULL;
