-- What renewals need, added beside what there is: a fleet of the release before goes on meanwhile.

CREATE TABLE policies (
    code TEXT NOT NULL,
    definition JSONB NOT NULL,
    CONSTRAINT policies_pkey PRIMARY KEY (code)
);

CREATE TABLE rollouts (
    brand TEXT NOT NULL,
    subsidiary TEXT NOT NULL,
    starts_on DATE NOT NULL,
    CONSTRAINT rollouts_pkey PRIMARY KEY (brand, subsidiary)
);

CREATE TABLE recomputations (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    plans TEXT[],
    brand TEXT,
    subsidiary TEXT,
    after UUID,
    wanted_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT recomputations_pkey PRIMARY KEY (id)
);

CREATE TABLE heartbeat (
    sole BOOLEAN NOT NULL CONSTRAINT heartbeat_sole_check CHECK (sole),
    beat_at TIMESTAMP WITH TIME ZONE NOT NULL,
    business_at TIMESTAMP WITH TIME ZONE NOT NULL,
    trusted_until TIMESTAMP WITH TIME ZONE NOT NULL,
    identity TEXT NOT NULL,
    CONSTRAINT heartbeat_pkey PRIMARY KEY (sole)
);

CREATE TABLE destructions (
    hour TIMESTAMP WITH TIME ZONE NOT NULL,
    services INTEGER NOT NULL,
    CONSTRAINT destructions_pkey PRIMARY KEY (hour)
);

CREATE TABLE virtual_clock (
    sole BOOLEAN NOT NULL CONSTRAINT virtual_clock_sole_check CHECK (sole),
    ahead INTERVAL NOT NULL,
    CONSTRAINT virtual_clock_pkey PRIMARY KEY (sole)
);

CREATE TABLE forecasts (
    made_on DATE NOT NULL,
    due_on DATE NOT NULL,
    universe TEXT NOT NULL,
    brand TEXT NOT NULL,
    currency TEXT NOT NULL,
    decision TEXT NOT NULL,
    services INTEGER NOT NULL,
    net BIGINT NOT NULL,
    CONSTRAINT forecasts_pkey PRIMARY KEY (made_on, due_on, universe, brand, currency, decision)
);

CREATE TABLE emails (
    id UUID NOT NULL,
    customer_id TEXT NOT NULL,
    day DATE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    begun_at TIMESTAMP WITH TIME ZONE,
    sent_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT emails_pkey PRIMARY KEY (id)
);

CREATE UNIQUE INDEX emails_customer_day ON emails (customer_id, day);

ALTER TABLE customers ADD COLUMN payment_method_id UUID;

ALTER TABLE payment_methods ADD COLUMN expires_on DATE;

ALTER TABLE plans ADD COLUMN policy TEXT;

ALTER TABLE plans ADD CONSTRAINT plans_policy_fkey FOREIGN KEY(policy) REFERENCES policies (code);

ALTER TABLE prices ADD COLUMN on_sale BOOLEAN DEFAULT 'true' NOT NULL;

ALTER TABLE payment_requests ALTER COLUMN payment_method_id DROP NOT NULL;

ALTER TABLE request_lines ADD COLUMN refused_at TIMESTAMP WITH TIME ZONE;

ALTER TABLE charges ADD COLUMN payment_method_id UUID;

ALTER TABLE services
    ALTER COLUMN order_id DROP NOT NULL,
    ALTER COLUMN line DROP NOT NULL,
    ALTER COLUMN unit DROP NOT NULL,
    ADD COLUMN imported_periods INTEGER DEFAULT '0' NOT NULL,
    ADD COLUMN suspended_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN taken_over_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN mode_before TEXT CONSTRAINT services_mode_before_check CHECK (mode_before IN ('automatic', 'manual', 'stop')),
    ADD COLUMN mode_changed_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN payment_method_id UUID,
    ADD COLUMN pays_until DATE,
    ADD COLUMN agreed_version INTEGER,
    ADD COLUMN next_step TEXT CONSTRAINT services_next_step_check CHECK (next_step IN ('decide', 'remind', 'withdraw', 'request', 'charge', 'suspend', 'terminate')),
    ADD COLUMN next_step_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN next_subject UUID;

CREATE INDEX services_customer_id_idx ON services (customer_id);

CREATE INDEX services_due ON services (next_step, next_step_at) INCLUDE (next_subject) WHERE next_step_at IS NOT NULL;

CREATE INDEX services_group ON services (next_subject) WHERE next_step = 'request';

CREATE TABLE renewals (
    service_id UUID NOT NULL,
    period_number INTEGER NOT NULL,
    expires_on DATE NOT NULL,
    net BIGINT NOT NULL,
    request_id UUID,
    requests SMALLINT DEFAULT '0' NOT NULL,
    asked_at TIMESTAMP WITH TIME ZONE,
    declines SMALLINT DEFAULT '0' NOT NULL,
    declined_at TIMESTAMP WITH TIME ZONE,
    last_declined_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT renewals_pkey PRIMARY KEY (service_id, period_number),
    CONSTRAINT renewals_service_id_fkey FOREIGN KEY(service_id) REFERENCES services (id)
)
 WITH (fillfactor = 70);

CREATE INDEX renewals_expires_on ON renewals (expires_on);

CREATE TABLE notices (
    service_id UUID NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    kind TEXT NOT NULL,
    email_id UUID NOT NULL,
    CONSTRAINT notices_pkey PRIMARY KEY (service_id, expires_at, kind),
    CONSTRAINT notices_service_id_fkey FOREIGN KEY(service_id) REFERENCES services (id),
    CONSTRAINT notices_email_id_fkey FOREIGN KEY(email_id) REFERENCES emails (id)
);

CREATE INDEX notices_email_id_idx ON notices (email_id);

-- Services of the release before are paid with their order's method, by a customer who agreed.

UPDATE services AS s SET
    payment_method_id = o.payment_method_id,
    agreed_version = (SELECT max(a.version) FROM agreements AS a JOIN plans AS p ON p.contract = a.contract
        WHERE a.customer_id = s.customer_id AND p.code = s.plan)
FROM orders AS o WHERE o.id = s.order_id;

UPDATE customers AS c SET payment_method_id = (
    SELECT o.payment_method_id FROM orders AS o WHERE o.customer_id = c.id
    ORDER BY o.accepted_at DESC LIMIT 1);
