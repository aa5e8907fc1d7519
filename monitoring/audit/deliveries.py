"""E-mails about orders: what was delivered, or given up, is told of once, and truly."""

from monitoring.audit.checks import sql

CHECKS = (
    # Where it is switched on, the event says so.
    sql(
        "deliveries.told",
        "what was delivered or given up is in an e-mail, or its order has a task",
        """
        SELECT 'service', s.id FROM services AS s
        JOIN (SELECT DISTINCT subject FROM events
            WHERE subject BETWEEN :low AND :high AND detail ? 'email'
              AND name IN ('service.delivered', 'service.cancelled')) AS e ON e.subject = s.id
        WHERE s.id BETWEEN :low AND :high AND s.state IN ('active', 'suspended', 'cancelled')
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'tell' AND t.subject = s.order_id)
          AND NOT EXISTS (SELECT FROM order_emails AS m
            WHERE m.order_id = s.order_id AND s.id = ANY(m.delivered || m.given_up))""",
    ),
    sql(
        "deliveries.sent",
        "an e-mail about an order is sent, is being sent, or was given up",
        """
        SELECT 'order', m.order_id FROM order_emails AS m
        WHERE m.order_id BETWEEN :low AND :high AND m.sent_at IS NULL AND m.given_up_at IS NULL
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'tell' AND t.subject = m.order_id)""",
    ),
    sql(
        "deliveries.once",
        "an e-mail about an order tells of its own services, and no other e-mail does",
        """
        SELECT 'order', m.order_id FROM order_emails AS m
        CROSS JOIN LATERAL unnest(m.delivered || m.given_up) AS t(service_id)
        LEFT JOIN services AS s ON s.id = t.service_id AND s.order_id = m.order_id
        WHERE m.order_id BETWEEN :low AND :high
        GROUP BY m.order_id HAVING count(*) <> count(DISTINCT s.id)
        UNION ALL
        SELECT 'order', m.order_id FROM order_emails AS m
        WHERE m.order_id BETWEEN :low AND :high
          AND (cardinality(m.delivered || m.given_up) = 0
            OR NOT EXISTS (SELECT FROM orders AS o WHERE o.id = m.order_id))""",
    ),
    sql(
        "deliveries.truth",
        "an e-mail says of a service what became of it",
        """
        SELECT DISTINCT 'service', s.id FROM order_emails AS m
        CROSS JOIN LATERAL (
            SELECT d.id, false AS given_up FROM unnest(m.delivered) AS d(id)
            UNION ALL SELECT g.id, true FROM unnest(m.given_up) AS g(id)) AS t
        JOIN services AS s ON s.id = t.id
        WHERE m.order_id BETWEEN :low AND :high AND (s.anchor IS NULL) <> t.given_up""",
    ),
    sql(
        "deliveries.facts",
        "the e-mails of an order are numbered from 1, and begun before they are sent or refused",
        """
        SELECT 'order', order_id FROM order_emails
        WHERE order_id BETWEEN :low AND :high AND (
            sent_at < begun_at OR refused_at < begun_at OR given_up_at < refused_at
            OR (given_up_at IS NOT NULL AND (refused_at IS NULL OR sent_at IS NOT NULL)))
        UNION ALL
        SELECT 'order', order_id FROM order_emails WHERE order_id BETWEEN :low AND :high
        GROUP BY order_id
        HAVING (min(number), max(number)) IS DISTINCT FROM (CAST(1 AS smallint), count(*))""",
    ),
    sql(
        "deliveries.history",
        "an e-mail about an order was sent if and only if the history says so, once",
        """
        WITH told AS (
            SELECT subject, count(*) AS times,
                CAST(substr(detail->>'message_id', 2, 36) AS uuid) AS id
            FROM events WHERE subject BETWEEN :low AND :high AND name = 'delivery.sent'
            GROUP BY 1, 3
        )
        SELECT 'order', coalesce(m.order_id, t.subject)
        FROM (SELECT * FROM order_emails WHERE order_id BETWEEN :low AND :high
            AND sent_at IS NOT NULL) AS m
        FULL JOIN told AS t ON t.id = m.id AND t.subject = m.order_id
        WHERE m.id IS NULL OR t.times IS DISTINCT FROM 1
        UNION ALL
        SELECT 'order', m.order_id FROM order_emails AS m
        WHERE m.order_id BETWEEN :low AND :high AND m.refused_at IS NOT NULL
          AND NOT EXISTS (SELECT FROM events AS e
            WHERE e.subject = m.order_id AND e.name = 'delivery.refused')""",
    ),
)
