"""The currency, time zone or country of a subsidiary that has services can be changed on purpose.

An amount that was announced stands beside a currency of its own: ``renewals.currency`` is that of
the price that was fixed, and of nothing else.
"""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Whoever reads what has happened about a renewal.
READERS = ("api", "billing", "reminders", "provisioning")
EVENT = "subject, name, task, waited, attempt, detail"


def upgrade() -> None:
    _announced()
    _changes()
    functions = (Path(__file__).parent / "0012_subsidiary_changes.sql").read_text()
    op.get_bind().exec_driver_sql(functions.replace("%", "%%"))
    for function in ("change_subsidiary", "carry_over"):
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO autorenew_scheduler")


def _announced() -> None:
    op.execute("ALTER TABLE renewals ADD COLUMN announced_currency TEXT")
    op.execute("""
        UPDATE renewals AS r
        SET currency = coalesce(r.currency, u.definition->>'currency'),
            announced_currency = CASE WHEN r.announced IS NOT NULL
                THEN coalesce(r.currency, u.definition->>'currency') END
        FROM services AS s JOIN subsidiaries AS u ON u.code = s.subsidiary
        WHERE s.id = r.service_id AND (r.currency IS NULL OR r.announced IS NOT NULL)
    """)
    op.execute("""
        ALTER TABLE renewals
            ALTER COLUMN currency SET NOT NULL,
            ADD CONSTRAINT renewals_announced_currency_check
                CHECK ((announced IS NULL) = (announced_currency IS NULL))
    """)
    for role in READERS:
        op.execute(f"GRANT SELECT (announced_currency) ON renewals TO autorenew_{role}")
    # A price that was fixed keeps its currency, whatever is told and asked for.
    op.execute("REVOKE UPDATE (currency) ON renewals FROM autorenew_reminders, autorenew_billing")
    op.execute("""
        GRANT UPDATE (announced_currency, dearer, dearer_at) ON renewals TO autorenew_reminders
    """)


def _changes() -> None:
    op.execute("ALTER TABLE subsidiaries ADD COLUMN changed_at TIMESTAMP WITH TIME ZONE")
    op.execute("""
        CREATE TABLE subsidiary_changes (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            subsidiary TEXT NOT NULL,
            since DATE NOT NULL,
            definition JSONB NOT NULL,
            prices JSONB DEFAULT '[]' NOT NULL,
            planned_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            applied_at TIMESTAMP WITH TIME ZONE,
            former JSONB,
            CONSTRAINT subsidiary_changes_pkey PRIMARY KEY (id),
            CONSTRAINT subsidiary_changes_subsidiary_fkey
                FOREIGN KEY (subsidiary) REFERENCES subsidiaries (code)
        )
    """)
    op.execute("""
        CREATE UNIQUE INDEX subsidiary_changes_planned ON subsidiary_changes (subsidiary)
        WHERE applied_at IS NULL
    """)
    op.execute("""
        ALTER TABLE recomputations
            ADD COLUMN change_id BIGINT,
            ADD CONSTRAINT recomputations_change_id_fkey
                FOREIGN KEY (change_id) REFERENCES subsidiary_changes (id)
    """)
    op.execute("GRANT SELECT ON subsidiary_changes TO autorenew_readonly")
    op.execute(f"GRANT INSERT ({EVENT}) ON events TO autorenew_scheduler")
    op.execute("""
        GRANT SELECT (id, subsidiary, since, applied_at) ON subsidiary_changes
        TO autorenew_scheduler
    """)
