-- PostgreSQL, as of revision 0001; later revisions change it, this file stays.

CREATE TABLE invoice_series (
    code TEXT NOT NULL,
    last_number BIGINT NOT NULL,
    last_date DATE NOT NULL,
    CONSTRAINT invoice_series_pkey PRIMARY KEY (code)
);

CREATE TABLE subsidiaries (
    code TEXT NOT NULL,
    definition JSONB NOT NULL,
    CONSTRAINT subsidiaries_pkey PRIMARY KEY (code)
);

CREATE TABLE contracts (
    code TEXT NOT NULL,
    version INTEGER NOT NULL,
    definition JSONB NOT NULL,
    CONSTRAINT contracts_pkey PRIMARY KEY (code)
);

CREATE TABLE catalogue_version (
    sole BOOLEAN NOT NULL CONSTRAINT catalogue_version_sole_check CHECK (sole),
    version BIGINT NOT NULL,
    loaded_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT catalogue_version_pkey PRIMARY KEY (sole)
);

CREATE TABLE customers (
    id TEXT NOT NULL,
    subsidiary TEXT NOT NULL,
    country TEXT NOT NULL,
    language TEXT NOT NULL,
    email TEXT NOT NULL,
    vat_number TEXT,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT customers_pkey PRIMARY KEY (id)
);

CREATE TABLE events (
    subject UUID NOT NULL,
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    name TEXT NOT NULL,
    task TEXT,
    waited REAL,
    attempt SMALLINT,
    detail JSONB,
    CONSTRAINT events_pkey PRIMARY KEY (subject, id)
);

CREATE TABLE tasks (
    name TEXT NOT NULL,
    subject UUID NOT NULL,
    queue TEXT NOT NULL,
    lane TEXT NOT NULL,
    state TEXT DEFAULT 'ready' NOT NULL CONSTRAINT tasks_state_check CHECK (state IN ('ready', 'dispatched', 'leased', 'failed')),
    run_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    wanted INTEGER DEFAULT '1' NOT NULL,
    attempts SMALLINT DEFAULT '0' NOT NULL,
    starts SMALLINT DEFAULT '0' NOT NULL,
    dispatches SMALLINT DEFAULT '0' NOT NULL,
    rescue_at TIMESTAMP WITH TIME ZONE,
    lease_token UUID,
    lease_until TIMESTAMP WITH TIME ZONE,
    reason TEXT,
    error TEXT,
    CONSTRAINT tasks_pkey PRIMARY KEY (name, subject)
)
 WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX tasks_leased ON tasks (lease_until) WHERE state = 'leased';

CREATE INDEX tasks_dispatched ON tasks (queue, rescue_at) WHERE state = 'dispatched';

CREATE INDEX tasks_failed ON tasks (queue, name) WHERE state = 'failed';

CREATE INDEX tasks_suspect ON tasks (queue) WHERE starts >= 3;

CREATE INDEX tasks_ready ON tasks (queue, name, lane, run_at) WHERE state = 'ready';

CREATE TABLE routes (
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    lane TEXT NOT NULL,
    CONSTRAINT routes_pkey PRIMARY KEY (queue, name, lane)
);

CREATE TABLE lane_pauses (
    lane TEXT NOT NULL,
    reason TEXT NOT NULL,
    paused_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT lane_pauses_pkey PRIMARY KEY (lane)
);

CREATE TABLE rejected_documents (
    id UUID NOT NULL,
    upstream TEXT NOT NULL,
    door TEXT NOT NULL,
    key TEXT,
    code TEXT NOT NULL,
    problems JSONB NOT NULL,
    body TEXT NOT NULL,
    times INTEGER DEFAULT '1' NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT rejected_documents_pkey PRIMARY KEY (id)
);

CREATE INDEX rejected_documents_received_at_idx ON rejected_documents (received_at);

CREATE TABLE plans (
    code TEXT NOT NULL,
    universe TEXT NOT NULL CONSTRAINT plans_universe_check CHECK (universe IN ('web', 'dedicated', 'cloud', 'telecom')),
    brand TEXT NOT NULL,
    driver TEXT NOT NULL,
    contract TEXT,
    on_sale BOOLEAN DEFAULT 'true' NOT NULL,
    definition JSONB NOT NULL,
    CONSTRAINT plans_pkey PRIMARY KEY (code),
    CONSTRAINT plans_contract_fkey FOREIGN KEY(contract) REFERENCES contracts (code)
);

