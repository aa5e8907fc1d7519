-- Run by every migrate, as the database's owner: what each session of ours has set. Not by the sessions
-- themselves: a pooler in transaction mode gives every transaction another one. Neither a dump nor a
-- copy of a database keeps it.

DO $$
DECLARE
    missing record;
BEGIN
    -- Dates and times are read and written in UTC. Compiling a plan takes longer than ours run.
    EXECUTE format('ALTER DATABASE %I SET timezone = ''UTC''', current_database());
    EXECUTE format('ALTER DATABASE %I SET jit = off', current_database());

    -- What is set already stays: an administrator may have chosen it.
    FOR missing IN
        SELECT r.rolname AS role, s.name AS setting,
            CASE r.rolname WHEN 'autorenew_readonly' THEN s.readers ELSE s.fleet END AS value
        FROM pg_roles AS r, (VALUES
            -- A frozen process holds no row locks for longer.
            ('idle_in_transaction_session_timeout', '60s', '60s'),
            -- People and reports read for long; what works on tasks is in small parts.
            ('statement_timeout', '25s', '6h'),
            -- Workers and relay find rows by key. A plan that was made while a table was small reads
            -- all of it, and is kept until the table has statistics: a poll took 3 ms of 36,000 tasks.
            ('enable_seqscan', 'off', NULL)
        ) AS s(name, fleet, readers)
        WHERE r.rolname IN (
            'autorenew_api', 'autorenew_orders', 'autorenew_billing', 'autorenew_reminders',
            'autorenew_provisioning', 'autorenew_relay', 'autorenew_scheduler', 'autorenew_exporter',
            'autorenew_readonly', 'autorenew_events', 'autorenew_console')
          AND (s.name <> 'enable_seqscan' OR r.rolname IN (
            'autorenew_orders', 'autorenew_billing', 'autorenew_reminders',
            'autorenew_provisioning', 'autorenew_relay'))
          AND NOT EXISTS (
            SELECT FROM pg_db_role_setting AS d CROSS JOIN unnest(d.setconfig) AS c(said)
            WHERE d.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND d.setrole = r.oid AND starts_with(c.said, s.name || '='))
        ORDER BY r.rolname, s.name
    LOOP
        BEGIN
            EXECUTE format('ALTER ROLE %I IN DATABASE %I SET %I = %L',
                missing.role, current_database(), missing.setting, missing.value);
        EXCEPTION WHEN insufficient_privilege THEN
            -- Roles that somebody else made. It is the database's then, for everybody.
            IF missing.role <> 'autorenew_readonly' AND missing.setting <> 'enable_seqscan' THEN
                EXECUTE format('ALTER DATABASE %I SET %I = %L',
                    current_database(), missing.setting, missing.value);
            END IF;
        END;
    END LOOP;
END $$;
