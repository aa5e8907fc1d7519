"""Numbers of invoices and credit notes: without gap, in order of their dates, in their series."""

from monitoring.audit.checks import sql

CHECKS = (
    sql(
        "numbers.gapless",
        "numbers of a series are 1..n, dates never go back",
        """
        SELECT 'number', series || '-' || lpad(CAST(number AS text), 7, '0') FROM (
            SELECT series, number, issued_on,
                row_number() OVER w AS expected, lag(issued_on) OVER w AS before
            FROM (SELECT series, number, issued_on FROM invoices
                  UNION ALL SELECT series, number, issued_on FROM credit_notes) AS d
            WINDOW w AS (PARTITION BY series ORDER BY number)) AS n
        WHERE number <> expected OR issued_on < before""",
    ),
    sql(
        "numbers.counter",
        "a series' counter is its last number, of its last date",
        """
        SELECT 'series', coalesce(s.code, d.series) FROM invoice_series AS s
        FULL JOIN (
            SELECT series, count(*) AS count, max(number) AS last, max(issued_on) AS day
            FROM (SELECT series, number, issued_on FROM invoices
                  UNION ALL SELECT series, number, issued_on FROM credit_notes) AS d
            GROUP BY series) AS d ON d.series = s.code
        WHERE (s.last_number, s.last_number, s.last_date)
            IS DISTINCT FROM (d.count, d.last, d.day)""",
    ),
    sql(
        "numbers.series",
        "a document is in the series of its subsidiary, its year and its kind",
        """
        SELECT 'invoice', id FROM invoices
        WHERE id BETWEEN :low AND :high
          AND series <> subsidiary || '-' || CAST(extract(year FROM issued_on) AS integer)
        UNION ALL
        SELECT 'credit note', n.id FROM credit_notes AS n
        LEFT JOIN invoices AS i ON i.id = n.invoice_id
        WHERE n.id BETWEEN :low AND :high AND n.series IS DISTINCT FROM
            i.subsidiary || '-' || CAST(extract(year FROM n.issued_on) AS integer) || '-C'""",
    ),
    # A day is local to the subsidiary; what is recorded beside it is the database's time, which
    # the business' may be ahead of, or behind, on a virtual clock.
    sql(
        "numbers.dates",
        "a document is dated between the payment that it is for and today",
        """
        SELECT 'invoice', i.id FROM invoices AS i
        LEFT JOIN payment_requests AS r ON r.id = i.request_id
        WHERE i.id BETWEEN :low AND :high
          AND (i.issued_on > CAST(CAST(:now AS timestamptz) + interval '1 day' AS date)
            OR (i.issued_on NOT BETWEEN CAST(r.closed_at AS date) - 1
                AND CAST(r.closed_at AS date) + 1
              AND NOT EXISTS (SELECT FROM virtual_clock)))
        UNION ALL
        SELECT 'credit note', n.id FROM credit_notes AS n
        LEFT JOIN invoices AS i ON i.id = n.invoice_id
        WHERE n.id BETWEEN :low AND :high
          AND (n.issued_on < i.issued_on
            OR n.issued_on > CAST(CAST(:now AS timestamptz) + interval '1 day' AS date))""",
    ),
)
