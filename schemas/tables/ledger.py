"""The task ledger: what is still to be done, and who is doing it."""

from sqlalchemy import Column, Index, Integer, PrimaryKeyConstraint, SmallInteger, Table, Text, Uuid
from sqlalchemy.sql import func

from schemas.tables.base import metadata, moment, state
from schemas.values import TaskState

tasks = Table(
    "tasks",
    metadata,
    Column("name", Text, nullable=False),
    Column("subject", Uuid, nullable=False),
    Column("queue", Text, nullable=False),
    Column("lane", Text, nullable=False),
    state("state", TaskState, server_default=TaskState.READY),
    moment("run_at", nullable=False, server_default=func.now()),
    # Bumped by every enqueue, so that a wake-up during the work is not lost.
    Column("wanted", Integer, nullable=False, server_default="1"),
    # Business failures since the last success; reset by an enqueue and by a person.
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    # Starts that never came to an end: what tells a subject that kills its process.
    Column("starts", SmallInteger, nullable=False, server_default="0"),
    # Dispatches since the last claim: doubles the time to rescue.
    Column("dispatches", SmallInteger, nullable=False, server_default="0"),
    moment("rescue_at"),
    Column("lease_token", Uuid),
    moment("lease_until"),
    Column("reason", Text),
    Column("error", Text),
    PrimaryKeyConstraint("name", "subject"),
    Index("tasks_ready", "queue", "name", "lane", "run_at", postgresql_where="state = 'ready'"),
    Index("tasks_dispatched", "queue", "rescue_at", postgresql_where="state = 'dispatched'"),
    Index("tasks_leased", "lease_until", postgresql_where="state = 'leased'"),
    # Almost always empty: subjects that may be what kills their process.
    Index("tasks_suspect", "queue", postgresql_where="starts >= 3"),
    Index("tasks_failed", "queue", "name", postgresql_where="state = 'failed'"),
    # Every row is written four times and then deleted: vacuum by count, not by share.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "20000",
        "autovacuum_analyze_scale_factor": "0",
        "autovacuum_analyze_threshold": "100000",
        "autovacuum_vacuum_cost_delay": "0",
    },
)

# Which (queue, task, lane) exist, so that a relay can visit them one by one.
routes = Table(
    "routes",
    metadata,
    Column("queue", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("lane", Text, nullable=False),
    PrimaryKeyConstraint("queue", "name", "lane"),
)

lane_pauses = Table(
    "lane_pauses",
    metadata,
    Column("lane", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    moment("paused_at", nullable=False, server_default=func.now()),
)