CREATE TABLE payment_methods (
    id UUID NOT NULL,
    customer_id TEXT NOT NULL,
    token TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT payment_methods_pkey PRIMARY KEY (id),
    CONSTRAINT payment_methods_customer_id_token_key UNIQUE (customer_id, token),
    CONSTRAINT payment_methods_customer_id_fkey FOREIGN KEY(customer_id) REFERENCES customers (id)
);

CREATE TABLE agreements (
    customer_id TEXT NOT NULL,
    contract TEXT NOT NULL,
    version INTEGER NOT NULL,
    accepted_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT agreements_pkey PRIMARY KEY (customer_id, contract, version),
    CONSTRAINT agreements_customer_id_fkey FOREIGN KEY(customer_id) REFERENCES customers (id)
);

CREATE TABLE orders (
    id UUID NOT NULL,
    upstream TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash BYTEA NOT NULL,
    state TEXT NOT NULL CONSTRAINT orders_state_check CHECK (state IN ('accepted', 'refused', 'priced', 'paid', 'delivered', 'partly_delivered', 'cancelled')),
    customer_id TEXT,
    subsidiary TEXT,
    country TEXT,
    vat_number TEXT,
    payment_method_id UUID,
    problems JSONB,
    reason TEXT,
    accepted_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT orders_pkey PRIMARY KEY (id),
    CONSTRAINT orders_key_upstream_key UNIQUE (key, upstream),
    CONSTRAINT orders_customer_id_fkey FOREIGN KEY(customer_id) REFERENCES customers (id)
)
 WITH (fillfactor = 70);

CREATE TABLE payment_requests (
    id UUID NOT NULL,
    order_id UUID,
    payment_method_id UUID NOT NULL,
    customer_id TEXT NOT NULL,
    subsidiary TEXT NOT NULL,
    country TEXT NOT NULL,
    vat_number TEXT,
    currency TEXT NOT NULL,
    tax_mention TEXT NOT NULL,
    net BIGINT NOT NULL,
    tax BIGINT NOT NULL,
    total BIGINT NOT NULL,
    state TEXT DEFAULT 'open' NOT NULL CONSTRAINT payment_requests_state_check CHECK (state IN ('open', 'paid', 'split', 'voided')),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT payment_requests_pkey PRIMARY KEY (id),
    CONSTRAINT payment_requests_order_id_key UNIQUE (order_id),
    CONSTRAINT payment_requests_order_id_fkey FOREIGN KEY(order_id) REFERENCES orders (id)
)
 WITH (fillfactor = 70);

CREATE TABLE prices (
    plan TEXT NOT NULL,
    subsidiary TEXT NOT NULL,
    period_months SMALLINT NOT NULL,
    currency TEXT NOT NULL,
    setup BIGINT NOT NULL CONSTRAINT prices_setup_check CHECK (setup >= 0),
    renewal BIGINT NOT NULL CONSTRAINT prices_renewal_check CHECK (renewal >= 0),
    CONSTRAINT prices_pkey PRIMARY KEY (plan, subsidiary, period_months),
    CONSTRAINT prices_plan_fkey FOREIGN KEY(plan) REFERENCES plans (code),
    CONSTRAINT prices_subsidiary_fkey FOREIGN KEY(subsidiary) REFERENCES subsidiaries (code)
);

CREATE TABLE order_lines (
    order_id UUID NOT NULL,
    number SMALLINT NOT NULL,
    plan TEXT NOT NULL,
    period_months SMALLINT NOT NULL,
    quantity SMALLINT NOT NULL,
    configuration JSONB NOT NULL,
    CONSTRAINT order_lines_pkey PRIMARY KEY (order_id, number),
    CONSTRAINT order_lines_order_id_fkey FOREIGN KEY(order_id) REFERENCES orders (id)
);

