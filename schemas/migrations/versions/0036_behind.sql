-- The orders behind subjects of tasks, for the lines that a worker logs and the spans it makes: by
-- which key upstream knows it, and in which trace it is. A worker may not read orders as such.
--
-- The trace of an order ends with it: what happens to its services years later is another story.

CREATE FUNCTION orders_behind(subjects uuid[])
RETURNS TABLE (subject uuid, order_id uuid, upstream text, key text, trace text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp ROWS 10 AS $$
    SELECT found.subject, o.id, o.upstream, o.key,
        CASE WHEN o.ended_at IS NULL OR o.ended_at > now() - interval '1 hour' THEN o.trace END
    FROM (
        SELECT s AS subject, s AS order_id FROM unnest(subjects) AS s
        UNION ALL SELECT id, order_id FROM payment_requests WHERE id = ANY(subjects)
        UNION ALL SELECT id, order_id FROM services WHERE id = ANY(subjects)
    ) AS found
    JOIN orders AS o ON o.id = found.order_id
$$;

REVOKE ALL ON FUNCTION orders_behind FROM PUBLIC;
GRANT EXECUTE ON FUNCTION orders_behind
    TO autorenew_orders, autorenew_billing, autorenew_reminders, autorenew_provisioning,
        autorenew_events;
