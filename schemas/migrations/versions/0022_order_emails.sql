CREATE TABLE order_emails (
    id UUID NOT NULL,
    order_id UUID NOT NULL,
    number SMALLINT NOT NULL,
    delivered UUID[] NOT NULL,
    given_up UUID[] NOT NULL,
    begun_at TIMESTAMP WITH TIME ZONE NOT NULL,
    sent_at TIMESTAMP WITH TIME ZONE,
    refused_at TIMESTAMP WITH TIME ZONE,
    given_up_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT order_emails_pkey PRIMARY KEY (id),
    CONSTRAINT order_emails_order_id_fkey FOREIGN KEY(order_id) REFERENCES orders (id),
    CONSTRAINT order_emails_order_id_number_key UNIQUE (order_id, number)
);
