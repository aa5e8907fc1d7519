-- What subjects of tasks are about, for the lines that a worker logs and the spans it makes: the
-- order by the key that upstream knows, the services, the payment request, and the trace they are
-- in. A worker may not read orders as such.
--
-- A subject has a row for each service of a renewal it is about. What an order began is in the
-- order's trace until an hour after its end. What a renewal began is in the renewal's: from its
-- first reminder until the service is extended, and for an hour after it was paid.

DROP FUNCTION orders_behind;

CREATE FUNCTION work_behind(subjects uuid[])
RETURNS TABLE (
    subject uuid, upstream text, key text, service_id uuid, request_id uuid, trace text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp ROWS 10 AS $$
    WITH wanted AS (
        SELECT s AS subject, s AS about FROM unnest(subjects) AS s
        -- An event on its way to an endpoint: what happened to what, such as `service/6f1c…`.
        UNION ALL SELECT d.id, CAST(split_part(d.subject, '/', 2) AS uuid)
        FROM webhook_deliveries AS d
        WHERE d.id = ANY(subjects) AND split_part(d.subject, '/', 1) <> 'webhook'
    ), found AS (
        SELECT w.subject, w.about AS order_id, CAST(NULL AS uuid) AS service_id,
            CAST(NULL AS uuid) AS request_id, false AS is_renewal, CAST(NULL AS text) AS trace
        FROM wanted AS w
        UNION ALL SELECT w.subject, p.order_id, NULL, p.id, false, NULL
        FROM wanted AS w JOIN payment_requests AS p ON p.id = w.about
        WHERE p.order_id IS NOT NULL
        -- A renewal's payment request: each service on it has a line for the first of its periods.
        UNION ALL SELECT w.subject, s.order_id, s.id, p.id, true, r.trace
        FROM wanted AS w JOIN payment_requests AS p ON p.id = w.about
        JOIN request_lines AS l ON l.request_id = p.id
        JOIN renewals AS r ON r.service_id = l.service_id AND r.period_number = l.period_number
        JOIN services AS s ON s.id = l.service_id
        WHERE p.order_id IS NULL
        UNION ALL SELECT w.subject, s.order_id, s.id, n.request_id, n.trace IS NOT NULL, n.trace
        FROM wanted AS w JOIN services AS s ON s.id = w.about
        LEFT JOIN LATERAL (
            SELECT r.request_id, r.trace FROM (
                SELECT * FROM renewals WHERE service_id = s.id
                ORDER BY period_number DESC LIMIT 1
            ) AS r
            LEFT JOIN payment_requests AS p ON p.id = r.request_id
            WHERE r.period_number > s.paid_periods OR s.confirmed_until <= r.expires_on
               OR p.closed_at > now() - interval '1 hour'
        ) AS n ON true
        -- What of a customer is to be asked for together.
        UNION ALL SELECT w.subject, s.order_id, s.id, r.request_id, true, r.trace
        FROM wanted AS w
        JOIN services AS s ON s.next_subject = w.about AND s.next_step = 'request'
        LEFT JOIN renewals AS r
            ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
        -- An e-mail with the notices of a customer's day.
        UNION ALL SELECT w.subject, s.order_id, s.id, n.request_id, true, n.trace
        FROM wanted AS w JOIN (
            SELECT email_id, service_id, max(expires_at) AS expires_at FROM notices
            WHERE email_id = ANY(subjects) GROUP BY email_id, service_id
        ) AS e ON e.email_id = w.about
        JOIN services AS s ON s.id = e.service_id
        LEFT JOIN LATERAL (
            SELECT r.request_id, r.trace FROM renewals AS r
            WHERE r.service_id = s.id AND r.period_number
                <= s.paid_periods + CAST(e.expires_at = s.expires_at AS integer)
            ORDER BY r.period_number DESC LIMIT 1
        ) AS n ON true
    )
    SELECT f.subject, o.upstream, o.key, f.service_id, f.request_id,
        CASE WHEN f.is_renewal THEN f.trace
            WHEN o.ended_at IS NULL OR o.ended_at > now() - interval '1 hour' THEN o.trace END
    FROM found AS f LEFT JOIN orders AS o ON o.id = f.order_id
    WHERE o.id IS NOT NULL OR f.service_id IS NOT NULL
$$;

REVOKE ALL ON FUNCTION work_behind FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work_behind
    TO autorenew_orders, autorenew_billing, autorenew_reminders, autorenew_provisioning,
        autorenew_events, autorenew_scheduler, autorenew_api;

-- Of these services, the renewals that are under way and in no trace yet, with the trace of the
-- order by which the service came.
CREATE FUNCTION untraced_renewals(services uuid[])
RETURNS TABLE (service_id uuid, period_number integer, order_trace text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp ROWS 10 AS $$
    SELECT s.id, r.period_number, o.trace
    FROM services AS s
    JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
    LEFT JOIN orders AS o ON o.id = s.order_id
    WHERE s.id = ANY(services) AND r.trace IS NULL
$$;

REVOKE ALL ON FUNCTION untraced_renewals FROM PUBLIC;
GRANT EXECUTE ON FUNCTION untraced_renewals
    TO autorenew_scheduler, autorenew_billing, autorenew_api;
