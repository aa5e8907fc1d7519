"""What a year of renewals leaves in the books, written by SQL for services that are there."""

from sqlalchemy import Engine, text

OTHERS_FROM = 10_000_000
"""Numbers of the services that are not due start here."""


def add_others(engine: Engine, count: int) -> None:
    """So many services beside those that are due: paid by the year, due within the next one."""
    with engine.begin() as tx:
        for statement in (_CUSTOMERS, _METHODS, _AGREEMENTS, _SERVICES):
            tx.execute(statement, {"first": OTHERS_FROM, "count": count})


def write(engine: Engine) -> int:
    """Everything that billing the periods since the import has left; returns how many invoices.

    A period paid: its payment request, charge, invoice and operation, the e-mail that announced
    it, and four events.
    """
    with engine.begin() as tx:
        tx.execute(_PAST)
        tx.execute(text("ANALYZE past"))
        for statement in (
            _REQUESTS, _REQUEST_LINES, _CHARGES, _SERIES, _INVOICES, _INVOICE_LINES, _RENEWALS,
            _OPERATIONS, _EMAILS, _NOTICES, _EVENTS,
        ):  # fmt: skip
            tx.execute(statement)
        for statement in _CHAIN:
            tx.execute(statement)
        count = int(tx.execute(text("SELECT count(*) FROM past")).scalar_one())
    # Noted first, then awaited, then sealed, each in a transaction of its own.
    is_sealed = False
    while not is_sealed:
        with engine.begin() as tx:
            tx.execute(text("SELECT seal_events(10000, 1000000, interval '0')"))
            query = "SELECT last_id >= (SELECT max(id) FROM events) FROM sealing"
            is_sealed = bool(tx.execute(text(query)).scalar_one())
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE)"))
        connection.execute(text("CHECKPOINT"))
    return count


# As the migration does for documents of the release before.
_CHAIN = (
    text("ALTER TABLE invoices DISABLE TRIGGER USER"),
    text("""
        UPDATE invoices AS i SET hash = c.hash FROM (
            SELECT id, chained(chain_start(series), digest)
                OVER (PARTITION BY series ORDER BY number) AS hash
            FROM digested_documents) AS c
        WHERE c.id = i.id
    """),
    text("""
        UPDATE invoice_series AS s SET last_hash = i.hash FROM invoices AS i
        WHERE i.series = s.code AND i.number = s.last_number
    """),
    text("ALTER TABLE invoices ENABLE TRIGGER USER"),
)
_CUSTOMERS = text("""
    INSERT INTO customers (id, subsidiary, country, language, email, payment_method_id)
    SELECT 'renews-' || n, 'FR', 'FR', 'fr', 'renews-' || n || '@example.com',
        md5('method ' || n)::uuid
    FROM generate_series(:first, :first + :count - 1) AS n
""")
_METHODS = text("""
    INSERT INTO payment_methods (id, customer_id, token)
    SELECT md5('method ' || n)::uuid, 'renews-' || n, 'tok-' || n
    FROM generate_series(:first, :first + :count - 1) AS n
""")
_AGREEMENTS = text("""
    INSERT INTO agreements (customer_id, contract, version)
    SELECT 'renews-' || n, 'terms', 1
    FROM generate_series(:first, :first + :count - 1) AS n
""")
# Each day of the year, none of them before its first reminder.
_SERVICES = text("""
    INSERT INTO services (id, customer_id, subsidiary, plan, universe, brand, driver,
        configuration, period_months, state, anchor, paid_periods, imported_periods, expires_at,
        desired, confirmed, confirmed_until, resource_id, payment_method_id, agreed_version,
        next_step, next_step_at, next_subject)
    SELECT md5('service ' || n)::uuid, 'renews-' || n, 'FR', 'plan-0', 'web', 'ovh', 'web', '{}',
        12, 'active', expires_on - interval '24 months', 2, 1,
        CAST(expires_on AS timestamp) AT TIME ZONE 'Europe/Paris', 'active', 'active', expires_on,
        'web-' || n, md5('method ' || n)::uuid, 1, 'remind',
        (CAST(expires_on AS timestamp) - interval '60 days' + interval '8 hours')
            AT TIME ZONE 'Europe/Paris',
        md5('service ' || n)::uuid
    FROM (
        SELECT n, date_trunc('month', now())::date + make_interval(
            months => CAST(4 + n % 8 AS integer), days => CAST(n % 28 AS integer)) AS expires_on
        FROM generate_series(:first, :first + :count - 1) AS n
    ) AS s
""")

