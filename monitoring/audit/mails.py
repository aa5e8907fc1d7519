"""Notices and the e-mails that carry them: each is sent or on its way, and history knows it."""

from monitoring.audit.checks import sql

CHECKS = (
    sql(
        "mails.said",
        "an e-mail that was sent says what was claimed for it",
        """
        SELECT 'e-mail', e.id FROM emails AS e
        WHERE e.id BETWEEN :low AND :high AND e.sent_at IS NOT NULL
          AND NOT EXISTS (SELECT FROM notices AS n WHERE n.email_id = e.id)""",
    ),
    sql(
        "mails.sent",
        "an e-mail is sent, or is being sent",
        """
        SELECT 'e-mail', e.id FROM emails AS e
        WHERE e.id BETWEEN :low AND :high AND e.sent_at IS NULL AND e.given_up_at IS NULL
          AND EXISTS (SELECT FROM notices AS n JOIN services AS s ON s.id = n.service_id
            WHERE n.email_id = e.id AND s.expires_at = n.expires_at AND s.desired <> 'absent')
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'remind' AND t.subject = e.id)""",
    ),
    sql(
        "mails.facts",
        "an e-mail is begun before it is sent or refused, and not before its day",
        """
        SELECT 'e-mail', id FROM emails
        WHERE id BETWEEN :low AND :high AND (
            sent_at < begun_at OR refused_at < begun_at OR given_up_at < refused_at
            OR (begun_at IS NULL AND (sent_at, refused_at) IS DISTINCT FROM (NULL, NULL))
            OR (given_up_at IS NOT NULL AND (refused_at IS NULL OR sent_at IS NOT NULL))
            OR begun_at < CAST(day - 1 AS timestamptz)
            OR day > CAST(CAST(:now AS timestamptz) + interval '1 day' AS date))""",
    ),
    sql(
        "mails.customer",
        "an e-mail is about its own customer's services",
        """
        SELECT DISTINCT 'e-mail', e.id FROM notices AS n JOIN emails AS e ON e.id = n.email_id
        LEFT JOIN services AS s ON s.id = n.service_id
        WHERE n.service_id BETWEEN :low AND :high AND s.customer_id IS DISTINCT FROM e.customer_id
        UNION ALL
        SELECT 'e-mail', e.id FROM emails AS e
        WHERE e.id BETWEEN :low AND :high
          AND NOT EXISTS (SELECT FROM customers AS c WHERE c.id = e.customer_id)""",
    ),
    # A change of the time zone moves the notices of the expiry that is to come, and no others.
    sql(
        "mails.expiry",
        "a notice is about an expiry that its service has or had",
        """
        SELECT DISTINCT 'service', n.service_id FROM notices AS n
        JOIN services AS s ON s.id = n.service_id
        LEFT JOIN renewals AS r ON r.service_id = n.service_id
            AND n.expires_at BETWEEN CAST(r.expires_on AS timestamptz) - interval '1 day'
                AND CAST(r.expires_on AS timestamptz) + interval '1 day'
        WHERE n.service_id BETWEEN :low AND :high
          AND n.expires_at <> s.expires_at AND r.service_id IS NULL""",
    ),
    sql(
        "mails.history",
        "an e-mail was sent or refused if and only if the history says so",
        """
        WITH sent AS (
            SELECT e.subject, k.kind, CAST(substr(e.detail->>'message_id', 2, 36) AS uuid)
                AS email_id
            FROM events AS e
            CROSS JOIN LATERAL jsonb_array_elements_text(e.detail->'kinds') AS k(kind)
            WHERE e.subject BETWEEN :low AND :high AND e.name = 'notice.sent'
        ), refused AS (
            SELECT DISTINCT e.subject, k.kind FROM events AS e
            CROSS JOIN LATERAL jsonb_array_elements_text(e.detail->'kinds') AS k(kind)
            WHERE e.subject BETWEEN :low AND :high AND e.name = 'notice.refused'
        ), current AS (
            SELECT n.service_id, n.kind, e.id, e.sent_at FROM notices AS n
            JOIN services AS s ON s.id = n.service_id AND s.expires_at = n.expires_at
            JOIN emails AS e ON e.id = n.email_id
            WHERE n.service_id BETWEEN :low AND :high
              AND (e.sent_at IS NOT NULL OR e.refused_at IS NOT NULL)
        )
        SELECT 'service', t.subject FROM sent AS t
        LEFT JOIN notices AS n ON n.service_id = t.subject AND n.kind = t.kind
            AND n.email_id = t.email_id
        LEFT JOIN emails AS e ON e.id = n.email_id
        WHERE e.sent_at IS NULL
        UNION ALL
        SELECT 'service', t.subject FROM refused AS t
        LEFT JOIN notices AS n ON n.service_id = t.subject AND n.kind = t.kind
        LEFT JOIN emails AS e ON e.id = n.email_id
        GROUP BY t.subject, t.kind HAVING count(e.refused_at) = 0
        UNION ALL
        SELECT 'e-mail', c.id FROM current AS c
        LEFT JOIN sent AS t ON t.subject = c.service_id AND t.kind = c.kind AND t.email_id = c.id
        WHERE c.sent_at IS NOT NULL AND t.subject IS NULL
        UNION ALL
        SELECT 'e-mail', c.id FROM current AS c
        LEFT JOIN refused AS t ON t.subject = c.service_id AND t.kind = c.kind
        WHERE c.sent_at IS NULL AND t.subject IS NULL""",
    ),
    sql(
        "mails.told",
        "every e-mail that was sent is told of, with its Message-ID",
        """
        SELECT 'e-mail', e.id FROM emails AS e
        LEFT JOIN (
            SELECT DISTINCT CAST(substr(detail->>'message_id', 2, 36) AS uuid) AS id
            FROM events WHERE name = 'notice.sent') AS t ON t.id = e.id
        WHERE e.id BETWEEN :low AND :high AND e.sent_at IS NOT NULL AND t.id IS NULL
        UNION ALL
        SELECT 'e-mail', t.id FROM (
            SELECT DISTINCT CAST(substr(detail->>'message_id', 2, 36) AS uuid) AS id
            FROM events
            WHERE name = 'notice.sent' AND subject BETWEEN :low AND :high) AS t
        LEFT JOIN emails AS e ON e.id = t.id
        WHERE e.sent_at IS NULL""",
    ),
)
