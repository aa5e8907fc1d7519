-- A failed task is given up on behalf of an operator, by a scheduler that may not touch its subject:
-- only what that operator's operation names, and has not come to yet. Runs as the owner.
--
-- Returns whether its subject could be given up. Whoever calls it has the task tried again, which
-- does the rest; that of an order without a price is gone with it.

CREATE FUNCTION give_up_failed(bulk uuid, number integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    task record;
BEGIN
    SELECT t.name, t.subject INTO task
    FROM bulk_tasks AS t JOIN bulk_operations AS o ON o.id = t.bulk_id
    WHERE t.bulk_id = give_up_failed.bulk AND t.number = give_up_failed.number
      AND t.state = 'waiting' AND o.kind = 'cancel' AND o.state = 'running';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'nobody asked to give up task % of bulk operation %',
            give_up_failed.number, give_up_failed.bulk USING ERRCODE = 'insufficient_privilege';
    END IF;
    CASE task.name
    WHEN 'converge' THEN
        UPDATE services SET desired = 'absent', generation = generation + 1
        WHERE id = task.subject AND state = 'delivering' AND desired <> 'absent';
    WHEN 'charge' THEN
        -- The charge decides: what may have been taken is asked about before the request is voided.
        UPDATE orders AS o SET reason = 'given_up' FROM payment_requests AS r
        WHERE r.id = task.subject AND o.id = r.order_id AND o.state = 'priced';
        IF NOT FOUND THEN
            UPDATE payment_requests SET given_up_at = now()
            WHERE id = task.subject AND order_id IS NULL;
        END IF;
    WHEN 'price' THEN
        UPDATE orders SET state = 'cancelled', reason = 'given_up', ended_at = now()
        WHERE id = task.subject AND state = 'accepted';
        IF FOUND THEN
            DELETE FROM tasks
            WHERE name = 'price' AND subject = task.subject AND state = 'failed';
        END IF;
    ELSE
        RETURN false;
    END CASE;
    RETURN FOUND;
END $$;

REVOKE ALL ON FUNCTION give_up_failed FROM PUBLIC;
GRANT EXECUTE ON FUNCTION give_up_failed TO autorenew_scheduler;
