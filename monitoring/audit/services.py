"""Services: state, what should be, what was confirmed; by operations, history and catalogue."""

from monitoring.audit.checks import sql

CHECKS = (
    sql(
        "services.shape",
        "a service has the facts that its state implies, and no others",
        """
        SELECT 'service', id FROM services
        WHERE id BETWEEN :low AND :high AND (NOT CASE state
            WHEN 'pending' THEN (anchor, expires_at, confirmed_until, resource_id) IS NULL
                AND (paid_periods, desired, confirmed) = (0, 'absent', 'absent')
            WHEN 'delivering' THEN paid_periods = 1 AND (anchor IS NULL OR desired = 'absent')
            WHEN 'cancelled' THEN desired = 'absent' AND paid_periods <= 1
            WHEN 'terminated' THEN anchor IS NOT NULL AND expires_at IS NOT NULL
                AND desired = 'absent'
            ELSE anchor IS NOT NULL AND expires_at IS NOT NULL
                AND (confirmed = 'absent' OR resource_id IS NOT NULL) END
            OR (order_id IS NULL) <> (line IS NULL) OR (line IS NULL) <> (unit IS NULL)
            OR paid_periods < imported_periods OR imported_periods < 0
            OR (imported_periods > 0 AND order_id IS NOT NULL)
            OR period_months < 1 OR generation < 1
            OR (held_at IS NULL) <> (held_because IS NULL)
            OR (mode_before IS NOT NULL AND mode <> 'stop') OR mode_before = 'stop'
            OR (anchor IS NULL) <> (expires_at IS NULL)
            OR (state = 'active' AND desired = 'active' AND suspended_at IS NOT NULL))""",
    ),
    sql(
        "services.converged",
        "what should be is what was confirmed, or is being worked on",
        """
        SELECT 'service', s.id FROM services AS s
        WHERE s.id BETWEEN :low AND :high
          AND (s.desired <> s.confirmed OR s.state = 'delivering'
            OR (s.confirmed <> 'absent' AND s.confirmed_until < (s.anchor
                + make_interval(months => s.period_months * s.paid_periods))::date))
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'converge' AND t.subject = s.id)""",
    ),
    sql(
        "services.confirmed",
        "a service's state agrees with what was confirmed",
        """
        SELECT 'service', s.id FROM services AS s
        WHERE s.id BETWEEN :low AND :high
          AND s.confirmed <> CASE s.state WHEN 'active' THEN 'active'
                WHEN 'suspended' THEN 'suspended' ELSE 'absent' END
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'converge' AND t.subject = s.id)""",
    ),
    sql(
        "services.operations",
        "what was confirmed of a service is what its last operation that was done made of it",
        """
        SELECT 'service', s.id FROM services AS s
        LEFT JOIN (
            SELECT DISTINCT ON (service_id) service_id, kind FROM operations
            WHERE service_id BETWEEN :low AND :high AND state = 'done' AND kind <> 'extend'
            ORDER BY service_id, ended_at DESC, generation DESC) AS o ON o.service_id = s.id
        LEFT JOIN (
            SELECT service_id, max(paid_until) AS until FROM operations
            WHERE service_id BETWEEN :low AND :high AND state = 'done'
              AND kind IN ('create', 'extend')
            GROUP BY service_id) AS p ON p.service_id = s.id
        WHERE s.id BETWEEN :low AND :high AND (
            NOT CASE WHEN o.kind IN ('create', 'resume') THEN s.confirmed = 'active'
                WHEN o.kind = 'suspend' THEN s.confirmed = 'suspended'
                WHEN o.kind = 'terminate' THEN s.confirmed = 'absent'
                ELSE s.order_id IS NULL OR s.confirmed = 'absent' END
            OR s.confirmed <> 'absent' AND (s.confirmed_until IS NULL
                OR s.confirmed_until < p.until))
          -- What was found to be otherwise is converged again.
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'converge' AND t.subject = s.id)""",
    ),
    sql(
        "services.calls",
        "an operation is of its service's generations, for a time that was paid, and ends once",
        """
        SELECT 'operation', o.key FROM operations AS o
        LEFT JOIN services AS s ON s.id = o.service_id
        WHERE o.service_id BETWEEN :low AND :high AND (s.id IS NULL
            OR o.generation NOT BETWEEN 1 AND s.generation
            OR o.kind NOT IN ('create', 'suspend', 'resume', 'extend', 'terminate')
            OR (o.state IN ('done', 'failed')) <> (o.ended_at IS NOT NULL)
            OR o.ended_at < o.started_at
            OR o.paid_until > (s.anchor
                + make_interval(months => s.period_months * s.paid_periods))::date + 1)""",
    ),
    # A load of the catalogue changes nothing that live services depend on.
    sql(
        "services.plan",
        "a service is where its plan is: universe, brand, driver",
        """
        SELECT 'service', s.id FROM services AS s LEFT JOIN plans AS p ON p.code = s.plan
        WHERE s.id BETWEEN :low AND :high AND s.state NOT IN ('terminated', 'cancelled')
          AND (s.universe, s.brand, s.driver) IS DISTINCT FROM (p.universe, p.brand, p.driver)""",
    ),
    sql(
        "services.agreed",
        "a service is under the version of its contract that its customer accepted last",
        """
        SELECT 'service', s.id FROM services AS s
        JOIN plans AS p ON p.code = s.plan
        LEFT JOIN (SELECT customer_id, contract, max(version) AS version FROM agreements
            GROUP BY customer_id, contract) AS a
            ON a.customer_id = s.customer_id AND a.contract = p.contract
        WHERE s.id BETWEEN :low AND :high
          AND (s.state IN ('delivering', 'active', 'suspended') OR s.agreed_version > a.version)
          AND s.agreed_version IS DISTINCT FROM a.version
          -- What an import says of a contract is said of the services that it brings.
          AND NOT ((s.agreed_version IS NULL OR EXISTS (SELECT FROM agreements AS b
                WHERE b.customer_id = s.customer_id AND b.contract = p.contract
                  AND b.version = s.agreed_version))
            AND EXISTS (SELECT FROM public.services AS t
                WHERE t.customer_id = s.customer_id AND t.order_id IS NULL))""",
    ),
    sql(
        "services.history",
        "a service's state is what its history says that it became",
        """
        SELECT 'service', s.id FROM services AS s
        LEFT JOIN (
            SELECT DISTINCT ON (subject) subject, name FROM events
            WHERE subject BETWEEN :low AND :high AND name IN ('service.imported',
                'service.delivered', 'service.suspended', 'service.resumed',
                'service.terminated', 'service.cancelled')
            ORDER BY subject, id DESC) AS e ON e.subject = s.id
        WHERE s.id BETWEEN :low AND :high AND NOT CASE s.state
            WHEN 'pending' THEN e.name IS NULL
            WHEN 'delivering' THEN e.name IS NULL
            WHEN 'terminated' THEN e.name IS NOT DISTINCT FROM 'service.terminated'
            -- What was ordered and never paid is told with its order.
            WHEN 'cancelled' THEN e.name IS NOT DISTINCT FROM CASE s.paid_periods
                WHEN 0 THEN NULL ELSE 'service.cancelled' END
            -- What ends meanwhile does not become what is confirmed on the way.
            ELSE coalesce(e.name, '') IN ('service.imported', CASE s.state WHEN 'active'
                    THEN 'service.delivered' ELSE 'service.suspended' END,
                    CASE s.state WHEN 'active' THEN 'service.resumed' END)
                OR (s.desired = 'absent' AND e.name <> 'service.terminated') END""",
    ),
    sql(
        "services.mode",
        "a service renews as its customer said last",
        """
        SELECT 'service', s.id FROM services AS s
        LEFT JOIN (
            SELECT DISTINCT ON (subject) subject, detail->>'mode' AS mode FROM events
            WHERE subject BETWEEN :low AND :high AND name = 'mode.changed'
            ORDER BY subject, id DESC) AS e ON e.subject = s.id
        WHERE s.id BETWEEN :low AND :high AND (
            (e.subject IS NULL) <> (s.mode_changed_at IS NULL)
            OR s.mode <> e.mode
            OR (e.subject IS NULL AND s.order_id IS NOT NULL AND s.mode <> 'automatic'))""",
    ),
    sql(
        "services.ending",
        "a service that was there ends if and only if its history says why",
        """
        SELECT 'service', s.id FROM services AS s
        LEFT JOIN (SELECT DISTINCT subject FROM events
            WHERE subject BETWEEN :low AND :high AND name = 'service.ending') AS e
            ON e.subject = s.id
        WHERE s.id BETWEEN :low AND :high AND s.state IN ('active', 'suspended', 'terminated')
          AND (s.desired = 'absent') <> (e.subject IS NOT NULL)""",
    ),
    sql(
        "services.held",
        "an operator's suspension is as it was ordered last",
        """
        SELECT 'service', s.id FROM services AS s
        LEFT JOIN (
            SELECT DISTINCT ON (subject) subject, name, detail->>'because' AS because
            FROM events
            WHERE subject BETWEEN :low AND :high
              AND name IN ('service.suspending', 'service.unsuspending')
              AND detail->>'reason' = 'operator'
            ORDER BY subject, id DESC) AS e ON e.subject = s.id
        WHERE s.id BETWEEN :low AND :high
          AND s.held_because IS DISTINCT FROM
            CASE e.name WHEN 'service.suspending' THEN e.because END""",
    ),
    sql(
        "services.stay",
        "what an operator has suspended is to stay so",
        """
        SELECT 'service', s.id FROM services AS s
        WHERE s.id BETWEEN :low AND :high AND s.held_at IS NOT NULL AND s.desired = 'active'""",
    ),
    sql(
        "services.unpaid",
        "what is suspended was not paid, or an operator has it so",
        """
        SELECT 'service', s.id FROM services AS s
        WHERE s.id BETWEEN :low AND :high AND s.state = 'suspended' AND s.desired = 'suspended'
          AND s.suspended_at IS NULL AND s.held_at IS NULL
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'converge' AND t.subject = s.id)
        UNION ALL
        SELECT 'service', s.id FROM services AS s
        WHERE s.id BETWEEN :low AND :high AND s.state IN ('active', 'suspended')
          AND s.desired = 'suspended' AND s.held_at IS NULL
          AND NOT EXISTS (SELECT FROM events AS e WHERE e.subject = s.id
            AND e.name IN ('service.suspending', 'service.imported'))""",
    ),
    sql(
        "services.told",
        "what was suspended or terminated for want of payment was told so before",
        """
        SELECT 'service', s.id FROM services AS s
        WHERE s.id BETWEEN :low AND :high AND s.state = 'suspended' AND s.imported_periods = 0
          AND s.order_id IS NOT NULL
          AND s.desired = 'suspended' AND (s.held_at IS NULL OR s.suspended_at IS NOT NULL)
          AND NOT EXISTS (SELECT FROM notices AS n JOIN emails AS e ON e.id = n.email_id
            WHERE n.service_id = s.id AND n.expires_at = s.expires_at
              AND (e.sent_at IS NOT NULL OR e.refused_at IS NOT NULL))""",
    ),
)
