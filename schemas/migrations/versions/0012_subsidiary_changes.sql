-- How the currency, the time zone or the country of a subsidiary that has services is changed: once
-- for what all processes share, and then for its services, page by page. Both functions run as the
-- owner: whoever calls them can do nothing but carry out what an owner has planned.

CREATE FUNCTION change_subsidiary(wanted bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
-- Put a planned change in force. Returns NULL, or why it cannot be: not_planned, orders_not_priced,
-- prices_missing; nothing is different then.
DECLARE
    change subsidiary_changes;
BEGIN
    -- Every transaction that decides anything reads the version first, and holds this table until
    -- it ends. So nothing that was decided before is written afterwards.
    LOCK TABLE catalogue_version IN ACCESS EXCLUSIVE MODE;
    SELECT * INTO change FROM subsidiary_changes WHERE id = wanted AND applied_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'not_planned';
    END IF;

    -- An order is charged what it was accepted for. Those that the release before accepted have no
    -- price until a task has priced them by the catalogue.
    IF change.definition ?| ARRAY['currency', 'country'] AND EXISTS (
        SELECT FROM tasks AS t JOIN orders AS o ON o.id = t.subject
        JOIN order_lines AS l ON l.order_id = o.id
        WHERE t.name = 'price' AND o.state = 'accepted' AND o.subsidiary = change.subsidiary
          AND l.currency IS NULL
    ) THEN
        RETURN 'orders_not_priced';
    END IF;

    IF change.definition ? 'currency' THEN
        IF EXISTS (
            SELECT FROM prices AS p
            WHERE p.subsidiary = change.subsidiary AND NOT EXISTS (
                SELECT FROM jsonb_to_recordset(change.prices) AS n(plan text, period_months smallint)
                WHERE n.plan = p.plan AND n.period_months = p.period_months)
            AND (EXISTS (
                SELECT FROM services AS s
                WHERE (s.subsidiary, s.plan, s.period_months)
                        = (p.subsidiary, p.plan, p.period_months)
                    AND s.state NOT IN ('terminated', 'cancelled'))
              OR EXISTS (
                SELECT FROM tasks AS t JOIN orders AS o ON o.id = t.subject
                JOIN order_lines AS l ON l.order_id = o.id
                WHERE t.name = 'price' AND o.state = 'accepted'
                  AND (o.subsidiary, l.plan, l.period_months)
                        = (p.subsidiary, p.plan, p.period_months)))
        ) THEN
            RETURN 'prices_missing';
        END IF;
        UPDATE prices AS p SET currency = change.definition->>'currency', setup = n.setup,
            renewal = n.renewal
        FROM jsonb_to_recordset(change.prices) AS n(
            plan text, period_months smallint, setup bigint, renewal bigint)
        WHERE p.subsidiary = change.subsidiary AND p.plan = n.plan
          AND p.period_months = n.period_months;
        -- What no service has and nothing is sold for in the new currency.
        DELETE FROM prices WHERE subsidiary = change.subsidiary
            AND currency <> change.definition->>'currency';
    END IF;

    UPDATE subsidiary_changes AS c SET applied_at = clock_timestamp(), former = (
        SELECT jsonb_object_agg(field, u.definition->field)
        FROM subsidiaries AS u, jsonb_object_keys(change.definition) AS field
        WHERE u.code = change.subsidiary)
    WHERE c.id = change.id;
    UPDATE subsidiaries SET definition = definition || change.definition,
        changed_at = clock_timestamp()
    WHERE code = change.subsidiary;
    INSERT INTO recomputations (subsidiary, change_id) VALUES (change.subsidiary, change.id);
    UPDATE catalogue_version SET version = version + 1, loaded_at = now();
    RETURN NULL;
END $$;

CREATE FUNCTION carry_over(change_id bigint, ids uuid[], at timestamptz)
RETURNS TABLE (service_id uuid, net bigint, currency text, announced bigint,
    announced_currency text, new_net bigint, new_currency text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
-- What a change that is in force means for some services of its subsidiary, which the caller holds.
-- A service that was carried over before, or was delivered since, stays as it is. Returns the
-- renewals whose price was given up, as they were.
#variable_conflict use_column
DECLARE
    change subsidiary_changes;
    zone text;
BEGIN
    SELECT * INTO STRICT change FROM subsidiary_changes AS c
    WHERE c.id = carry_over.change_id AND c.applied_at IS NOT NULL;
    SELECT u.definition->>'timezone' INTO STRICT zone FROM subsidiaries AS u
    WHERE u.code = change.subsidiary;

    -- A service expires on the day on which it did, at the midnight of the new zone. Its notices
    -- name the moment, and follow it: each was given, and is not given again.
    IF change.definition ? 'timezone' THEN
        WITH moved AS (
            SELECT s.id, s.expires_at AS before, (s.anchor + make_interval(
                months => s.period_months * s.paid_periods)) AT TIME ZONE zone AS after
            FROM services AS s
            WHERE s.id = ANY(ids) AND s.subsidiary = change.subsidiary AND s.anchor IS NOT NULL
        ), followed AS (
            UPDATE notices AS n SET expires_at = m.after FROM moved AS m
            WHERE n.service_id = m.id AND n.expires_at = m.before AND m.before <> m.after
        )
        UPDATE services AS s SET expires_at = m.after FROM moved AS m
        WHERE s.id = m.id AND m.before <> m.after;
    END IF;

    -- A price that was fixed in the former currency is given up for that of the catalogue. A customer
    -- who was told of an amount in it is told of the new one first, from the next morning on. What
    -- is on a payment request may be being charged: whoever takes it off has its customer told.
    IF change.definition ? 'currency' THEN
        RETURN QUERY WITH former AS (
            SELECT r.service_id, r.period_number, r.net, r.currency, r.announced,
                r.announced_currency, p.renewal, p.currency AS new_currency,
                r.announced_currency <> p.currency AND r.request_id IS NULL
                    AND (r.dearer_at IS NULL OR r.dearer_at < r.announced_at) AS to_be_told
            FROM services AS s
            JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
            JOIN prices AS p ON p.plan = s.plan AND p.subsidiary = s.subsidiary
                AND p.period_months = s.period_months
            WHERE s.id = ANY(ids) AND s.subsidiary = change.subsidiary
              AND s.state IN ('active', 'suspended') AND r.currency <> p.currency
        ), converted AS (
            UPDATE renewals AS r SET net = f.renewal, currency = f.new_currency,
                dearer = r.dearer + CAST(coalesce(f.to_be_told, false) AS integer),
                dearer_at = CASE WHEN f.to_be_told THEN at ELSE r.dearer_at END
            FROM former AS f
            WHERE r.service_id = f.service_id AND r.period_number = f.period_number
        )
        SELECT f.service_id, f.net, f.currency, f.announced, f.announced_currency, f.renewal,
            f.new_currency
        FROM former AS f ORDER BY f.service_id;
    END IF;
END $$
