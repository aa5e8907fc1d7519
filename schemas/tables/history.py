"""The append-only history: what happened to which subject, when and why."""

from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    Identity,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import func

from schemas.tables.base import metadata, moment

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
)