CREATE TABLE services (
    id UUID NOT NULL,
    order_id UUID NOT NULL,
    line SMALLINT NOT NULL,
    unit SMALLINT NOT NULL,
    customer_id TEXT NOT NULL,
    subsidiary TEXT NOT NULL,
    plan TEXT NOT NULL,
    universe TEXT NOT NULL CONSTRAINT services_universe_check CHECK (universe IN ('web', 'dedicated', 'cloud', 'telecom')),
    brand TEXT NOT NULL,
    driver TEXT NOT NULL,
    configuration JSONB NOT NULL,
    period_months SMALLINT NOT NULL,
    mode TEXT DEFAULT 'automatic' NOT NULL CONSTRAINT services_mode_check CHECK (mode IN ('automatic', 'manual', 'stop')),
    state TEXT DEFAULT 'pending' NOT NULL CONSTRAINT services_state_check CHECK (state IN ('pending', 'delivering', 'active', 'suspended', 'terminated', 'cancelled')),
    anchor DATE,
    paid_periods INTEGER DEFAULT '0' NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    desired TEXT DEFAULT 'absent' NOT NULL CONSTRAINT services_desired_check CHECK (desired IN ('absent', 'active', 'suspended')),
    generation INTEGER DEFAULT '1' NOT NULL,
    confirmed TEXT DEFAULT 'absent' NOT NULL CONSTRAINT services_confirmed_check CHECK (confirmed IN ('absent', 'active', 'suspended')),
    confirmed_until DATE,
    resource_id TEXT,
    CONSTRAINT services_pkey PRIMARY KEY (id),
    CONSTRAINT services_order_id_line_unit_key UNIQUE (order_id, line, unit),
    CONSTRAINT services_order_id_fkey FOREIGN KEY(order_id) REFERENCES orders (id)
)
 WITH (fillfactor = 70);

CREATE TABLE request_lines (
    request_id UUID NOT NULL,
    number SMALLINT NOT NULL,
    service_id UUID NOT NULL,
    period_number INTEGER NOT NULL,
    description TEXT NOT NULL,
    net BIGINT NOT NULL,
    tax_rate NUMERIC(5, 2) NOT NULL,
    tax BIGINT NOT NULL,
    released_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT request_lines_pkey PRIMARY KEY (request_id, number),
    CONSTRAINT request_lines_request_id_fkey FOREIGN KEY(request_id) REFERENCES payment_requests (id)
);

CREATE UNIQUE INDEX request_lines_period ON request_lines (service_id, period_number) WHERE released_at IS NULL;

CREATE TABLE charges (
    key UUID NOT NULL,
    request_id UUID NOT NULL,
    attempt SMALLINT NOT NULL,
    amount BIGINT NOT NULL,
    currency TEXT NOT NULL,
    state TEXT NOT NULL CONSTRAINT charges_state_check CHECK (state IN ('started', 'succeeded', 'declined', 'unknown')),
    reference TEXT,
    reason TEXT,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    decided_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT charges_pkey PRIMARY KEY (key),
    CONSTRAINT charges_request_id_attempt_key UNIQUE (request_id, attempt),
    CONSTRAINT charges_request_id_fkey FOREIGN KEY(request_id) REFERENCES payment_requests (id)
)
 WITH (fillfactor = 70);

CREATE UNIQUE INDEX charges_succeeded ON charges (request_id) WHERE state = 'succeeded';

CREATE TABLE invoices (
    id UUID NOT NULL,
    series TEXT NOT NULL,
    number BIGINT NOT NULL,
    issued_on DATE NOT NULL,
    request_id UUID NOT NULL,
    customer_id TEXT NOT NULL,
    subsidiary TEXT NOT NULL,
    country TEXT NOT NULL,
    vat_number TEXT,
    currency TEXT NOT NULL,
    tax_mention TEXT NOT NULL,
    net BIGINT NOT NULL,
    tax BIGINT NOT NULL,
    total BIGINT NOT NULL,
    CONSTRAINT invoices_pkey PRIMARY KEY (id),
    CONSTRAINT invoices_series_number_key UNIQUE (series, number),
    CONSTRAINT invoices_series_fkey FOREIGN KEY(series) REFERENCES invoice_series (code),
    CONSTRAINT invoices_request_id_key UNIQUE (request_id),
    CONSTRAINT invoices_request_id_fkey FOREIGN KEY(request_id) REFERENCES payment_requests (id)
);

