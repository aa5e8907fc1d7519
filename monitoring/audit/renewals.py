"""Renewals: what has happened about the next period of each service, by requests and charges."""

from monitoring.audit.checks import sql

CHECKS = (
    sql(
        "renewals.open",
        "an open request of renewals is on services that are there, and they on it",
        """
        SELECT 'payment request', l.request_id FROM request_lines AS l
        JOIN payment_requests AS p ON p.id = l.request_id
        JOIN services AS s ON s.id = l.service_id
        LEFT JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
        WHERE p.id BETWEEN :low AND :high AND p.state = 'open' AND p.order_id IS NULL
          AND (r.request_id IS DISTINCT FROM p.id
            OR (s.desired = 'absent' AND NOT EXISTS (SELECT FROM tasks AS t
                WHERE t.name = 'withdraw' AND t.subject = s.id))
            OR s.state NOT IN ('active', 'suspended')
            OR l.period_number <= s.paid_periods OR l.released_at IS NOT NULL)
        UNION
        SELECT 'payment request', r.request_id FROM renewals AS r
        JOIN services AS s ON s.id = r.service_id AND r.period_number = s.paid_periods + 1
        LEFT JOIN payment_requests AS p ON p.id = r.request_id
        WHERE s.id BETWEEN :low AND :high AND r.request_id IS NOT NULL AND s.desired <> 'absent'
          AND (p.state IS DISTINCT FROM 'open'
            OR NOT EXISTS (SELECT FROM request_lines AS l
                WHERE l.request_id = r.request_id AND l.service_id = s.id
                  AND l.released_at IS NULL))""",
    ),
    # An announced amount that was found to be wrong since is about to be announced again.
    sql(
        "renewals.currency",
        "a renewal is asked for, priced and announced in its subsidiary's currency",
        """
        SELECT 'service', s.id FROM services AS s
        JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
        JOIN subsidiaries AS u ON u.code = s.subsidiary
        LEFT JOIN payment_requests AS p ON p.id = r.request_id
        WHERE s.id BETWEEN :low AND :high
          AND s.state IN ('active', 'suspended') AND s.desired <> 'absent'
          AND (r.currency <> u.definition->>'currency'
            OR (p.state = 'open' AND p.currency <> u.definition->>'currency')
            OR (r.announced_currency <> u.definition->>'currency'
              AND (r.dearer_at IS NULL OR r.dearer_at < r.announced_at)))
          AND s.next_step IS DISTINCT FROM 'withdraw'
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'withdraw' AND t.subject = s.id)
          AND NOT EXISTS (SELECT FROM recomputations AS w WHERE w.change_id IS NOT NULL
            AND w.subsidiary = s.subsidiary AND (w.after IS NULL OR w.after < s.id))
          AND NOT EXISTS (SELECT FROM charges AS c
            WHERE c.request_id = p.id AND c.state IN ('started', 'unknown'))""",
    ),
    sql(
        "renewals.price",
        "a renewal is asked for at the price that its first reminder fixed",
        """
        SELECT DISTINCT 'payment request', p.id FROM payment_requests AS p
        JOIN (SELECT request_id, service_id, min(period_number) AS first, max(net) AS most,
                min(net) AS least
            FROM request_lines WHERE request_id BETWEEN :low AND :high
            GROUP BY request_id, service_id) AS l ON l.request_id = p.id
        LEFT JOIN renewals AS r ON r.service_id = l.service_id AND r.period_number = l.first
        WHERE p.id BETWEEN :low AND :high AND p.order_id IS NULL AND p.state IN ('open', 'paid')
          -- What was fixed in a former currency is given up for the catalogue's price.
          AND (r.service_id IS NULL
            OR (r.currency = p.currency AND (l.least, l.most) <> (r.net, r.net)))""",
    ),
    sql(
        "renewals.dates",
        "a renewal is of one of its service's expiries, and of no period beyond the next",
        """
        SELECT 'service', s.id FROM renewals AS r JOIN services AS s ON s.id = r.service_id
        WHERE s.id BETWEEN :low AND :high AND (r.period_number NOT BETWEEN 1 AND s.paid_periods + 1
            OR r.expires_on IS DISTINCT FROM (s.anchor
                + make_interval(months => s.period_months * (r.period_number - 1)))::date
            OR r.net < 0 OR r.requests < 0 OR r.dearer < 0
            OR (r.dearer > 0) <> (r.dearer_at IS NOT NULL)
            OR (r.announced IS NULL) <> (r.announced_at IS NULL)
            OR (r.announced_currency = r.currency AND r.announced < r.net))""",
    ),
    sql(
        "renewals.counts",
        "a renewal was on as many requests, and declined as often, as there are",
        """
        SELECT 'service', s.id FROM services AS s
        JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
        LEFT JOIN (
            SELECT q.service_id, q.period_number, count(DISTINCT q.request_id) AS requests,
                count(c.key) AS declined
            FROM request_lines AS q
            LEFT JOIN charges AS c ON c.request_id = q.request_id AND c.state = 'declined'
            WHERE q.service_id BETWEEN :low AND :high
            GROUP BY q.service_id, q.period_number) AS q
            ON q.service_id = s.id AND q.period_number = r.period_number
        LEFT JOIN (
            SELECT q.service_id, q.period_number, count(*) AS declined
            FROM events AS e JOIN request_lines AS q ON q.request_id = e.subject
            WHERE e.name = 'charge.declined' AND e.task IS NULL
              AND e.detail->>'reason' = 'given_up'
            GROUP BY q.service_id, q.period_number) AS g
            ON g.service_id = s.id AND g.period_number = r.period_number
        WHERE s.id BETWEEN :low AND :high
          AND (r.requests <> coalesce(q.requests, 0)
            OR r.declines <> coalesce(q.declined, 0) + coalesce(g.declined, 0)
            OR (r.declines > 0) <> (r.declined_at IS NOT NULL)
            OR (r.declines > 0) <> (r.last_declined_at IS NOT NULL)
            OR r.last_declined_at < r.declined_at)""",
    ),
    # Tax may change before that.
    sql(
        "renewals.stands",
        "an open request stands until the periods that it asks for are over, at the latest",
        """
        SELECT 'service', s.id FROM services AS s
        JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
        JOIN payment_requests AS p ON p.id = r.request_id AND p.state = 'open'
        JOIN subsidiaries AS u ON u.code = s.subsidiary
        JOIN (SELECT request_id, service_id, max(period_number) AS last FROM request_lines
            WHERE service_id BETWEEN :low AND :high GROUP BY request_id, service_id) AS l
            ON l.request_id = p.id AND l.service_id = s.id
        WHERE s.id BETWEEN :low AND :high AND (r.stands_until IS NULL
            OR r.stands_until > (s.anchor + make_interval(months => s.period_months * l.last)
                + interval '1 day')::timestamp AT TIME ZONE (u.definition->>'timezone')
            OR r.stands_until < p.created_at)""",
    ),
    sql(
        "renewals.asked",
        "a renewal was asked for by its customer only if the history says so",
        """
        SELECT 'service', s.id FROM services AS s
        JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
        WHERE s.id BETWEEN :low AND :high AND r.asked_at IS NOT NULL
          -- What is due beside what is not was asked for by itself.
          AND r.requests = 0
          AND NOT EXISTS (SELECT FROM events AS e
            WHERE e.subject = s.id AND e.name = 'renewal.asked')""",
    ),
)
