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
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, text

# Where money is taken and services end. After a gap nothing there is started before it was looked
# at (producers.guard).
GATEWAY_LANE = "gateway"
DESTRUCTIVE_LANE = "destructive"
RENEWAL_LANE = "renewals"  # payment requests are made and taken apart
GUARDED_LANES = (GATEWAY_LANE, DESTRUCTIVE_LANE, RENEWAL_LANE)

# Of the last lines that are kept beside a task that has failed.
MOST_LINES = 20

# A subject that ended its process this often, without ever finishing, is set aside.
MAX_STARTS = 5


@dataclass(frozen=True, slots=True)
class Claim:
    """Tasks of one name, leased by one worker under one token until their lease ends.

    Attributes:
        token: the id of their batch, which only its holder knows.
        lane: that they are in.
        is_probe: the lane is open, and this is the one task that goes out to look whether its far
            side answers again.
    """

    name: str
    queue: str
    token: uuid.UUID
    tasks: tuple["ClaimedTask", ...]
    lane: str = ""
    is_probe: bool = False

    def subset(self, subjects: Iterable[uuid.UUID]) -> "Claim":
        chosen = set(subjects)
        return replace(self, tasks=tuple(t for t in self.tasks if t.subject in chosen))

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
        code: the far side's own reason, beside ours.
        lines: what was logged about this attempt, to be kept beside the task.
    """

    subject: uuid.UUID
    reason: str
    error: str = ""
    delay: float = 0.0
    counts: bool = True
    jitter: bool = False
    code: str | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task waits for a person now; ``code`` and ``lines`` as of :class:`Retry`."""

    subject: uuid.UUID
    reason: str
    error: str = ""
    code: str | None = None
    lines: tuple[str, ...] = ()


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


# The channel of NOTIFY: the ids of new batches, or nothing if those are too many to name.
CHANNEL = "ledger"

# A function of the database: it checks that the role may ask for this step on this queue (table
# enqueuers), and writes what the role itself may not. A new version of it is a migration.
_ENQUEUE = text("SELECT enqueue_tasks(:name, :subjects, :places, :queues, :lanes, :delay)")


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


# Locked in the order in which an enqueue locks them. What the rescue set aside as crashed has not
# been told since when it fails.
_RETRY = text("""
    WITH held AS MATERIALIZED (
        SELECT subject FROM tasks
        WHERE name = :name AND subject = ANY(:subjects) AND state = 'failed'
        ORDER BY subject FOR UPDATE
    ), tried AS (
        UPDATE tasks AS t SET state = 'ready', batched = false, wanted = t.wanted + 1, attempts = 0,
            starts = 0, run_at = clock_timestamp(), reason = NULL, code = NULL, error = NULL,
            first_failed_at = coalesce(t.first_failed_at, t.run_at)
        WHERE t.name = :name AND t.subject = ANY(ARRAY(SELECT subject FROM held))
        RETURNING t.subject
    )
    SELECT array_agg(subject ORDER BY subject), pg_notify(:channel, '') FROM tried
""")


def retry(tx: Connection, name: str, subjects: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Have failed tasks done after all, from their first attempt.

    Returns:
        Those that had failed still.
    """
    parameters = {"name": name, "subjects": list(subjects), "channel": CHANNEL}
    return list(tx.execute(_RETRY, parameters).one()[0] or [])


# It is in no batch, so nobody has it in hand. Its attempts and its last error stay.
_RUN_NOW = text("""
    WITH held AS MATERIALIZED (
        SELECT subject FROM tasks
        WHERE name = :name AND subject = ANY(:subjects) AND state = 'ready' AND NOT batched
          AND run_at > clock_timestamp()
        ORDER BY subject FOR UPDATE
    ), due AS (
        UPDATE tasks AS t SET run_at = clock_timestamp()
        WHERE t.name = :name AND t.subject = ANY(ARRAY(SELECT subject FROM held))
        RETURNING t.subject
    )
    SELECT array_agg(subject ORDER BY subject), pg_notify(:channel, '') FROM due
""")


def run_now(tx: Connection, name: str, subjects: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """End the waiting of tasks that back off, or wait for their time.

    Returns:
        Those that did.
    """
    parameters = {"name": name, "subjects": list(subjects), "channel": CHANNEL}
    return list(tx.execute(_RUN_NOW, parameters).one()[0] or [])


_SEND_AGAIN = text("""
    UPDATE batches SET until = now()
    WHERE id = ANY(:batches) AND state = 'dispatched' AND until > now()
    RETURNING id
""")


def send_again(tx: Connection, batches: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Have the next rescue send the messages of dispatched batches again; one that arrives twice
    does nothing.

    Returns:
        Those that nobody had claimed meanwhile.
    """
    return list(tx.execute(_SEND_AGAIN, {"batches": list(batches)}).scalars())
