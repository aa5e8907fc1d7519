"""The task ledger: every step of work still to be done is a row, and this is its protocol.

            enqueue            dispatch           claim              finish
 (nothing) --------> ready --------> dispatched --------> leased --------> (gone)
                       ^  ^              |                  |  |
                       |  +-- rescue ----+                  |  +--> failed (a person decides)
                       +------ retry, lease lost, wanted ---+

A task is identified by its name and its subject; there is at most one of each. Messages carry
subjects only: losing one delays, repeating one is harmless, forging one does nothing.
All times in here are the database's. Dispatch and rescue are a relay's side: see ``dispatching``.
"""

import json
import uuid
from collections.abc import Iterable, Sequence
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
    """Tasks of one name, leased by one worker under one token until their lease ends."""

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

    def of(self, claim: Claim) -> "Outcome":
        """What of it is about the tasks of one claim."""
        mine = {task.subject for task in claim.tasks}
        return Outcome(
            done=[subject for subject in self.done if subject in mine],
            again=[subject for subject in self.again if subject in mine],
            retries=[retry for retry in self.retries if retry.subject in mine],
            failures=[failure for failure in self.failures if failure.subject in mine],
        )

    def __len__(self) -> int:
        return len(self.done) + len(self.again) + len(self.retries) + len(self.failures)


class LeaseLost(Exception):
    """Another worker holds these tasks by now: what was done must not be committed."""


_ENQUEUE = text("""
    WITH route AS (
        INSERT INTO routes (queue, name, lane)
        SELECT DISTINCT queue, :name, lane
        FROM json_to_recordset(CAST(:rows AS json)) AS r(queue text, lane text)
        ORDER BY queue, lane
        ON CONFLICT DO NOTHING
    )
    INSERT INTO tasks AS t (name, subject, queue, lane, run_at)
    SELECT :name, subject, queue, lane, clock_timestamp() + make_interval(secs => :delay)
    FROM json_to_recordset(CAST(:rows AS json)) AS r(subject uuid, queue text, lane text)
    ORDER BY subject
    ON CONFLICT (name, subject) DO UPDATE SET
        wanted = t.wanted + 1,
        queue = excluded.queue,
        lane = excluded.lane,
        attempts = 0,
        -- A claim skips what is locked, so a dispatched row's message may come to nothing while
        -- this transaction is open: it gets another one.
        state = CASE WHEN t.state = 'leased' THEN 'leased' ELSE 'ready' END,
        dispatches = 0,
        run_at = CASE t.state
            WHEN 'leased' THEN t.run_at
            WHEN 'failed' THEN excluded.run_at  -- waiting for a person is not waiting in a queue
            ELSE least(t.run_at, excluded.run_at) END,
        starts = CASE WHEN t.state = 'failed' THEN 0 ELSE t.starts END,
        reason = NULL, error = NULL
""")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task runs: its queue, and the lane it can be paused with."""

    queue: str
    lane: str


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
    rows = [
        {"subject": str(subject), "queue": place.queue, "lane": place.lane}
        for subject, place in subjects
    ]
    if rows:
        tx.execute(_ENQUEUE, {"name": name, "rows": json.dumps(rows), "delay": delay})


_CLAIM = text(f"""
    UPDATE tasks AS t SET
        state = 'leased', lease_token = :token, dispatches = 0, starts = t.starts + 1,
        lease_until = now() + make_interval(secs => :seconds)
    FROM (
        SELECT name, subject FROM tasks
        WHERE name = :name AND subject = ANY(:subjects) AND queue = :queue
          -- Written so that only the primary key will do: the index of what is dispatched is
          -- full of dead entries while an old snapshot is open.
          AND state || '' = 'dispatched' AND lane NOT IN (SELECT lane FROM lane_pauses)
          AND (lane NOT IN {GUARDED_LANES}
               OR NOT EXISTS (SELECT FROM heartbeat WHERE trusted_until < now()))
        ORDER BY subject
        FOR UPDATE SKIP LOCKED
    ) AS wanted
    WHERE t.name = wanted.name AND t.subject = wanted.subject
    RETURNING t.subject, t.wanted, t.attempts,
              extract(epoch FROM clock_timestamp() - t.run_at)::float8 AS waited
