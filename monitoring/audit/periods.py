"""What was paid for how long: expiry and paid periods, by documents and by history."""

from monitoring.audit.checks import sql

CHECKS = (
    sql(
        "periods.paid",
        "every paid period of a service is on one line of a paid request, and of its invoice",
        """
        SELECT 'service', s.id FROM services AS s
        LEFT JOIN (
            SELECT q.service_id, count(*) AS periods, min(q.period_number) AS first,
                max(q.period_number) AS last
            FROM request_lines AS q
            JOIN payment_requests AS r ON r.id = q.request_id AND r.state = 'paid'
            LEFT JOIN invoices AS i ON i.request_id = r.id
            LEFT JOIN invoice_lines AS l ON l.invoice_id = i.id AND l.number = q.number
                AND (l.service_id, l.period_number) = (q.service_id, q.period_number)
            WHERE q.service_id BETWEEN :low AND :high AND q.period_number > 0
              AND q.refused_at IS NULL AND (l.invoice_id IS NOT NULL OR r.total = 0)
            GROUP BY q.service_id) AS p ON p.service_id = s.id
        WHERE s.id BETWEEN :low AND :high
          AND (s.paid_periods - s.imported_periods <> coalesce(p.periods, 0)
            OR (p.first, p.last) <> (s.imported_periods + 1, s.paid_periods))
        UNION ALL
        SELECT 'service', q.service_id FROM request_lines AS q
        WHERE q.service_id BETWEEN :low AND :high
          AND NOT EXISTS (SELECT FROM services AS s WHERE s.id = q.service_id)""",
    ),
    sql(
        "periods.expiry",
        "a delivered service expires at its anchor plus its paid periods",
        """
        SELECT 'service', s.id FROM services AS s
        JOIN subsidiaries AS u ON u.code = s.subsidiary
        WHERE s.id BETWEEN :low AND :high AND s.anchor IS NOT NULL
          AND (s.expires_at AT TIME ZONE (u.definition->>'timezone'))
            <> (s.anchor + make_interval(months => s.period_months * s.paid_periods))::timestamp
          AND NOT EXISTS (SELECT FROM recomputations AS w WHERE w.change_id IS NOT NULL
            AND w.subsidiary = s.subsidiary AND (w.after IS NULL OR w.after < s.id))""",
    ),
    sql(
        "periods.history",
        "a service has as many paid periods as its history says that were paid",
        """
        SELECT 'service', s.id FROM services AS s
        LEFT JOIN (SELECT DISTINCT subject FROM events WHERE name = 'order.paid') AS o
            ON o.subject = s.order_id
        LEFT JOIN (
            SELECT subject, sum(CAST(detail->>'periods' AS integer)) AS periods,
                max(CAST(detail->>'paid_until' AS date)) AS until
            FROM events
            WHERE subject BETWEEN :low AND :high AND name = 'service.renewed'
            GROUP BY subject) AS e ON e.subject = s.id
        WHERE s.id BETWEEN :low AND :high
          AND (s.paid_periods - s.imported_periods
              <> CAST(o.subject IS NOT NULL AS integer) + coalesce(e.periods, 0)
            OR (e.subject IS NOT NULL AND e.until IS DISTINCT FROM (s.anchor
                + make_interval(months => s.period_months * s.paid_periods))::date))""",
    ),
    sql(
        "periods.anchor",
        "a service lasts from the day on which its history says that it was delivered",
        """
        SELECT 'service', s.id FROM services AS s
        JOIN events AS e ON e.subject = s.id AND e.name = 'service.delivered'
        WHERE s.id BETWEEN :low AND :high
          AND CAST(e.detail->>'paid_until' AS date) IS DISTINCT FROM
            (s.anchor + make_interval(months => s.period_months))::date""",
    ),
)
