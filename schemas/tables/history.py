"""The append-only history: what happened to which subject, when and why."""

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import func

from schemas.events import IS_OUTGOING
from schemas.tables.base import metadata, moment

BY_OPERATORS = "detail ? 'by' AND NOT detail ? 'bulk'"

events = Table(
    "events",
    metadata,
    Column("subject", Uuid, nullable=False),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    moment("at", nullable=False, server_default=func.clock_timestamp()),
    Column("name", Text, nullable=False),
    # Which task did it, how long it had waited to be started (seconds), on which attempt.
    Column("task", Text),
    Column("waited", REAL),
    Column("attempt", SmallInteger),
    Column("detail", JSONB),
    PrimaryKeyConstraint("subject", "id"),
    Index(
        "events_id_idx",
        "id",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 16, "autosummarize": "on"},
    ),
    # What operators did; what a bulk operation did to each task is not in it.
    Index("events_by_operators", "id", postgresql_where=BY_OPERATORS),
    Index("events_outgoing", "id", postgresql_where=IS_OUTGOING),
)

# Blocks of the history, each with a hash over its events and the block before.
seals = Table(
    "seals",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("first_id", BigInteger, nullable=False),
    Column("last_id", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    moment("sealed_at", nullable=False, server_default=func.now()),
)

# How far it is sealed, and what is next: the ids up to next_id are all there once every transaction
# before complete_after has ended.
sealing = Table(
    "sealing",
    metadata,
    Column("sole", Boolean, CheckConstraint("sole", name="sole"), primary_key=True),
    Column("last_id", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("next_id", BigInteger),
    Column("complete_after", BigInteger),
    moment("noted_at"),
)
