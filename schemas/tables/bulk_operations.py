"""What an operator has done to many failed tasks at once, and to which of them exactly."""

from sqlalchemy import (
    REAL,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import func

from schemas.tables.base import CHANGING, metadata, moment, state
from schemas.values import BulkKind, BulkState, BulkTaskState

bulk_operations = Table(
    "bulk_operations",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    state("kind", BulkKind),
    state("state", BulkState, server_default=BulkState.RUNNING),
    # Who, and why.
    Column("asked_by", Text, nullable=False),
    Column("note", Text),
    # What it was asked for; which tasks that is says bulk_tasks.
    Column("filters", JSONB, nullable=False),
    # Tasks a second; NULL: as fast as it goes.
    Column("rate", REAL),
    Column("all_at_once", Boolean, nullable=False),
    # How many tasks the current batch has, and how many of it are still to be sent.
    Column("batch", Integer, nullable=False, server_default="1"),
    Column("batch_left", Integer, nullable=False, server_default="1"),
    # Since when the rate allows what has not been sent.
    moment("paced_at", nullable=False, server_default=func.clock_timestamp()),
    # Tasks that were sent are looked at by turns, in the order of their numbers.
    Column("looked_at", Integer, nullable=False, server_default="0"),
    Column("total", Integer, nullable=False),
    Column("sent", Integer, nullable=False, server_default="0"),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("skipped", Integer, nullable=False, server_default="0"),
    # Why it was halted, or who stopped it and why.
    Column("reason", Text),
    # The lanes that hold its tasks back now.
    Column("waits_for", Text),
    moment("created_at", nullable=False, server_default=func.clock_timestamp()),
    # Nothing is sent any more, and what was sent has ended.
    moment("ended_at"),
    # Beside which tasks: what is changed (option -> value; null: without it), or what is said.
    Column("detail", JSONB),
    Index("bulk_operations_open", "created_at", postgresql_where="ended_at IS NULL"),
    Index("bulk_operations_newest", "created_at"),
    **CHANGING,
)

# A snapshot: the failures there were when it was asked for.
bulk_tasks = Table(
    "bulk_tasks",
    metadata,
    Column("bulk_id", Uuid, ForeignKey("bulk_operations.id"), nullable=False),
    # In the order in which they are sent.
    Column("number", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("subject", Uuid, nullable=False),
    Column("lane", Text, nullable=False),
    # Which failure it was: its fingerprint, and what tells it from a later one.
    Column("reason", Text),
    Column("code", Text),
    moment("first_failed_at"),
    Column("total_attempts", Integer, nullable=False),
    state("state", BulkTaskState, server_default=BulkTaskState.WAITING),
    # Why it was skipped, or what it failed for again.
    Column("outcome", Text),
    PrimaryKeyConstraint("bulk_id", "number"),
    Index("bulk_tasks_waiting", "bulk_id", "number", postgresql_where="state = 'waiting'"),
    Index(
        "bulk_tasks_sent", "bulk_id", "number", postgresql_where="state IN ('sent', 'retrying')"
    ),
    Index(
        "bulk_tasks_left", "bulk_id", "number", postgresql_where="state IN ('failed', 'skipped')"
    ),
    **CHANGING,
)  # fmt: skip
