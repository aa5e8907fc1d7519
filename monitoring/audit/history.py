"""The history: each subject has the events that its state implies, and each event its subject."""

from monitoring.audit.checks import sql

CHECKS = (
    sql(
        "history.orders",
        "an order was accepted or refused, priced, paid and ended once each, as its state says",
        """
        SELECT 'order', o.id FROM orders AS o
        LEFT JOIN payment_requests AS r ON r.order_id = o.id
        LEFT JOIN (
            SELECT subject,
                count(*) FILTER (WHERE name = 'order.accepted') AS accepted,
                count(*) FILTER (WHERE name = 'order.refused') AS refused,
                count(*) FILTER (WHERE name = 'order.priced') AS priced,
                count(*) FILTER (WHERE name = 'order.paid') AS paid,
                count(*) FILTER (WHERE name IN ('order.delivered', 'order.partly_delivered',
                    'order.cancelled')) AS ended,
                max(substring(name FROM 7)) FILTER (WHERE name IN ('order.delivered',
                    'order.partly_delivered', 'order.cancelled')) AS ending,
                max(detail->>'upstream') AS upstream, max(detail->>'body') AS body,
                min(at) FILTER (WHERE name IN ('order.accepted', 'order.refused')) AS at
            FROM events WHERE subject BETWEEN :low AND :high AND name LIKE 'order.%'
            GROUP BY subject) AS e ON e.subject = o.id
        WHERE o.id BETWEEN :low AND :high AND (e.subject IS NULL
            OR (e.accepted, e.refused) <> (CAST(o.state <> 'refused' AS integer),
                CAST(o.state = 'refused' AS integer))
            OR e.priced <> CAST(r.id IS NOT NULL AS integer)
            OR e.paid <> CAST(coalesce(r.state, '') = 'paid' AS integer)
            OR e.ended <> CAST(o.ended_at IS NOT NULL AS integer)
            OR e.ending <> o.state
            OR (o.state <> 'refused' AND e.upstream IS DISTINCT FROM o.upstream)
            -- An earlier release did not tell the beginning of the hash.
            OR e.body <> left(encode(o.body_hash, 'hex'), length(e.body))
            OR length(e.body) < 16
            OR e.at NOT BETWEEN o.accepted_at - interval '1 hour'
                AND o.accepted_at + interval '1 hour')""",
    ),
    # Amounts are told as 1,234.50 EUR.
    sql(
        "history.amounts",
        "an order costs what its history says: services, net, and what was paid",
        """
        SELECT 'order', o.subject FROM (
            SELECT e.subject, CAST(e.detail->>'net' AS bigint) AS net FROM events AS e
            WHERE e.subject BETWEEN :low AND :high AND e.name = 'order.accepted'
              AND e.detail ? 'net') AS o
        JOIN (
            SELECT order_id, sum(quantity * (setup + renewal)) AS net FROM order_lines
            WHERE order_id BETWEEN :low AND :high GROUP BY order_id) AS l ON l.order_id = o.subject
        -- The release before kept no price with the line.
        WHERE l.net <> o.net
        UNION ALL
        SELECT 'order', r.order_id FROM payment_requests AS r
        JOIN events AS e ON e.subject = r.order_id AND e.name = 'order.priced'
        LEFT JOIN (SELECT request_id, count(DISTINCT service_id) AS services
            FROM request_lines GROUP BY request_id) AS l ON l.request_id = r.id
        WHERE r.order_id BETWEEN :low AND :high AND (
            CAST(regexp_replace(e.detail->>'total', '[^0-9]', '', 'g') AS bigint)
                - CAST(regexp_replace(e.detail->>'tax', '[^0-9]', '', 'g') AS bigint)
                IS DISTINCT FROM r.net
            OR right(e.detail->>'total', 3) IS DISTINCT FROM r.currency
            OR CAST(e.detail->>'services' AS integer) IS DISTINCT FROM l.services)
        UNION ALL
        SELECT 'order', r.order_id FROM payment_requests AS r
        JOIN events AS e ON e.subject = r.order_id AND e.name = 'order.paid'
        WHERE r.order_id BETWEEN :low AND :high AND (
            CAST(regexp_replace(e.detail->>'amount', '[^0-9]', '', 'g') AS bigint)
                IS DISTINCT FROM r.total
            OR right(e.detail->>'amount', 3) IS DISTINCT FROM r.currency)""",
    ),
    sql(
        "history.invoices",
        "an invoice is told, by its number, of what it was issued for; and every one told is there",
        """
        WITH billed AS (
            SELECT i.id, i.series || '-' || lpad(CAST(i.number AS text), 7, '0') AS number,
                r.order_id AS subject
            FROM invoices AS i JOIN payment_requests AS r ON r.id = i.request_id
            WHERE r.order_id IS NOT NULL
            UNION ALL
            SELECT DISTINCT i.id, i.series || '-' || lpad(CAST(i.number AS text), 7, '0'),
                l.service_id
            FROM invoices AS i JOIN payment_requests AS r ON r.id = i.request_id
            JOIN invoice_lines AS l ON l.invoice_id = i.id
            WHERE r.order_id IS NULL
        ), told AS (
            SELECT subject, detail->>'invoice' AS number FROM events
            WHERE name IN ('order.paid', 'service.renewed', 'renewal.refused')
              AND subject BETWEEN :low AND :high AND detail ? 'invoice'
        )
        SELECT CASE WHEN b.id IS NULL THEN 'event of' ELSE 'invoice' END,
            coalesce(b.id, t.subject)
        FROM (SELECT * FROM billed WHERE subject BETWEEN :low AND :high) AS b
        FULL JOIN told AS t ON t.subject = b.subject AND t.number = b.number
        WHERE t.subject IS NULL OR b.subject IS NULL""",
    ),
    sql(
        "history.renewed",
        "a renewal that was paid is told of each of its services, as renewed or as refused",
        """
        SELECT 'payment request', l.request_id FROM (
            SELECT DISTINCT q.request_id, q.service_id, q.refused_at IS NOT NULL AS is_refused
            FROM request_lines AS q JOIN payment_requests AS r ON r.id = q.request_id
            WHERE q.service_id BETWEEN :low AND :high AND r.order_id IS NULL AND r.state = 'paid'
        ) AS l
        LEFT JOIN (SELECT subject, count(*) FILTER (WHERE name = 'service.renewed') AS renewed,
                count(*) FILTER (WHERE name = 'renewal.refused') AS refused
            FROM events WHERE subject BETWEEN :low AND :high
              AND name IN ('service.renewed', 'renewal.refused')
            GROUP BY subject) AS e ON e.subject = l.service_id
        WHERE (CASE WHEN l.is_refused THEN e.refused ELSE e.renewed END) IS NULL
           OR (CASE WHEN l.is_refused THEN e.refused ELSE e.renewed END) = 0
        UNION ALL
        -- What is paid may have been booked after a restore, and is told as that alone.
        SELECT 'service', s.id FROM services AS s
        JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
        WHERE s.id BETWEEN :low AND :high AND r.request_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM events AS e
            WHERE e.subject = s.id AND e.name = 'renewal.requested')""",
    ),
    sql(
        "history.requests",
        "every payment request that the history tells of is there",
        """
        SELECT 'event of', e.subject FROM events AS e
        LEFT JOIN payment_requests AS r
            ON r.id = CAST(nullif(e.detail->>'request', '') AS uuid)
        WHERE e.subject BETWEEN :low AND :high AND e.name = 'renewal.requested'
          AND e.detail ? 'request' AND r.id IS NULL""",
    ),
    sql(
        "history.charges",
        "every charge that was declined is told of, by its attempt",
        """
        SELECT 'charge', c.key FROM charges AS c
        JOIN payment_requests AS r ON r.id = c.request_id
        LEFT JOIN (SELECT DISTINCT subject, CAST(detail->>'attempt' AS integer) AS attempt
            FROM events WHERE name IN ('charge.declined', 'charge.not_found')) AS e
            ON e.subject = coalesce(r.order_id, r.id) AND e.attempt = c.attempt
        WHERE c.request_id BETWEEN :low AND :high AND c.state = 'declined' AND e.subject IS NULL
        UNION ALL
        SELECT 'event of', e.subject FROM events AS e
        JOIN payment_requests AS r ON r.order_id = e.subject OR r.id = e.subject
        LEFT JOIN charges AS c
            ON c.request_id = r.id AND c.attempt = CAST(e.detail->>'attempt' AS integer)
        WHERE e.subject BETWEEN :low AND :high AND e.name = 'charge.declined'
          AND e.detail ? 'attempt' AND c.state IS DISTINCT FROM 'declined'""",
    ),
    sql(
        "history.credits",
        "every credit note and every refund that ended is told of, and every one told is there",
        """
        WITH given AS (
            SELECT DISTINCT n.id, n.series || '-' || lpad(CAST(n.number AS text), 7, '0') AS number,
                coalesce(CASE n.reason WHEN 'ended' THEN i.request_id ELSE l.service_id END, n.id)
                    AS subject
            FROM credit_notes AS n JOIN invoices AS i ON i.id = n.invoice_id
            LEFT JOIN credit_note_lines AS l ON l.credit_note_id = n.id
        ), told AS (
            SELECT subject, detail->>'credit_note' AS number FROM events
            WHERE subject BETWEEN :low AND :high AND name = 'service.credited'
        )
        SELECT CASE WHEN g.id IS NULL THEN 'event of' ELSE 'credit note' END,
            coalesce(g.id, t.subject)
        FROM (SELECT * FROM given WHERE subject BETWEEN :low AND :high) AS g
        FULL JOIN told AS t ON t.subject = g.subject AND t.number = g.number
        WHERE t.subject IS NULL OR g.subject IS NULL
        UNION ALL
        SELECT 'credit note', g.id FROM given AS g
        LEFT JOIN (SELECT credit_note_id,
                count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                count(*) FILTER (WHERE state = 'declined') AS declined
            FROM refunds GROUP BY credit_note_id) AS f ON f.credit_note_id = g.id
        LEFT JOIN (SELECT subject,
                count(*) FILTER (WHERE name = 'refund.succeeded') AS succeeded,
                count(*) FILTER (WHERE name = 'refund.declined') AS declined
            FROM events WHERE name IN ('refund.succeeded', 'refund.declined')
            GROUP BY subject) AS e ON e.subject = g.subject
        WHERE g.subject BETWEEN :low AND :high
          AND (coalesce(f.succeeded, 0), coalesce(f.declined, 0))
            IS DISTINCT FROM (coalesce(e.succeeded, 0), coalesce(e.declined, 0))""",
    ),
    sql(
        "history.operations",
        "every operation that was done is told of",
        """
        SELECT 'service', o.service_id FROM (
            SELECT service_id, kind, count(*) AS done FROM operations
            WHERE service_id BETWEEN :low AND :high AND state = 'done'
            GROUP BY service_id, kind) AS o
        LEFT JOIN (SELECT subject, detail->>'operation' AS kind, count(*) AS told FROM events
            WHERE subject BETWEEN :low AND :high AND name = 'operation.done'
            GROUP BY subject, detail->>'operation') AS e
            ON e.subject = o.service_id AND e.kind = o.kind
        WHERE coalesce(e.told, 0) < o.done
        UNION ALL
        SELECT 'service', e.subject FROM (SELECT DISTINCT subject, detail->>'operation' AS kind
            FROM events WHERE subject BETWEEN :low AND :high AND name = 'operation.done') AS e
        LEFT JOIN (SELECT DISTINCT service_id, kind FROM operations
            WHERE service_id BETWEEN :low AND :high AND state = 'done') AS o
            ON o.service_id = e.subject AND o.kind = e.kind
        WHERE o.service_id IS NULL""",
    ),
    # An event is written in the transaction that does what it tells of.
    sql(
        "history.moments",
        "what happened is dated as its event is",
        """
        SELECT 'order', o.id FROM orders AS o
        JOIN events AS e ON e.subject = o.id AND e.name = 'order.' || o.state
        WHERE o.id BETWEEN :low AND :high AND o.ended_at IS NOT NULL
          AND o.ended_at NOT BETWEEN e.at - interval '1 hour' AND e.at + interval '1 hour'
        UNION ALL
        SELECT 'payment request', r.id FROM payment_requests AS r
        JOIN events AS e ON e.subject = r.order_id AND e.name IN ('order.priced', 'order.paid')
        WHERE r.order_id BETWEEN :low AND :high
          AND CASE e.name WHEN 'order.paid' THEN r.closed_at ELSE r.created_at END
            NOT BETWEEN e.at - interval '1 hour' AND e.at + interval '1 hour'
        UNION ALL
        SELECT 'payment request', r.id FROM events AS e
        JOIN payment_requests AS r ON r.id = CAST(e.detail->>'request' AS uuid)
        WHERE e.subject BETWEEN :low AND :high AND e.name = 'renewal.requested'
          AND r.created_at NOT BETWEEN e.at - interval '1 hour' AND e.at + interval '1 hour'
        UNION ALL
        SELECT 'charge', c.key FROM charges AS c
        JOIN payment_requests AS r ON r.id = c.request_id
        JOIN (SELECT subject, CAST(detail->>'attempt' AS integer) AS attempt, max(at) AS at
            FROM events WHERE name = 'charge.declined' GROUP BY 1, 2) AS e
            ON e.subject = coalesce(r.order_id, r.id) AND e.attempt = c.attempt
        WHERE c.request_id BETWEEN :low AND :high AND c.state = 'declined'
          AND c.decided_at NOT BETWEEN e.at - interval '1 hour' AND e.at + interval '1 hour'
        UNION ALL
        SELECT 'service', o.service_id FROM (
            SELECT service_id, max(ended_at) AS at FROM operations
            WHERE service_id BETWEEN :low AND :high AND state = 'done' GROUP BY service_id) AS o
        JOIN (SELECT subject, max(at) AS at FROM events
            WHERE subject BETWEEN :low AND :high AND name = 'operation.done'
            GROUP BY subject) AS e ON e.subject = o.service_id
        WHERE o.at NOT BETWEEN e.at - interval '1 hour' AND e.at + interval '1 hour'""",
    ),
    # The time of the business is that of the database, unless there is a virtual clock.
    sql(
        "history.business",
        "what a customer or an operator did, and what was sent, is dated as its event is",
        """
        WITH told AS (
            SELECT DISTINCT ON (subject, name) subject, name, at FROM events
            WHERE subject BETWEEN :low AND :high
              AND (name = 'mode.changed'
                OR (name = 'service.suspending' AND detail->>'reason' = 'operator'))
            ORDER BY subject, name, id DESC
        )
        SELECT 'service', s.id FROM services AS s JOIN told AS e ON e.subject = s.id
        WHERE s.id BETWEEN :low AND :high
          AND (SELECT count(*) FROM virtual_clock) = 0
          AND CASE e.name WHEN 'mode.changed' THEN s.mode_changed_at ELSE s.held_at END
            NOT BETWEEN e.at - interval '1 hour' AND e.at + interval '1 hour'
        UNION ALL
        SELECT 'e-mail', m.id FROM emails AS m
        JOIN (SELECT CAST(substr(detail->>'message_id', 2, 36) AS uuid) AS id,
                max(at) AS at
            FROM events WHERE name = 'notice.sent' GROUP BY 1) AS e ON e.id = m.id
        WHERE m.id BETWEEN :low AND :high AND (SELECT count(*) FROM virtual_clock) = 0
          AND m.sent_at NOT BETWEEN e.at - interval '1 hour' AND e.at + interval '1 hour'""",
    ),
    sql(
        "history.hands",
        "what is said to be done by hand has an event of that",
        """
        SELECT 'refund', f.key FROM refunds AS f
        JOIN credit_note_lines AS l ON l.credit_note_id = f.credit_note_id
        JOIN invoices AS i ON i.id = l.invoice_id
        WHERE f.by_hand AND f.credit_note_id BETWEEN :low AND :high
          AND NOT EXISTS (SELECT FROM events AS e
            WHERE e.subject IN (l.service_id, i.request_id) AND e.name = 'task.done_by_hand')""",
    ),
    # Tasks of a group of services, and what is kept of customers, lanes, rollouts, keys, operators
    # and queues of documents, have subjects without a row, or with one that is not a check's.
    sql(
        "history.subjects",
        "whatever has a history is there",
        """
        SELECT DISTINCT 'event of', e.subject FROM events AS e
        LEFT JOIN orders AS o ON o.id = e.subject
        LEFT JOIN services AS s ON s.id = e.subject
        LEFT JOIN payment_requests AS r ON r.id = e.subject
        LEFT JOIN bulk_operations AS b ON b.id = e.subject
        LEFT JOIN webhook_endpoints AS w ON w.id = e.subject
        LEFT JOIN event_replays AS p ON p.id = e.subject
        WHERE e.subject BETWEEN :low AND :high
          AND (o.id, s.id, r.id, b.id, w.id, p.id) IS NULL
          AND e.name NOT LIKE 'task.%' AND e.name NOT LIKE 'customer.%'
          AND e.name NOT LIKE 'lane.%' AND e.name NOT LIKE 'key.%'
          AND e.name NOT LIKE 'operator.%' AND e.name NOT LIKE 'documents.%'
          AND e.name NOT LIKE 'rollout.%'""",
    ),
    # Both are given in the moment in which an event is written.
    sql(
        "history.sequence",
        "events are numbered in the order in which they happened",
        """
        SELECT 'event', id FROM (
            SELECT id, at, max(at) OVER (ORDER BY id) AS latest FROM events
            WHERE subject BETWEEN :low AND :high AND at <= CAST(:db_now AS timestamptz)) AS e
        WHERE at < latest - interval '10 minutes'""",
    ),
)
