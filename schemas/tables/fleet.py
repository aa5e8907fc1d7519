"""What the fleet stores about itself: heartbeat, clock, counts of ends, forecasts."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Integer,
    Interval,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)

from schemas.locks import Lock
from schemas.tables.base import metadata, moment


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
