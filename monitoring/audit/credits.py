"""Credit notes: what was paid and not given, at its invoice's own amounts."""

from monitoring.audit.checks import sql

CHECKS = (
    sql(
        "credits.cancelled",
        "a cancelled service has its money back",
        """
        SELECT 'service', l.service_id
        FROM invoice_lines AS l JOIN services AS s ON s.id = l.service_id
        WHERE s.id BETWEEN :low AND :high AND s.state = 'cancelled'
          AND NOT EXISTS (SELECT FROM credit_note_lines AS c
            WHERE c.invoice_id = l.invoice_id AND c.invoice_line = l.number)
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'refund' AND t.subject = l.service_id)""",
    ),
    sql(
        "credits.refused",
        "what was paid for and refused is given back",
        """
        SELECT DISTINCT 'payment request', l.request_id FROM request_lines AS l
        JOIN invoices AS i ON i.request_id = l.request_id
        WHERE l.request_id BETWEEN :low AND :high AND l.refused_at IS NOT NULL
          AND NOT EXISTS (SELECT FROM credit_note_lines AS c
            WHERE c.invoice_id = i.id AND c.invoice_line = l.number)
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'refund' AND t.subject = l.request_id)""",
    ),
    sql(
        "credits.due",
        "only what was cancelled or refused is credited, with that reason",
        """
        SELECT DISTINCT 'credit note', n.id FROM credit_notes AS n
        LEFT JOIN credit_note_lines AS c ON c.credit_note_id = n.id
        LEFT JOIN services AS s ON s.id = c.service_id
        LEFT JOIN invoices AS i ON i.id = n.invoice_id
        LEFT JOIN request_lines AS q ON q.request_id = i.request_id AND q.number = c.invoice_line
        WHERE n.id BETWEEN :low AND :high AND NOT CASE n.reason
            WHEN 'not_delivered' THEN coalesce(s.state, '') = 'cancelled'
            WHEN 'ended' THEN q.refused_at IS NOT NULL
            ELSE false END""",
    ),
    sql(
        "credits.sum",
        "a credit note is the sum of its lines, at its invoice's amounts",
        """
        SELECT 'credit note', n.id FROM credit_notes AS n
        LEFT JOIN invoices AS i ON i.id = n.invoice_id
        LEFT JOIN (
            SELECT c.credit_note_id, sum(c.net) AS net, sum(c.tax) AS tax,
                bool_and((c.service_id, c.period_number, c.description, c.net, c.tax_rate)
                    IS NOT DISTINCT FROM
                    (l.service_id, l.period_number, l.description, l.net, l.tax_rate)) AS same,
                min(CAST(c.invoice_id AS text)) AS first, max(CAST(c.invoice_id AS text)) AS last
            FROM credit_note_lines AS c LEFT JOIN invoice_lines AS l
            ON l.invoice_id = c.invoice_id AND l.number = c.invoice_line
            WHERE c.credit_note_id BETWEEN :low AND :high
            GROUP BY c.credit_note_id) AS c ON c.credit_note_id = n.id
        WHERE n.id BETWEEN :low AND :high AND (c.same IS NOT TRUE
            OR (c.first, c.last) IS DISTINCT FROM
                (CAST(n.invoice_id AS text), CAST(n.invoice_id AS text))
            OR (n.net, n.tax, n.total, n.currency)
                IS DISTINCT FROM (c.net, c.tax, c.net + c.tax, i.currency))""",
    ),
    # In proportion to the net credited by then, rounded once; an earlier release gave back what
    # each line was taxed.
    sql(
        "credits.tax",
        "credit notes give back the tax of their invoice in proportion, and never more",
        """
        SELECT DISTINCT 'invoice', invoice_id FROM (
            SELECT l.invoice_id, l.net, l.tax AS invoiced, c.tax, t.net AS all_net,
                t.tax AS all_tax, sum(c.net) OVER w AS upto, sum(c.tax) OVER w AS given,
                sum(c.tax) OVER (PARTITION BY l.invoice_id, l.tax_rate) AS total,
                count(*) OVER (PARTITION BY l.invoice_id, l.tax_rate) AS credited, t.lines
            FROM credit_note_lines AS c
            JOIN credit_notes AS n ON n.id = c.credit_note_id
            JOIN invoice_lines AS l ON l.invoice_id = c.invoice_id AND l.number = c.invoice_line
            JOIN (SELECT invoice_id, tax_rate, sum(net) AS net, sum(tax) AS tax,
                    count(*) AS lines
                FROM invoice_lines
                WHERE invoice_id IN (SELECT invoice_id FROM credit_note_lines)
                GROUP BY invoice_id, tax_rate) AS t
                ON t.invoice_id = l.invoice_id AND t.tax_rate = l.tax_rate
            WHERE c.invoice_id BETWEEN :low AND :high
            WINDOW w AS (PARTITION BY l.invoice_id, l.tax_rate
                ORDER BY n.issued_on, n.series, n.number, l.number)) AS c
        WHERE total > all_tax OR (credited = lines AND total <> all_tax) OR tax < 0
           OR (tax <> invoiced AND given <> round(CASE all_net WHEN 0 THEN 0
                ELSE all_tax * upto / all_net END))""",
    ),
)
