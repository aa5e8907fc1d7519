-- What falls due, by day, week or month; what is overdue has no start. Detailed: by universe and brand,
-- as a snapshot keeps it.
--
-- Services are read and grouped as they are, by what few values there are, in parallel. Local dates
-- and decisions are made of the groups. Measured with 5,000,000 services, deciding row by row took
-- twice as long. The decisions are booleans, because the planner knows that there are two of each,
-- and groups before it gathers. For the same reason prices that were fixed in a former currency of
-- their subsidiary are summed beside the others, not grouped by their currency. 13 hours move any
-- local midnight, from UTC-10 to UTC+13, into its own day. The parameter plans holds the version of
-- each plan's contract and its first day of charging, currencies that of each subsidiary: joining
-- plans to all services took 5 to 10 % of the time each.

WITH upcoming AS (
    -- A price that is fixed for what is not due yet is found by its day, not among those of all
    -- years, and only where there can be one.
    SELECT s.expires_at, s.subsidiary, s.brand, CASE WHEN :detailed THEN s.universe END AS universe,
           s.mode,
           CASE WHEN coalesce(s.agreed_version, 0) >= (SELECT max(version) FROM contracts)
                THEN false
                ELSE coalesce(coalesce(s.agreed_version, 0)
                    < CAST(CAST(:plans AS jsonb)->s.plan->>'version' AS integer), false)
                END AS unaccepted,
           CASE WHEN coalesce(r.net, p.renewal) = 0 THEN false
                WHEN s.payment_method_id IS NULL THEN true
                WHEN m.expires_on IS NULL THEN false
                ELSE m.expires_on < greatest(CAST(:today AS date),
                    CAST(s.expires_at + interval '13 hours' AS date)
                    + coalesce(CAST(CAST(:plans AS jsonb)->s.plan->>'first_charge' AS integer),
                        :first_charge))
                END AS unpayable, false AS behind,
           count(*) AS services, sum(coalesce(r.net, p.renewal, 0)) AS net,
           max(r.currency) FILTER (WHERE CASE WHEN r.currency IS NOT NULL
               THEN r.currency <> CAST(:currencies AS jsonb)->>s.subsidiary END) AS former_currency,
           count(*) FILTER (WHERE CASE WHEN r.currency IS NOT NULL
               THEN r.currency <> CAST(:currencies AS jsonb)->>s.subsidiary END) AS former_services,
           coalesce(sum(r.net) FILTER (WHERE CASE WHEN r.currency IS NOT NULL
               THEN r.currency <> CAST(:currencies AS jsonb)->>s.subsidiary END), 0) AS former_net
    FROM services AS s
    LEFT JOIN prices AS p ON p.plan = s.plan AND p.subsidiary = s.subsidiary
        AND p.period_months = s.period_months
    LEFT JOIN payment_methods AS m ON m.id = s.payment_method_id
        AND m.expires_on < CAST(:until AS date) + :latest_charge
    LEFT JOIN renewals AS r ON r.period_number = s.paid_periods + 1
        AND r.expires_on >= :today AND r.expires_on < :until
        AND r.service_id = CASE WHEN s.expires_at < (
            SELECT CAST(max(expires_on) + 2 AS timestamptz) FROM renewals) THEN s.id END
    WHERE s.state IN ('active', 'suspended') AND s.desired <> 'absent'
      AND s.expires_at >= CAST(CAST(:today AS date) + 1 AS timestamptz)
      AND s.expires_at < CAST(CAST(:until AS date) + 1 AS timestamptz)
      AND (CAST(:universe AS text) IS NULL OR s.universe = :universe)
      AND (CAST(:brand AS text) IS NULL OR s.brand = :brand)
    GROUP BY s.expires_at, s.subsidiary, s.brand, CASE WHEN :detailed THEN s.universe END, s.mode,
        unaccepted, unpayable
), overdue AS (
    -- Few services are overdue; their prices are looked up.
    SELECT s.expires_at, s.subsidiary, s.brand, CASE WHEN :detailed THEN s.universe END AS universe,
           s.mode,
           CASE WHEN coalesce(s.agreed_version, 0) >= (SELECT max(version) FROM contracts)
                THEN false
                ELSE coalesce(coalesce(s.agreed_version, 0)
                    < CAST(CAST(:plans AS jsonb)->s.plan->>'version' AS integer), false)
                END AS unaccepted,
           CASE WHEN coalesce(r.net, p.renewal) = 0 THEN false
                WHEN s.payment_method_id IS NULL THEN true
                WHEN m.expires_on IS NULL THEN false
                ELSE m.expires_on < greatest(CAST(:today AS date),
                    CAST(s.expires_at + interval '13 hours' AS date)
                    + coalesce(CAST(CAST(:plans AS jsonb)->s.plan->>'first_charge' AS integer),
                        :first_charge))
                END AS unpayable,
           coalesce(r.net, p.renewal, 1) > 0
               AND CAST(s.expires_at + interval '13 hours' AS date) + make_interval(
                   months => s.period_months * coalesce(
                       CAST(CAST(:plans AS jsonb)->s.plan->>'catch_up' AS integer), :catch_up)
                   ) <= CAST(:today AS timestamp) AS behind,
           count(*) AS services, sum(coalesce(r.net, p.renewal, 0)) AS net,
           max(r.currency) FILTER (WHERE CASE WHEN r.currency IS NOT NULL
               THEN r.currency <> CAST(:currencies AS jsonb)->>s.subsidiary END) AS former_currency,
           count(*) FILTER (WHERE CASE WHEN r.currency IS NOT NULL
               THEN r.currency <> CAST(:currencies AS jsonb)->>s.subsidiary END) AS former_services,
           coalesce(sum(r.net) FILTER (WHERE CASE WHEN r.currency IS NOT NULL
               THEN r.currency <> CAST(:currencies AS jsonb)->>s.subsidiary END), 0) AS former_net
    FROM services AS s
    LEFT JOIN prices AS p ON p.plan = s.plan AND p.subsidiary = s.subsidiary
        AND p.period_months = s.period_months
    LEFT JOIN payment_methods AS m ON m.id = s.payment_method_id
        AND m.expires_on < CAST(:until AS date) + :latest_charge
    LEFT JOIN renewals AS r ON r.period_number = s.paid_periods + 1
        AND r.service_id = s.id
    WHERE s.state IN ('active', 'suspended') AND s.desired <> 'absent'
      AND s.expires_at < CAST(CAST(:today AS date) + 1 AS timestamptz)
      AND (CAST(:universe AS text) IS NULL OR s.universe = :universe)
      AND (CAST(:brand AS text) IS NULL OR s.brand = :brand)
    GROUP BY s.expires_at, s.subsidiary, s.brand, CASE WHEN :detailed THEN s.universe END, s.mode,
        unaccepted, unpayable, behind
), due AS (
    SELECT e.expires_at, e.subsidiary, e.brand, e.universe, e.mode, e.unaccepted, e.unpayable,
           e.behind, x.currency, x.services, x.net,
           CAST(e.expires_at AT TIME ZONE (u.definition->>'timezone') AS date) AS due_on
    FROM (SELECT * FROM upcoming UNION ALL SELECT * FROM overdue) AS e
    JOIN subsidiaries AS u ON u.code = e.subsidiary
    CROSS JOIN LATERAL (VALUES
        (u.definition->>'currency', e.services - e.former_services, e.net - e.former_net),
        (e.former_currency, e.former_services, e.former_net)
    ) AS x(currency, services, net)
    WHERE x.services > 0
), decided AS (
    -- In the order of schemas.rules.outlook, which a property test holds it against.
    SELECT d.due_on, d.universe, d.brand, d.currency, d.services, d.net,
           CASE WHEN o.starts_on IS NULL OR o.starts_on > greatest(d.due_on, :today)
                    THEN 'not_rolled_out'
                WHEN d.mode = 'stop' THEN 'will_stop'
                WHEN d.unaccepted THEN 'undecided_contract'
                WHEN d.mode = 'manual' THEN 'undecided_manual'
                WHEN d.behind THEN 'undecided_behind'
                WHEN d.unpayable THEN 'undecided_payment'
                ELSE 'will_renew' END AS decision
    FROM due AS d
    LEFT JOIN rollouts AS o ON o.brand = d.brand AND o.subsidiary = d.subsidiary
    WHERE d.due_on < :until
)
SELECT CASE WHEN due_on >= :today
            THEN CAST(date_trunc(:by, CAST(due_on AS timestamp)) AS date) END AS start,
       universe, CASE WHEN :detailed THEN brand END AS brand, decision, currency,
       CAST(sum(services) AS bigint) AS services, CAST(sum(net) AS bigint) AS net
FROM decided
GROUP BY 1, 2, 3, 4, 5
