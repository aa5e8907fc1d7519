DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'autorenew_exporter') THEN
        CREATE ROLE autorenew_exporter NOLOGIN;
    END IF;
    -- It reads whatever readonly does, in the releases to come, too: it runs the audit.
    IF NOT pg_has_role('autorenew_exporter', 'autorenew_readonly', 'MEMBER') THEN
        GRANT autorenew_readonly TO autorenew_exporter;
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO autorenew_exporter;

CREATE TABLE processes (
    id UUID NOT NULL,
    role TEXT DEFAULT CURRENT_USER NOT NULL,
    process TEXT NOT NULL,
    queues TEXT[] DEFAULT '{}' NOT NULL,
    version TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    beat_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT processes_pkey PRIMARY KEY (id)
) WITH (fillfactor = 70);
ALTER TABLE processes ENABLE ROW LEVEL SECURITY;
CREATE POLICY processes_readonly_select ON processes FOR SELECT TO autorenew_readonly USING (true);
GRANT SELECT ON processes TO autorenew_readonly;

CREATE TABLE audit_runs (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    seconds DOUBLE PRECISION DEFAULT 0 NOT NULL,
    checks INTEGER DEFAULT 0 NOT NULL,
    violations INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT audit_runs_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX audit_runs_open ON audit_runs ((ended_at IS NULL)) WHERE ended_at IS NULL;

CREATE TABLE audit_findings (
    invariant TEXT NOT NULL,
    must TEXT NOT NULL,
    run_id BIGINT,
    checked_at TIMESTAMP WITH TIME ZONE,
    seconds DOUBLE PRECISION DEFAULT 0 NOT NULL,
    violations INTEGER DEFAULT 0 NOT NULL,
    offenders JSONB DEFAULT '[]' NOT NULL,
    problem TEXT,
    next_id UUID,
    parts INTEGER DEFAULT 1 NOT NULL,
    part_run_id BIGINT,
    part_seconds DOUBLE PRECISION DEFAULT 0 NOT NULL,
    part_violations INTEGER DEFAULT 0 NOT NULL,
    part_offenders JSONB DEFAULT '[]' NOT NULL,
    CONSTRAINT audit_findings_pkey PRIMARY KEY (invariant)
);

CREATE TABLE lock_audit ();
GRANT UPDATE ON lock_audit TO autorenew_exporter;
GRANT SELECT ON audit_runs, audit_findings TO autorenew_readonly;
GRANT INSERT (started_at), UPDATE (ended_at, seconds, checks, violations), DELETE
    ON audit_runs TO autorenew_exporter;
GRANT INSERT (invariant, must), UPDATE (must, run_id, checked_at, seconds, violations, offenders,
    problem, next_id, parts, part_run_id, part_seconds, part_violations, part_offenders)
    ON audit_findings TO autorenew_exporter;
