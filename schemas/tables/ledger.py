"""The task ledger: what is still to be done, and who is doing it."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import func

from schemas.tables.base import is_one_of, metadata, moment, state
from schemas.values import BatchState, OpenCause, PauseSource, TaskState

# Written when it is enqueued, deleted when it is done. What becomes of it in between is written of
# the batch that it is in.
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
    # Of the release before, whose enqueue writes the first one; a later migration drops them.
    Column("dispatches", SmallInteger, nullable=False, server_default="0"),
    moment("rescue_at"),
    Column("lease_token", Uuid),
    moment("lease_until"),
    Column("reason", Text),
    # The far side's own reason, such as out_of_stock.
    Column("code", Text),
    Column("error", Text),
    # What was logged last about its attempts that failed.
    Column("lines", ARRAY(Text)),
    # It is in exactly one batch; otherwise it waits for its time, or for a person.
    Column("batched", Boolean, nullable=False, server_default="false"),
    # Since when, and how often, it has failed without an end: a person's retry changes neither.
    moment("first_failed_at"),
    Column("total_attempts", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("name", "subject"),
    Index("tasks_unbatched", "run_at", postgresql_where="state = 'ready' AND NOT batched"),
    Index("tasks_failed", "queue", "name", postgresql_where="state = 'failed'"),
    # Rows live for seconds: vacuum by count, not by share.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "20000",
        "autovacuum_analyze_scale_factor": "0",
        "autovacuum_analyze_threshold": "100000",
        "autovacuum_vacuum_cost_delay": "0",
    },
)

# Tasks of one queue, name and lane that are handed over together: what a message carries the id of,
# and what a worker leases. Whoever claims one gives it a new id, its lease token.
batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("queue", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("lane", Text, nullable=False),
    # Sorted. Those that came to an end are taken out.
    Column("subjects", ARRAY(Uuid), nullable=False),
    Column("size", Integer, nullable=False),
    state("state", BatchState, server_default=BatchState.READY),
    # Since when the first of its tasks has been ready.
    moment("run_at", nullable=False),
    # Of its task, which is alone in it from the first start without an end on.
    Column("starts", SmallInteger, nullable=False, server_default="0"),
    # Since the last claim: doubles the time to rescue.
    Column("dispatches", SmallInteger, nullable=False, server_default="0"),
    # Dispatched: when it is rescued. Leased: when the lease ends. Ready: not dispatched before.
    moment("until"),
    Index("batches_ready", "queue", "name", "lane", "run_at", postgresql_where="state = 'ready'"),
    Index("batches_held", "state", "queue", "until", postgresql_where="state <> 'ready'"),
    postgresql_with={
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "2000",
        "autovacuum_analyze_scale_factor": "0",
        "autovacuum_analyze_threshold": "20000",
        "autovacuum_vacuum_cost_delay": "0",
    },
)

# Relays that wait to be woken by an enqueue. Emptied by a crash: they look by themselves, too.
sleeping_relays = Table(
    "sleeping_relays",
    metadata,
    Column("id", Uuid, primary_key=True),
    moment("until", nullable=False),
    prefixes=["UNLOGGED"],
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

# Which role may ask for which step on which queue: see the function enqueue_tasks.
enqueuers = Table(
    "enqueuers",
    metadata,
    Column("step", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("role", Text, nullable=False),
    PrimaryKeyConstraint("step", "queue", "role"),
)

# A lane is open while it has a row here: its far side fails, and its tasks wait.
lane_breakers = Table(
    "lane_breakers",
    metadata,
    Column("lane", Text, primary_key=True),
    # Where it was found out.
    Column("queue", Text, nullable=False),
    Column("cause", Text, is_one_of("cause", OpenCause), nullable=False),
    Column("reason", Text, nullable=False),
    moment("opened_at", nullable=False, server_default=func.now()),
    # That have failed.
    Column("probes", Integer, nullable=False, server_default="0"),
    # When the next one may go out.
    moment("probe_at", nullable=False),
    # The batch that may be claimed meanwhile.
    Column("probe", Uuid),
)

# What a lane may ask of its far side, by the number of tasks that are handed over.
lane_limits = Table(
    "lane_limits",
    metadata,
    Column("lane", Text, primary_key=True),
    Column("at_once", Integer),
    Column("per_second", Double),
    Column("burst", Integer),
    # What is left of the burst, as of then.
    Column("tokens", Double, nullable=False, server_default="0"),
    moment("filled_at", nullable=False, server_default=func.now()),
    CheckConstraint(
        "(at_once IS NOT NULL OR per_second IS NOT NULL)"
        " AND (burst IS NULL) = (per_second IS NULL)"
        " AND at_once > 0 AND per_second > 0 AND burst > 0",
        name="bounds",
    ),
)

# A lane is paused while it has a row here. Each row is one pause, of an operator or of the guard,
# and ends by itself.
lane_pauses = Table(
    "lane_pauses",
    metadata,
    Column("lane", Text, nullable=False),
    Column("reason", Text, nullable=False),
    moment("paused_at", nullable=False, server_default=func.now()),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column(
        "source", Text, is_one_of("source", PauseSource), nullable=False,
        server_default=PauseSource.OPERATOR,
    ),
    Column("paused_by", Text, nullable=False, server_default=text("SESSION_USER")),
    # The guard's: what it found, as codes.
    Column("cause", Text),
    PrimaryKeyConstraint("lane", "id"),
    Index(
        "lane_pauses_operator", "lane", "paused_by", "reason", unique=True,
        postgresql_where="source = 'operator'",
    ),
    Index(
        "lane_pauses_guard", "lane", "cause", unique=True, postgresql_where="source = 'guard'"
    ),
)  # fmt: skip
