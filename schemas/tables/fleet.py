"""What the fleet stores about itself: heartbeat, clock, counts of ends, forecasts."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Double,
    Identity,
    Index,
    Integer,
    Interval,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql import func

from schemas.locks import Lock
from schemas.tables.base import CHANGING, metadata, moment


def _sole() -> Column[bool]:
    return Column("sole", Boolean, CheckConstraint("sole", name="sole"), primary_key=True)


# When the fleet was last seen alive, by either clock, and on which database.
heartbeat = Table(
    "heartbeat",
    metadata,
    _sole(),
    moment("beat_at", nullable=False),
    moment("business_at", nullable=False),
    # After this moment no task of a guarded lane is claimed until a new heartbeat.
    moment("trusted_until", nullable=False),
    Column("identity", Text, nullable=False),
    # Since when a promoted server waits for a process that knows whether something was lost.
    moment("doubted_at"),
)

# The last heartbeat of each process, by a number of its own: what is missing was lost.
witnesses = Table(
    "witnesses",
    metadata,
    Column("process", Uuid, primary_key=True),
    Column("number", BigInteger, nullable=False),
    moment("beat_at", nullable=False),
)

# Every process of the fleet, by its own word; kept for a day after its last one.
processes = Table(
    "processes",
    metadata,
    Column("id", Uuid, primary_key=True),
    # Who wrote it: each database role sees and changes its own rows.
    Column("role", Text, nullable=False, server_default=text("CURRENT_USER")),
    # worker, relay, scheduler, intake, api, pages, console, exporter
    Column("process", Text, nullable=False),
    # Those it works on; only a worker does.
    Column("queues", ARRAY(Text), nullable=False, server_default="{}"),
    Column("version", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    moment("started_at", nullable=False, server_default=func.clock_timestamp()),
    moment("beat_at", nullable=False, server_default=func.clock_timestamp()),
    # It was stopped, and said so.
    moment("ended_at"),
    **CHANGING,
)

# The audit that the exporter does piece by piece: a run ends when every check is done.
audit_runs = Table(
    "audit_runs",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    moment("started_at", nullable=False, server_default=func.clock_timestamp()),
    moment("ended_at"),
    # That checks took, of checks that are done.
    Column("seconds", Double, nullable=False, server_default="0"),
    Column("checks", Integer, nullable=False, server_default="0"),
    Column("violations", Integer, nullable=False, server_default="0"),
    Index(
        "audit_runs_open", text("(ended_at IS NULL)"), unique=True,
        postgresql_where="ended_at IS NULL",
    ),
)  # fmt: skip

# The last verdict of each check, and how far the run that is under way has come with it.
audit_findings = Table(
    "audit_findings",
    metadata,
    # The code of the check, and what must be true.
    Column("invariant", Text, primary_key=True),
    Column("must", Text, nullable=False),
    # The last run that has done it.
    Column("run_id", BigInteger),
    moment("checked_at"),
    Column("seconds", Double, nullable=False, server_default="0"),
    Column("violations", Integer, nullable=False, server_default="0"),
    # The first of them: kind, id, and what it is said to be.
    Column("offenders", JSONB, nullable=False, server_default="[]"),
    # Why there is no newer verdict; NULL: there will be.
    Column("problem", Text),
    # Where the next piece begins; into how many pieces ids are cut so that one is done in time.
    Column("next_id", Uuid),
    Column("parts", Integer, nullable=False, server_default="1"),
    # What the pieces found that this run has done.
    Column("part_run_id", BigInteger),
    Column("part_seconds", Double, nullable=False, server_default="0"),
    Column("part_violations", Integer, nullable=False, server_default="0"),
    Column("part_offenders", JSONB, nullable=False, server_default="[]"),
)

# How many services were enqueued for suspension or termination, by the hour.
destructions = Table(
    "destructions",
    metadata,
    moment("hour", primary_key=True),
    Column("services", Integer, nullable=False),
)

# A fleet-wide clock for demos and tests: how far it is ahead of the real one.
virtual_clock = Table(
    "virtual_clock",
    metadata,
    _sole(),
    Column("ahead", Interval, nullable=False),
)

# The forecast as of a day, aggregated; one snapshot a day.
forecasts = Table(
    "forecasts",
    metadata,
    Column("made_on", Date, nullable=False),
    Column("due_on", Date, nullable=False),
    Column("universe", Text, nullable=False),
    Column("brand", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("services", Integer, nullable=False),
    Column("net", BigInteger, nullable=False),
    PrimaryKeyConstraint(
        "made_on", "due_on", "universe", "brand", "currency", "decision", name="forecasts_pkey"
    ),
)

# Without columns or rows: see schemas.locks.
locks = [Table(lock.value, metadata) for lock in Lock]
