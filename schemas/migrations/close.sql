-- Run by every migrate, as the database's owner: what PostgreSQL lets anybody do in a new database,
-- and what a copy of a database or a restored dump of it lets anybody do again.

DO $$
DECLARE
    role name;
    routine regprocedure;
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN (
        'autorenew_api', 'autorenew_orders', 'autorenew_billing', 'autorenew_reminders',
        'autorenew_provisioning', 'autorenew_relay', 'autorenew_scheduler', 'autorenew_exporter',
        'autorenew_readonly', 'autorenew_events', 'autorenew_console')
    LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    -- An import copies its rows into temporary tables first.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO autorenew_api', current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;

    -- Large objects: files of any size that nothing here looks at. They are a superuser's to close.
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        FOR routine IN SELECT oid FROM pg_proc
            WHERE pronamespace = 'pg_catalog'::regnamespace
              AND (proname LIKE 'lo\_%' OR proname IN ('loread', 'lowrite'))
        LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
        END LOOP;
    END IF;
END $$;
