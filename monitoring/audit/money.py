"""What was taken and given back: charges and refunds, and who pays."""

from monitoring.audit.checks import sql

CHECKS = (
    sql(
        "money.once",
        "a payment request has at most one successful charge",
        """
        SELECT 'payment request', request_id FROM charges
        WHERE state = 'succeeded' AND request_id BETWEEN :low AND :high
        GROUP BY request_id HAVING count(*) > 1""",
    ),
    sql(
        "money.taken",
        "a request is paid if and only if money was taken for it",
        """
        SELECT 'payment request', r.id FROM payment_requests AS r
        LEFT JOIN charges AS c ON c.request_id = r.id AND c.state = 'succeeded'
        WHERE r.id BETWEEN :low AND :high
          AND ((r.state = 'paid') <> (c.key IS NOT NULL)
            OR (c.amount, c.currency) <> (r.total, r.currency))""",
    ),
    sql(
        "money.charges",
        "the charges of a request are numbered from 1 on, and each but the last was declined",
        """
        SELECT DISTINCT 'payment request', request_id FROM (
            SELECT request_id, attempt, state, started_at, decided_at, amount,
                row_number() OVER w AS expected, lead(state) OVER w AS next
            FROM charges WHERE request_id BETWEEN :low AND :high
            WINDOW w AS (PARTITION BY request_id ORDER BY attempt)) AS c
        WHERE attempt <> expected OR amount < 0 OR (next IS NOT NULL AND state <> 'declined')
           OR (state IN ('succeeded', 'declined')) <> (decided_at IS NOT NULL)
           OR decided_at < started_at""",
    ),
    sql(
        "money.paid",
        "a request was paid when its charge was decided, with the method that was charged",
        """
        SELECT 'payment request', r.id FROM payment_requests AS r
        JOIN charges AS c ON c.request_id = r.id AND c.state = 'succeeded'
        WHERE r.id BETWEEN :low AND :high AND r.state = 'paid'
          AND (c.decided_at IS DISTINCT FROM r.closed_at
            -- An earlier release did not keep the method with the charge.
            OR c.payment_method_id <> r.payment_method_id
            OR (r.payment_method_id IS NULL AND r.total > 0))""",
    ),
    sql(
        "money.charged",
        "a charge is of its request's currency, and of its amount unless that was taxed anew",
        """
        SELECT 'charge', c.key FROM charges AS c
        LEFT JOIN payment_requests AS r ON r.id = c.request_id
        WHERE c.request_id BETWEEN :low AND :high
          AND (c.currency IS DISTINCT FROM r.currency
            OR (c.amount <> r.total AND (r.order_id IS NULL OR c.amount < r.net)))""",
    ),
    sql(
        "money.methods",
        "a payment method pays for its own customer only",
        """
        SELECT p.kind, p.id FROM (
            SELECT 'customer' AS kind, id, id AS customer_id, payment_method_id FROM customers
            UNION ALL
            SELECT 'order', CAST(id AS text), customer_id, payment_method_id FROM orders
            UNION ALL
            SELECT 'service', CAST(id AS text), customer_id, payment_method_id FROM services
            UNION ALL
            SELECT 'payment request', CAST(id AS text), customer_id, payment_method_id
            FROM payment_requests
            UNION ALL
            SELECT 'charge', CAST(c.key AS text), r.customer_id, c.payment_method_id
            FROM charges AS c JOIN payment_requests AS r ON r.id = c.request_id) AS p
        LEFT JOIN payment_methods AS m ON m.id = p.payment_method_id
        WHERE p.payment_method_id BETWEEN :low AND :high
          AND m.customer_id IS DISTINCT FROM p.customer_id""",
    ),
    # A change of the payment method after the order has an event in the history.
    sql(
        "money.method",
        "what was ordered is paid with its order's method, unless that was changed",
        """
        SELECT 'service', CAST(s.id AS text)
        FROM services AS s JOIN orders AS o ON o.id = s.order_id
        WHERE s.id BETWEEN :low AND :high
          AND s.payment_method_id IS DISTINCT FROM o.payment_method_id
          AND NOT (s.payment_method_id IS NOT NULL AND EXISTS (
            SELECT FROM events AS e
            WHERE e.subject = s.id AND e.name = 'payment_method.changed'))
        UNION ALL
        SELECT 'payment request', CAST(r.id AS text) FROM payment_requests AS r
        JOIN orders AS o ON o.id = r.order_id
        WHERE r.id BETWEEN :low AND :high
          AND r.payment_method_id IS DISTINCT FROM o.payment_method_id
        UNION ALL
        SELECT DISTINCT 'customer', o.customer_id FROM orders AS o
        JOIN customers AS c ON c.id = o.customer_id
        WHERE o.id BETWEEN :low AND :high AND o.payment_method_id IS NOT NULL
          AND c.payment_method_id IS NULL""",
    ),
    sql(
        "money.refunded",
        "a credit note is refunded, or a refund is on its way",
        """
        SELECT 'credit note', n.id FROM credit_notes AS n
        WHERE n.id BETWEEN :low AND :high AND n.total > 0 AND NOT EXISTS (SELECT FROM refunds AS f
            WHERE f.credit_note_id = n.id AND f.state = 'succeeded' AND f.amount = n.total)
          AND NOT EXISTS (SELECT FROM credit_note_lines AS c
            JOIN invoices AS i ON i.id = c.invoice_id
            JOIN tasks AS t ON t.name = 'refund' AND t.subject IN (c.service_id, i.request_id)
            WHERE c.credit_note_id = n.id)""",
    ),
    sql(
        "money.refunds",
        "a refund gives back its credit note's total, of the charge that paid the invoice, once",
        """
        SELECT 'refund', f.key FROM refunds AS f
        LEFT JOIN credit_notes AS n ON n.id = f.credit_note_id
        LEFT JOIN invoices AS i ON i.id = n.invoice_id
        LEFT JOIN charges AS c ON c.request_id = i.request_id AND c.state = 'succeeded'
        WHERE f.credit_note_id BETWEEN :low AND :high
          AND ((f.amount, f.currency, f.charge_key) IS DISTINCT FROM (n.total, n.currency, c.key)
            OR (f.state IN ('succeeded', 'declined')) <> (f.decided_at IS NOT NULL)
            OR f.decided_at < f.started_at
            OR (f.by_hand AND f.state <> 'succeeded'))
        UNION ALL
        SELECT DISTINCT 'credit note', credit_note_id FROM (
            SELECT credit_note_id, attempt, state, row_number() OVER w AS expected,
                lead(state) OVER w AS next
            FROM refunds WHERE credit_note_id BETWEEN :low AND :high
            WINDOW w AS (PARTITION BY credit_note_id ORDER BY attempt)) AS f
        WHERE attempt <> expected OR (next IS NOT NULL AND state <> 'declined')""",
    ),
)