""")


def claim(
    tx: Connection, name: str, queue: str, subjects: Sequence[uuid.UUID], *, seconds: float
) -> Claim:
    """Lease those of ``subjects`` that still wait to be claimed; the caller commits.

    What cannot be claimed was done, is being done, or is in a lane that was paused meanwhile:
    this is the duplicate check.
    Subjects must be read in a *later statement*: READ COMMITTED would hand a statement that
    joins both the new task and the old subject.
    """
    token = uuid.uuid4()
    parameters = {
        "name": name,
        "queue": queue,
        "subjects": list(subjects),
        "token": token,
        "seconds": seconds,
    }
    rows = tx.execute(_CLAIM, parameters).all()
    tasks = tuple(sorted((ClaimedTask(*row) for row in rows), key=lambda task: task.subject))
    return Claim(name, queue, token, tasks)


# Whoever locks several tasks of a name locks them by subject, or not at all.
_MINE = """
    FROM (
        SELECT name, subject FROM tasks
        WHERE name = :name AND subject = ANY(:subjects)
          AND lease_token = :token AND state || '' = 'leased'
        ORDER BY subject FOR UPDATE {}
    ) AS mine
    WHERE t.name = mine.name AND t.subject = mine.subject
"""

_RENEW = text(
    "UPDATE tasks AS t SET lease_until = now() + make_interval(secs => :seconds)"
    + _MINE.format("SKIP LOCKED")
)


def renew(tx: Connection, claim: Claim, *, seconds: float) -> None:
    """Hold on to what is still being worked on."""
    tx.execute(
        _RENEW,
        {
            "name": claim.name,
            "subjects": claim.subjects,
            "token": claim.token,
            "seconds": seconds,
        },
    )


_HELD = text("""
    SELECT count(*) FROM tasks
    WHERE name = :name AND subject = ANY(:subjects)
      AND lease_token = :token AND state || '' = 'leased'
""")


def check_held(tx: Connection, claim: Claim) -> None:
    """Before anything leaves the house.

    Raises:
        LeaseLost: some of them are not ours any more.
    """
    parameters = {"name": claim.name, "subjects": claim.subjects, "token": claim.token}
    lost = len(claim.tasks) - tx.execute(_HELD, parameters).scalar_one()
    if lost:
        raise LeaseLost(f"{claim.name}: {lost} of {len(claim.tasks)} leases lost")


_DONE = text("""
    WITH locked AS (
        SELECT name, subject, wanted FROM tasks
        WHERE name = :name AND subject = ANY(:subjects)
          AND lease_token = :token AND state || '' = 'leased'
        ORDER BY subject FOR UPDATE
    ), mine AS (
        SELECT l.name, l.subject, l.wanted = r.wanted AS unchanged
        FROM locked AS l
        JOIN unnest(CAST(:subjects AS uuid[]), CAST(:wanted AS integer[])) AS r(subject, wanted)
        USING (subject)
    ), gone AS (
        DELETE FROM tasks AS t USING mine
        WHERE t.name = mine.name AND t.subject = mine.subject AND mine.unchanged
    ), back AS (
        UPDATE tasks AS t SET state = 'ready', run_at = now(), attempts = 0, starts = 0,
            lease_token = NULL, lease_until = NULL, reason = NULL, error = NULL
        FROM mine
        WHERE t.name = mine.name AND t.subject = mine.subject AND NOT mine.unchanged
    )
    SELECT count(*) FROM mine
""")

# Whoever ends tasks as failed tells the history: somebody has to look.
TELL_WHO_FAILED = """
    told AS (
        INSERT INTO events (subject, name, task, attempt, detail)
        SELECT subject, 'task.failed', name, attempts,
               jsonb_build_object('reason', reason, 'error', error)
        FROM ended WHERE state = 'failed'
    )
