"""The task ledger: every step of work still to be done is a row, and this is its protocol.

            enqueue            dispatch           claim              finish
 (nothing) --------> ready --------> dispatched --------> leased --------> (gone)
                       ^  ^              |                  |  |
                       |  +-- rescue ----+                  |  +--> failed (a person decides)
                       +------ retry, lease lost, wanted ---+

A task is identified by its name and its subject; there is at most one of each. It is written when
it is enqueued and deleted when it is done. What happens in between is written of its *batch*: an
enqueue makes one of the tasks it adds, a message carries the id of one, a worker leases one. A
task is in exactly one batch while it is to be done now (``batched``), else in none: it waits for
its ``run_at``, or for a person. So who holds a batch holds its tasks, and nobody else does.

A message is only a hint: losing it delays, repeating it is harmless, forging it does nothing.
All times in here are the database's. A worker's side is in ``claims``, a relay's in
``dispatching``.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

# Where money is taken and services end. After a gap nothing there is started before it was looked
# at (producers.guard).
GATEWAY_LANE = "gateway"
DESTRUCTIVE_LANE = "destructive"
RENEWAL_LANE = "renewals"  # payment requests are made and taken apart
GUARDED_LANES = (GATEWAY_LANE, DESTRUCTIVE_LANE, RENEWAL_LANE)

# A subject that ended its process this often, without ever finishing, is set aside.
MAX_STARTS = 5


@dataclass(frozen=True, slots=True)
class Claim:
    """Tasks of one name, leased by one worker under one token until their lease ends.

    Attributes:
        token: the id of their batch, which only its holder knows.
    """

    name: str
    queue: str
    token: uuid.UUID
    tasks: tuple["ClaimedTask", ...]

    def subset(self, subjects: Iterable[uuid.UUID]) -> "Claim":
        chosen = set(subjects)
        return Claim(
            self.name, self.queue, self.token, tuple(t for t in self.tasks if t.subject in chosen)
        )

    @property
    def subjects(self) -> list[uuid.UUID]:
        return [task.subject for task in self.tasks]


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    subject: uuid.UUID
    wanted: int
    attempts: int
    waited: float
    """Seconds between becoming ready and this start."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Why a task is to be tried again, and when.

    Attributes:
        delay: seconds from now.
        counts: as one of the attempts after which a person decides.
        jitter: the delay is a ceiling; the runtime draws one below it.
    """

    subject: uuid.UUID
    reason: str
    error: str = ""
    delay: float = 0.0
    counts: bool = True
    jitter: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task waits for a person now."""

    subject: uuid.UUID
    reason: str
    error: str = ""


@dataclass(slots=True)
class Outcome:
    """How the tasks of a claim ended. Whatever is not named here stays leased."""

    done: list[uuid.UUID] = field(default_factory=list)
    again: list[uuid.UUID] = field(default_factory=list)
    """Not done yet, nothing wrong: look at it once more."""
    retries: list[Retry] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, decision: Retry | Failure) -> None:
        if isinstance(decision, Retry):
            self.retries.append(decision)
        else:
            self.failures.append(decision)

    def __len__(self) -> int:
        return len(self.done) + len(self.again) + len(self.retries) + len(self.failures)


class LeaseLost(Exception):
    """Another worker holds these tasks by now: what was done must not be committed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task runs: its queue, and the lane it can be paused with."""

    queue: str
    lane: str


# What a relay listens on: the ids of new batches, or nothing if those are too many to name. A
# payload is less than 8,000 bytes.
CHANNEL = "ledger"
MOST_NAMED = 200

# Tasks that are there already stay where they are: whoever has one in hand sees at the end that
# it was wanted again, and one that waits is gathered by a relay.
_ENQUEUE = text(f"""
    WITH route AS (
        INSERT INTO routes (queue, name, lane)
        SELECT queue, :name, lane
        FROM unnest(CAST(:queues AS text[]), CAST(:lanes AS text[])) AS r(queue, lane)
        ORDER BY queue, lane
        ON CONFLICT DO NOTHING
    ), put AS (
        INSERT INTO tasks AS t (name, subject, queue, lane, run_at, batched)
        SELECT :name, r.subject, (CAST(:queues AS text[]))[r.place],
            (CAST(:lanes AS text[]))[r.place],
            clock_timestamp() + make_interval(secs => :delay), :delay <= 0
        FROM unnest(CAST(:subjects AS uuid[]), CAST(:places AS integer[])) AS r(subject, place)
        ORDER BY r.subject
        ON CONFLICT (name, subject) DO UPDATE SET
            wanted = t.wanted + 1,
            queue = excluded.queue,
            lane = excluded.lane,
            attempts = 0,
            state = 'ready',
            batched = t.batched AND t.state <> 'failed',
            run_at = CASE
                WHEN t.state = 'failed' THEN excluded.run_at  -- a person is not a queue
                WHEN t.batched THEN t.run_at
                ELSE least(t.run_at, excluded.run_at) END,
            starts = CASE WHEN t.state = 'failed' THEN 0 ELSE t.starts END,
            reason = NULL, error = NULL
        RETURNING subject, queue, lane, run_at, batched AND wanted = 1 AS is_new
    ), batched AS (
        INSERT INTO batches (id, queue, name, lane, subjects, size, run_at)
        SELECT gen_random_uuid(), queue, :name, lane, array_agg(subject ORDER BY subject),
            count(*), min(run_at)
        FROM put WHERE is_new GROUP BY queue, lane
        RETURNING id
    )
    SELECT pg_notify('{CHANNEL}', (
        SELECT CASE WHEN count(*) <= {MOST_NAMED} THEN string_agg(id::text, ' ') END FROM batched))
    FROM sleeping_relays WHERE until > now() LIMIT 1
""")


def enqueue(
    tx: Connection,
    name: str,
    subjects: Iterable[tuple[uuid.UUID, Place]],
    *,
    delay: float = 0.0,
) -> None:
    """Ask for one task per subject, in the transaction that makes it necessary.

    A subject that has this task already is wanted once more: a row that failed or backs off
    becomes ready now, one that is being worked on becomes ready again when that ends.

    Args:
        name: of the task, such as ``charge``.
        subjects: each with the place its task runs in; the order does not matter.
        delay: seconds until the tasks become ready.
    """
    ids: list[uuid.UUID] = []
    places: list[int] = []
    numbers: dict[Place, int] = {}
    for subject, place in subjects:
        ids.append(subject)
        places.append(numbers.setdefault(place, len(numbers) + 1))
    if ids:
        parameters = {
            "name": name,
            "subjects": ids,
            "places": places,
            "queues": [place.queue for place in numbers],
            "lanes": [place.lane for place in numbers],
            "delay": delay,
        }
        tx.execute(_ENQUEUE, parameters)