_PAST = text("""
    CREATE TEMPORARY TABLE past ON COMMIT DROP AS
    SELECT s.id AS service_id, s.customer_id, s.payment_method_id, k AS period_number, day,
        'Plan 0, P' || s.period_months || 'M' AS description,
        (s.anchor + make_interval(months => s.period_months * k))::date AS paid_until,
        (days || right(md5('request ' || s.id || k), 28))::uuid AS request_id,
        (days || right(md5('invoice ' || s.id || k), 28))::uuid AS invoice_id,
        md5('charge ' || s.id || k)::uuid AS charge_key,
        (days || right(md5('operation ' || s.id || k), 28))::uuid AS operation_key,
        md5('email ' || s.id || k)::uuid AS email_id,
        'FR-' || extract(year FROM day) AS series,
        row_number() OVER (PARTITION BY extract(year FROM day) ORDER BY day, s.id, k) AS number
    FROM services AS s
    CROSS JOIN LATERAL generate_series(s.imported_periods + 1, s.paid_periods) AS k
    CROSS JOIN LATERAL (
        SELECT (s.anchor + make_interval(months => s.period_months * (k - 1)))::date AS day) AS d
    CROSS JOIN LATERAL (
        -- As derived_id begins near a day.
        SELECT lpad(to_hex(day - DATE '1970-01-01'), 4, '0') AS days) AS x
""")
_REQUESTS = text("""
    INSERT INTO payment_requests (id, payment_method_id, customer_id, subsidiary, country,
        currency, tax_mention, net, tax, total, state, created_at, closed_at)
    SELECT request_id, payment_method_id, customer_id, 'FR', 'FR', 'EUR', 'VAT FR', 999, 200, 1199,
        'paid', day, day FROM past
""")
_REQUEST_LINES = text("""
    INSERT INTO request_lines (request_id, number, service_id, period_number, description, net,
        tax_rate, tax)
    SELECT request_id, 1, service_id, period_number, description, 999, 20, 200 FROM past
""")
_CHARGES = text("""
    INSERT INTO charges (key, request_id, attempt, amount, currency, payment_method_id, state,
        reference, started_at, decided_at)
    SELECT charge_key, request_id, 1, 1199, 'EUR', payment_method_id, 'succeeded',
        'ch-' || charge_key, day, day FROM past
""")
_SERIES = text("""
    INSERT INTO invoice_series (code, last_number, last_date)
    SELECT series, max(number), max(day) FROM past GROUP BY series
""")
_INVOICES = text("""
    INSERT INTO invoices (id, series, number, issued_on, request_id, customer_id, subsidiary,
        country, currency, tax_mention, net, tax, total)
    SELECT invoice_id, series, number, day, request_id, customer_id, 'FR', 'FR', 'EUR', 'VAT FR',
        999, 200, 1199 FROM past
""")
_INVOICE_LINES = text("""
    INSERT INTO invoice_lines (invoice_id, number, service_id, period_number, description, net,
        tax_rate, tax)
    SELECT invoice_id, 1, service_id, period_number, description, 999, 20, 200 FROM past
""")
_RENEWALS = text("""
    INSERT INTO renewals (service_id, period_number, expires_on, net, currency, requests)
    SELECT service_id, period_number, day, 999, 'EUR', 1 FROM past
""")
_OPERATIONS = text("""
    INSERT INTO operations (key, service_id, kind, generation, state, paid_until, started_at,
        ended_at)
    SELECT operation_key, service_id, 'extend', 1, 'done', paid_until, day, day FROM past
""")
_EMAILS = text("""
    INSERT INTO emails (id, customer_id, day, begun_at, sent_at)
    SELECT email_id, customer_id, day - 15, day - 15, day - 15 FROM past
""")
_NOTICES = text("""
    INSERT INTO notices (service_id, expires_at, kind, email_id)
    SELECT service_id, CAST(day AS timestamp) AT TIME ZONE 'Europe/Paris', 'before-15', email_id
    FROM past
""")
_EVENTS = text("""
    INSERT INTO events (subject, name, at, task, waited, attempt, detail)
    SELECT id, 'service.imported', anchor, NULL, NULL, NULL, NULL FROM services
    UNION ALL
    SELECT n.service_id, 'notice.sent', m.sent_at, 'remind', 0.1, 1,
        jsonb_build_object('kinds', jsonb_build_array(n.kind),
            'message_id', '<' || m.id || '@example.com>')
    FROM notices AS n JOIN emails AS m ON m.id = n.email_id
    UNION ALL
    SELECT service_id, e.name, day, e.task, 0.1, 1, CASE e.name
            WHEN 'renewal.requested' THEN jsonb_build_object('request', request_id)
            WHEN 'service.renewed' THEN jsonb_build_object('periods', 1,
                'paid_until', paid_until,
                'invoice', series || '-' || lpad(CAST(number AS text), 7, '0'))
            ELSE '{"operation": "extend"}' END
    FROM past CROSS JOIN (VALUES ('renewal.requested', 'request'),
        ('service.renewed', 'charge'), ('operation.done', 'converge')) AS e(name, task)
    ORDER BY 3
""")