CREATE TABLE operations (
    key UUID NOT NULL,
    service_id UUID NOT NULL,
    kind TEXT NOT NULL,
    generation INTEGER NOT NULL,
    state TEXT NOT NULL CONSTRAINT operations_state_check CHECK (state IN ('pending', 'done', 'failed', 'unknown')),
    paid_until DATE NOT NULL,
    reason TEXT,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT operations_pkey PRIMARY KEY (key),
    CONSTRAINT operations_service_id_fkey FOREIGN KEY(service_id) REFERENCES services (id)
)
 WITH (fillfactor = 70);

CREATE INDEX operations_service_id_idx ON operations (service_id);

CREATE TABLE invoice_lines (
    invoice_id UUID NOT NULL,
    number SMALLINT NOT NULL,
    service_id UUID NOT NULL,
    period_number INTEGER NOT NULL,
    description TEXT NOT NULL,
    net BIGINT NOT NULL,
    tax_rate NUMERIC(5, 2) NOT NULL,
    tax BIGINT NOT NULL,
    CONSTRAINT invoice_lines_pkey PRIMARY KEY (invoice_id, number),
    CONSTRAINT invoice_lines_service_id_period_number_key UNIQUE (service_id, period_number),
    CONSTRAINT invoice_lines_invoice_id_fkey FOREIGN KEY(invoice_id) REFERENCES invoices (id)
);

CREATE TABLE credit_notes (
    id UUID NOT NULL,
    series TEXT NOT NULL,
    number BIGINT NOT NULL,
    issued_on DATE NOT NULL,
    invoice_id UUID NOT NULL,
    reason TEXT NOT NULL,
    currency TEXT NOT NULL,
    net BIGINT NOT NULL,
    tax BIGINT NOT NULL,
    total BIGINT NOT NULL,
    CONSTRAINT credit_notes_pkey PRIMARY KEY (id),
    CONSTRAINT credit_notes_series_number_key UNIQUE (series, number),
    CONSTRAINT credit_notes_series_fkey FOREIGN KEY(series) REFERENCES invoice_series (code),
    CONSTRAINT credit_notes_invoice_id_fkey FOREIGN KEY(invoice_id) REFERENCES invoices (id)
);

CREATE INDEX credit_notes_invoice_id_idx ON credit_notes (invoice_id);

CREATE TABLE credit_note_lines (
    credit_note_id UUID NOT NULL,
    invoice_id UUID NOT NULL,
    invoice_line SMALLINT NOT NULL,
    service_id UUID NOT NULL,
    period_number INTEGER NOT NULL,
    description TEXT NOT NULL,
    net BIGINT NOT NULL,
    tax_rate NUMERIC(5, 2) NOT NULL,
    tax BIGINT NOT NULL,
    CONSTRAINT credit_note_lines_pkey PRIMARY KEY (invoice_id, invoice_line),
    CONSTRAINT credit_note_lines_invoice_id_invoice_line_fkey FOREIGN KEY(invoice_id, invoice_line) REFERENCES invoice_lines (invoice_id, number),
    CONSTRAINT credit_note_lines_credit_note_id_fkey FOREIGN KEY(credit_note_id) REFERENCES credit_notes (id)
);

CREATE TABLE refunds (
    key UUID NOT NULL,
    credit_note_id UUID NOT NULL,
    attempt SMALLINT NOT NULL,
    charge_key UUID NOT NULL,
    amount BIGINT NOT NULL,
    currency TEXT NOT NULL,
    state TEXT NOT NULL CONSTRAINT refunds_state_check CHECK (state IN ('started', 'succeeded', 'declined', 'unknown')),
    reference TEXT,
    reason TEXT,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    decided_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT refunds_pkey PRIMARY KEY (key),
    CONSTRAINT refunds_credit_note_id_attempt_key UNIQUE (credit_note_id, attempt),
    CONSTRAINT refunds_credit_note_id_fkey FOREIGN KEY(credit_note_id) REFERENCES credit_notes (id),
    CONSTRAINT refunds_charge_key_fkey FOREIGN KEY(charge_key) REFERENCES charges (key)
)
 WITH (fillfactor = 70);

CREATE UNIQUE INDEX refunds_succeeded ON refunds (credit_note_id) WHERE state = 'succeeded';
