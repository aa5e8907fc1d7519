"""Invoices: each is its paid request, copied to the letter, and the sum of its lines."""

from monitoring.audit.checks import sql

CHECKS = (
    sql(
        "invoices.paid",
        "every paid request has its invoice, of the same amount",
        """
        SELECT 'payment request', r.id
        FROM payment_requests AS r LEFT JOIN invoices AS i ON i.request_id = r.id
        -- What cost nothing takes no number; in an earlier release it took one.
        WHERE r.id BETWEEN :low AND :high
          AND ((r.state = 'paid' AND (r.total > 0 OR i.id IS NOT NULL)) <> (i.id IS NOT NULL)
            OR (i.net, i.tax, i.total, i.currency) <> (r.net, r.tax, r.total, r.currency))
        UNION ALL
        SELECT 'invoice', i.id FROM invoices AS i
        WHERE i.id BETWEEN :low AND :high
          AND NOT EXISTS (SELECT FROM payment_requests AS r WHERE r.id = i.request_id)""",
    ),
    sql(
        "invoices.party",
        "an invoice is made out to whom its request was, in the same words",
        """
        SELECT 'invoice', i.id FROM invoices AS i JOIN payment_requests AS r ON r.id = i.request_id
        WHERE i.request_id BETWEEN :low AND :high
          AND (i.customer_id, i.subsidiary, i.country, i.vat_number, i.tax_mention)
            IS DISTINCT FROM
            (r.customer_id, r.subsidiary, r.country, r.vat_number, r.tax_mention)""",
    ),
    sql(
        "invoices.lines",
        "the lines of an invoice are those of its request",
        """
        SELECT DISTINCT 'invoice', coalesce(q.id, l.invoice_id) FROM (
            SELECT i.id, q.number, q.service_id, q.period_number, q.description, q.net, q.tax_rate,
                q.tax
            FROM invoices AS i JOIN request_lines AS q ON q.request_id = i.request_id
            WHERE i.id BETWEEN :low AND :high
        ) AS q
        FULL JOIN (SELECT * FROM invoice_lines WHERE invoice_id BETWEEN :low AND :high) AS l
            ON l.invoice_id = q.id AND l.number = q.number
        WHERE (l.service_id, l.period_number, l.description, l.net, l.tax_rate, l.tax)
            IS DISTINCT FROM
            (q.service_id, q.period_number, q.description, q.net, q.tax_rate, q.tax)""",
    ),
    sql(
        "invoices.sum",
        "an invoice is the sum of its lines",
        """
        SELECT 'invoice', i.id FROM invoices AS i LEFT JOIN (
            SELECT invoice_id, sum(net) AS net, sum(tax) AS tax FROM invoice_lines
            WHERE invoice_id BETWEEN :low AND :high
            GROUP BY invoice_id) AS l ON l.invoice_id = i.id
        WHERE i.id BETWEEN :low AND :high
          AND (i.net, i.tax, i.total) IS DISTINCT FROM (l.net, l.tax, l.net + l.tax)""",
    ),
    # Of each rate rounded once; an earlier release rounded each line.
    sql(
        "invoices.tax",
        "the tax of an invoice is that on its taxable amounts",
        """
        SELECT DISTINCT 'invoice', invoice_id FROM (
            SELECT invoice_id FROM invoice_lines
            WHERE invoice_id BETWEEN :low AND :high
            GROUP BY invoice_id, tax_rate
            HAVING sum(tax) <> round(sum(net) * tax_rate / 100)
               AND sum(tax) <> sum(round(net * tax_rate / 100))) AS l""",
    ),
    sql(
        "invoices.services",
        "an invoice bills its own customer's services",
        """
        SELECT DISTINCT 'invoice', i.id FROM invoices AS i
        JOIN invoice_lines AS l ON l.invoice_id = i.id
        LEFT JOIN services AS s ON s.id = l.service_id
        WHERE i.id BETWEEN :low AND :high
          AND (s.customer_id, s.subsidiary) IS DISTINCT FROM (i.customer_id, i.subsidiary)""",
    ),
)
