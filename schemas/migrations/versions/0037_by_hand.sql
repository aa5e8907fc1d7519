-- A failed service is corrected on behalf of an operator, by a scheduler that may not touch its
-- configuration: only what that operator's operation names, in the way it says, and has not come to
-- yet. Runs as the owner.
--
-- ``problem``: why it was not; NULL: it was, from ``before`` to ``after``. Whoever calls it checks
-- that against the plan, and rolls back.

CREATE FUNCTION edit_failed(
    bulk uuid, number integer,
    OUT problem text, OUT plan text, OUT before jsonb, OUT after jsonb
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    task record;
    service record;
BEGIN
    SELECT t.subject, o.detail INTO task
    FROM bulk_tasks AS t JOIN bulk_operations AS o ON o.id = t.bulk_id
    WHERE t.bulk_id = edit_failed.bulk AND t.number = edit_failed.number
      AND t.name = 'converge' AND t.state = 'waiting' AND o.kind = 'edit' AND o.state = 'running';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'nobody asked to correct task % of bulk operation %',
            edit_failed.number, edit_failed.bulk USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT s.state, s.desired, s.plan, s.configuration INTO service
    FROM services AS s WHERE s.id = task.subject FOR NO KEY UPDATE;
    problem := CASE
        WHEN NOT FOUND THEN 'it is not a service'
        WHEN service.state <> 'delivering' OR service.desired = 'absent'
            THEN 'only what waits for its delivery can be corrected'
        WHEN EXISTS (SELECT FROM operations AS o
            WHERE o.service_id = task.subject AND o.state IN ('pending', 'unknown'))
            THEN 'it may have been done as it was ordered: retry it, so that the driver is asked'
        END;
    IF problem IS NOT NULL THEN
        RETURN;
    END IF;
    plan := service.plan;
    before := service.configuration;
    after := jsonb_strip_nulls(service.configuration || task.detail);
    -- What is asked for in other words is another operation: it has another key.
    UPDATE services AS s SET configuration = edit_failed.after, generation = s.generation + 1
    WHERE s.id = task.subject;
END $$;

REVOKE ALL ON FUNCTION edit_failed FROM PUBLIC;
GRANT EXECUTE ON FUNCTION edit_failed TO autorenew_scheduler;

-- What was done past the fleet is said by operators, and by no process that upstream or customers
-- speak to: a charge that "was taken" makes an invoice.
CREATE FUNCTION refuse_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% may not say what was done by hand: that is for the role console', current_user
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER bulk_operations_statement BEFORE INSERT ON bulk_operations FOR EACH ROW
WHEN (NEW.kind IN ('done', 'settle') AND NOT pg_has_role(current_user, 'autorenew_console', 'USAGE'))
EXECUTE FUNCTION refuse_statement();