"""

# Backoff that was wanted meanwhile runs at once; a failure that was wanted meanwhile does not
# wait for a person.
_NOT_DONE = text(f"""
    WITH ended AS (
        UPDATE tasks AS t SET
            state = CASE WHEN r.failed AND t.wanted = r.wanted THEN 'failed' ELSE 'ready' END,
            run_at = CASE WHEN t.wanted = r.wanted
                     THEN now() + make_interval(secs => r.delay) ELSE now() END,
            attempts = CASE WHEN t.wanted = r.wanted THEN t.attempts + r.counts ELSE 0 END,
            starts = 0, lease_token = NULL, lease_until = NULL,
            reason = r.reason, error = left(r.error, 2000)
        FROM (
            SELECT name, subject FROM tasks
            WHERE name = :name AND subject = ANY(:subjects)
              AND lease_token = :token AND state || '' = 'leased'
            ORDER BY subject FOR UPDATE
        ) AS mine
        JOIN json_to_recordset(CAST(:rows AS json)) AS r(
            subject uuid, wanted integer, failed boolean, delay float8, counts integer,
            reason text, error text) USING (subject)
        WHERE t.name = mine.name AND t.subject = mine.subject
        RETURNING t.*
    ), {TELL_WHO_FAILED}
    SELECT count(*) FROM ended
""")


def finish(tx: Connection, claim: Claim, outcome: Outcome) -> None:
    """End tasks of a claim, in the transaction that holds their effect and their follow-ups.

    A task whose ``wanted`` has changed since the claim becomes ready again.

    Raises:
        LeaseLost: some of them are not ours any more; the caller rolls everything back.
    """
    wanted = {task.subject: task.wanted for task in claim.tasks}
    ended = 0
    if outcome.done:
        done = {
            "name": claim.name,
            "token": claim.token,
            "subjects": outcome.done,
            "wanted": [wanted[subject] for subject in outcome.done],
        }
        ended += tx.execute(_DONE, done).scalar_one()
    rest = [
        *((s, False, 0.0, 0, None, "") for s in outcome.again),
        *((r.subject, False, r.delay, int(r.counts), r.reason, r.error) for r in outcome.retries),
        *((f.subject, True, 0.0, 1, f.reason, f.error) for f in outcome.failures),
    ]
    if rest:
        names = ("subject", "failed", "delay", "counts", "reason", "error")
        rows = [
            {**dict(zip(names, row, strict=True)), "subject": str(row[0]), "wanted": wanted[row[0]]}
            for row in rest
        ]
        parameters = {
            "name": claim.name,
            "token": claim.token,
            "subjects": [row[0] for row in rest],
            "rows": json.dumps(rows),
        }
        ended += tx.execute(_NOT_DONE, parameters).scalar_one()
    if ended != len(outcome):
        raise LeaseLost(f"{claim.name}: {len(outcome) - ended} of {len(outcome)} leases lost")


_RELEASE = text(
    """
    UPDATE tasks AS t SET state = 'ready', starts = greatest(starts - 1, 0),
        run_at = now() + make_interval(secs => :delay),
        lease_token = NULL, lease_until = NULL, reason = :reason, error = left(:error, 2000)
    """
    + _MINE.format("")
)


def release(
    tx: Connection, claim: Claim, *, reason: str, error: str = "", delay: float = 0.0
) -> None:
    """Put tasks back as if they had never been started: nothing was wrong with them."""
    tx.execute(
        _RELEASE,
        {
            "name": claim.name,
            "subjects": claim.subjects,
            "token": claim.token,
            "reason": reason,
            "error": error,
            "delay": delay,
        },
    )


_ABANDON = text(
    """
    WITH ended AS (
    UPDATE tasks AS t SET
        state = CASE WHEN starts >= :max_starts THEN 'failed' ELSE 'ready' END,
        run_at = now() + make_interval(secs => starts),
        lease_token = NULL, lease_until = NULL, reason = :reason, error = left(:error, 2000)
    """
    + _MINE.format("")
    + f" RETURNING t.* ), {TELL_WHO_FAILED} SELECT count(*) FROM ended"
)


def abandon(tx: Connection, claim: Claim, *, reason: str, error: str) -> None:
    """Put tasks back whose start came to no end, through a fault that may be one subject's.

    They are dispatched alone from now on, so that it is found; after :data:`MAX_STARTS` it is
    failed.
    """
    tx.execute(
        _ABANDON,
        {
            "name": claim.name,
            "subjects": claim.subjects,
            "token": claim.token,
            "reason": reason,
            "error": error,
            "max_starts": MAX_STARTS,
        },
    )
