"""A worker's side of the ledger: lease a batch, and say how its tasks ended."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from producers.ledger.tasks import (
    GUARDED_LANES,
    MAX_STARTS,
    MOST_LINES,
    Claim,
    ClaimedTask,
    LeaseLost,
    Outcome,
)
from schemas.tables.bulk import Bulk

# The new id is the lease token: a message claims once, and nobody else can name the batch.
# Tasks come and go, so what a plan was made for says nothing of how many there are when it is
# used, and a join may read them all. Here and below they are found by an array of their subjects,
# which an index looks up one by one, whatever is planned.
_CLAIM = text(f"""
    WITH held AS (
        UPDATE batches SET id = :token, state = 'leased', dispatches = 0,
            until = now() + make_interval(secs => :seconds)
        WHERE id = ANY(ARRAY(
            -- IS TRUE: by the key alone, and not by an index of all that is dispatched.
            SELECT id FROM batches
            WHERE id = ANY(:batches) AND name = :name AND (queue = :queue) IS TRUE
              AND (state = 'dispatched') IS TRUE
              AND lane NOT IN (SELECT lane FROM lane_pauses)
              -- Of a lane that is open, its probe alone.
              AND NOT EXISTS (SELECT FROM lane_breakers AS o
                  WHERE o.lane = batches.lane AND o.probe IS DISTINCT FROM batches.id)
              AND (lane NOT IN {GUARDED_LANES}
                   OR NOT EXISTS (SELECT FROM heartbeat WHERE trusted_until < now()))
            LIMIT 1 FOR UPDATE SKIP LOCKED))
        -- It need not reach the disk: whoever commits an effect later takes it there. After a crash
        -- in between the batch is dispatched still, and this token is worth nothing.
        RETURNING subjects, lane,
            EXISTS (SELECT FROM lane_breakers AS o WHERE o.lane = batches.lane) AS is_probe,
            set_config('synchronous_commit', 'off', true)
    )
    SELECT t.subject, t.wanted, t.attempts,
           extract(epoch FROM clock_timestamp() - t.run_at)::float8 AS waited,
           held.lane, held.is_probe
    FROM held CROSS JOIN LATERAL unnest(held.subjects) AS s(subject)
    -- One by one, by the key: a join was planned as a product of all tasks of the name with the
    -- batch while the table had no statistics yet.
    CROSS JOIN LATERAL (
        SELECT subject, wanted, attempts, run_at FROM tasks
        WHERE name = :name AND subject = s.subject LIMIT 1
    ) AS t
    ORDER BY t.subject
""")


def claim(
    tx: Connection, name: str, queue: str, batches: Sequence[uuid.UUID], *, seconds: float
) -> Claim:
    """Lease the tasks of the batch that a message names; the caller commits, or is in autocommit.

    A batch that cannot be claimed was claimed before, was dispatched anew, or is in a lane that
    was paused or opened meanwhile: this is the duplicate check.
    Subjects must be read in a *later statement*: READ COMMITTED would hand a statement that
    joins both the new task and the old subject.

    Args:
        batches: what the message carries, one id.
    """
    token = uuid.uuid4()
    parameters = {
        "name": name,
        "queue": queue,
        "batches": list(batches),
        "token": token,
        "seconds": seconds,
    }
    rows = tx.execute(_CLAIM, parameters).all()
    tasks = tuple(ClaimedTask(*row[:4]) for row in rows)
    lane, is_probe = rows[0][4:] if rows else ("", False)
    return Claim(name, queue, token, tasks, lane, is_probe)


_RENEW = text("""
    UPDATE batches SET until = now() + make_interval(secs => :seconds)
    WHERE id = ANY(ARRAY(
        SELECT id FROM batches WHERE id = ANY(:tokens) AND state = 'leased'
        FOR UPDATE SKIP LOCKED))
    RETURNING id
""")
_LEASED = text("SELECT id FROM batches WHERE id = ANY(:tokens) AND state = 'leased'")


@dataclass(frozen=True, slots=True)
class Renewal:
    """What became of leases that were to be renewed, by their tokens.

    Attributes:
        lost: not ours any more. What is in neither set is ours, and its row was locked: it may be
            renewed another time.
    """

    renewed: frozenset[uuid.UUID]
    lost: frozenset[uuid.UUID]


def renew(tx: Connection, tokens: Iterable[uuid.UUID], *, seconds: float) -> Renewal:
    """Hold on to what is still being worked on; waits for nobody."""
    wanted = frozenset(tokens)
    parameters = {"tokens": list(wanted), "seconds": seconds}
    renewed = frozenset(tx.execute(_RENEW, parameters).scalars())
    missed = wanted - renewed
    if not missed:
        return Renewal(renewed, missed)
    return Renewal(
        renewed, missed.difference(tx.execute(_LEASED, {"tokens": list(missed)}).scalars())
    )


_HELD = text("SELECT subjects FROM batches WHERE id = :token AND state = 'leased'")


def check_held(tx: Connection, claim: Claim) -> None:
    """Before anything leaves the house.

    Raises:
        LeaseLost: some of them are not ours any more.
    """
    held = tx.execute(_HELD, {"token": claim.token}).scalar() or []
    lost = len(set(claim.subjects).difference(held))
    if lost:
        raise LeaseLost(f"{claim.name}: {lost} of {len(claim.tasks)} leases lost")


_DELETE_WHOLE = text("""
    DELETE FROM batches WHERE id = :token AND state = 'leased' AND subjects = :subjects
""")
_HOLD = text("SELECT subjects FROM batches WHERE id = :token AND state = 'leased' FOR UPDATE")
_DELETE = text("DELETE FROM batches WHERE id = :token")
_KEEP = text("UPDATE batches SET subjects = :left, size = :size WHERE id = :token")


def _take_out(tx: Connection, claim: Claim, subjects: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Take subjects out of the claim's batch, which ends with its last one.

    Returns:
        Those that were in it, sorted: whoever locks several tasks of a name locks them by subject.
    """
    wanted = sorted(subjects)
    parameters = {"token": claim.token, "subjects": wanted}
    if tx.execute(_DELETE_WHOLE, parameters).rowcount:
        return wanted
    held = tx.execute(_HOLD, {"token": claim.token}).scalar() or []
    chosen = set(held).intersection(wanted)
    left = [subject for subject in held if subject not in chosen]
    if left:
        tx.execute(_KEEP, {"token": claim.token, "left": left, "size": len(left)})
    else:
        tx.execute(_DELETE, {"token": claim.token})
    return sorted(chosen)


# The batch goes with its last tasks; those of another one have been taken out of it (``taken``).
_DONE = text("""
    WITH batch AS (
        DELETE FROM batches
        WHERE id = :token AND (state = 'leased') IS TRUE AND subjects = :subjects
        RETURNING id
    ), locked AS MATERIALIZED (
        SELECT subject, wanted FROM tasks
        WHERE (:taken OR EXISTS (SELECT FROM batch)) AND name = :name AND subject = ANY(:subjects)
        ORDER BY subject FOR UPDATE
    ), seen AS MATERIALIZED (
        SELECT l.subject, l.wanted = r.wanted AS is_unchanged
        FROM locked AS l JOIN unnest(CAST(:subjects AS uuid[]), CAST(:wanted AS integer[]))
            AS r(subject, wanted) USING (subject)
    ), gone AS (
        DELETE FROM tasks AS t WHERE t.name = :name
            AND t.subject = ANY(ARRAY(SELECT subject FROM seen WHERE is_unchanged))
    ), back AS (
        UPDATE tasks AS t SET batched = false, run_at = now(), attempts = 0, starts = 0,
            reason = NULL, code = NULL, error = NULL, lines = NULL, first_failed_at = NULL,
            total_attempts = 0
        WHERE t.name = :name
            AND t.subject = ANY(ARRAY(SELECT subject FROM seen WHERE NOT is_unchanged))
    )
    SELECT count(*) FROM seen
""")

# A statement that ends tasks as failed writes that into the history: a person has to look.
TELL_WHO_FAILED = """
    told AS (
        INSERT INTO events (subject, name, task, attempt, detail)
        SELECT subject, 'task.failed', name, attempts,
               jsonb_strip_nulls(
                   jsonb_build_object('reason', reason, 'code', code, 'error', error))
        FROM ended WHERE state = 'failed'
    )
"""


@dataclass(frozen=True, slots=True)
class _NotDone:
    subject: uuid.UUID
    wanted: int
    failed: bool
    delay: float
    counts: int
    reason: str | None
    code: str | None
    error: str
    lines: tuple[str, ...] | None = None


# Backoff that was wanted meanwhile runs at once; a failure that was wanted meanwhile does not
# wait for a person.
_NOT_DONE = Bulk(
    _NotDone,
    f"""
    WITH ended AS (
        UPDATE tasks AS t SET
            batched = false,
            state = CASE WHEN r.failed AND t.wanted = r.wanted THEN 'failed' ELSE 'ready' END,
            run_at = CASE WHEN t.wanted = r.wanted
                     THEN now() + make_interval(secs => r.delay) ELSE now() END,
            attempts = CASE WHEN t.wanted = r.wanted THEN t.attempts + r.counts ELSE 0 END,
            total_attempts = t.total_attempts + r.counts,
            first_failed_at = CASE WHEN r.reason IS NULL THEN t.first_failed_at
                ELSE coalesce(t.first_failed_at, now()) END,
            starts = 0, reason = r.reason, code = left(r.code, 200), error = left(r.error, 2000),
            lines = CASE WHEN r.lines IS NULL THEN t.lines ELSE
                (coalesce(t.lines, '{{}}') || r.lines)[
                    cardinality(coalesce(t.lines, '{{}}') || r.lines) - {MOST_LINES - 1}:] END
        FROM json_to_recordset(CAST(:rows AS json)) AS r(
            subject uuid, wanted integer, failed boolean, delay float8, counts integer,
            reason text, code text, error text, lines text[])
        WHERE t.subject = r.subject AND t.name = :name AND t.subject = ANY(ARRAY(
            SELECT subject FROM tasks WHERE name = :name AND subject = ANY(:subjects)
            ORDER BY subject FOR UPDATE))
        RETURNING t.name, t.subject, t.state, t.attempts, t.reason, t.code, t.error
    ), {TELL_WHO_FAILED}
    SELECT count(*) FROM ended
    """,
)


_LOCK = text("""
    SELECT FROM tasks WHERE name = :name AND subject = ANY(:subjects) ORDER BY subject FOR UPDATE
""")


def finish(tx: Connection, claim: Claim, outcome: Outcome) -> None:
    """End tasks of a claim, in the transaction that holds their effect and their follow-ups.

    A task whose ``wanted`` has changed since the claim becomes ready again.

    Raises:
        LeaseLost: some of them are not ours any more; the caller rolls everything back.
    """
    finish_together(tx, [claim], outcome)


def finish_together(tx: Connection, claims: Sequence[Claim], outcome: Outcome) -> None:
    """The same for tasks of several claims of one name.

    All batches are locked before all tasks, both sorted, so that whoever locks some of the same
    waits and does not deadlock: a rescue, an enqueue, another who finishes.
    """
    name = claims[0].name
    wanted = {task.subject: task.wanted for claim in claims for task in claim.tasks}
    rest = [
        *(_NotDone(s, wanted[s], False, 0.0, 0, None, None, "") for s in outcome.again),
        *(
            _NotDone(
                r.subject,
                wanted[r.subject],
                False,
                r.delay,
                int(r.counts),
                r.reason,
                r.code,
                r.error,
                r.lines or None,
            )
            for r in outcome.retries
        ),
        *(
            _NotDone(
                f.subject,
                wanted[f.subject],
                True,
                0.0,
                1,
                f.reason,
                f.code,
                f.error,
                f.lines or None,
            )
            for f in outcome.failures
        ),
    ]
    done = {
        "name": name,
        "subjects": sorted(outcome.done),
        "wanted": [wanted[subject] for subject in sorted(outcome.done)],
        "token": claims[0].token,
    }
    if len(claims) == 1 and not rest:
        ended = tx.execute(_DONE, done | {"taken": False}).scalar_one()
        if ended == len(outcome):
            return
    ending = {*outcome.done, *(row.subject for row in rest)}
    for claim in sorted(claims, key=lambda claim: claim.token):
        mine = ending.intersection(claim.subjects)
        lost = len(mine) - len(_take_out(tx, claim, list(mine)))
        if lost:
            raise LeaseLost(f"{name}: {lost} of {len(mine)} leases lost")
    if outcome.done and rest:
        tx.execute(_LOCK, {"name": name, "subjects": list(ending)})
    ended = 0
    if outcome.done:
        ended += tx.execute(_DONE, done | {"taken": True}).scalar_one()
    if rest:
        subjects = [row.subject for row in rest]
        ended += _NOT_DONE(tx, rest, name=name, subjects=subjects).scalar_one()
    if ended != len(outcome):
        raise LeaseLost(f"{name}: {len(outcome) - ended} of {len(outcome)} leases lost")


_RELEASE = text("""
    UPDATE tasks AS t SET batched = false, run_at = now() + make_interval(secs => :delay),
        reason = :reason, code = NULL, error = left(:error, 2000)
    WHERE t.name = :name AND t.subject = ANY(ARRAY(
        SELECT subject FROM tasks WHERE name = :name AND subject = ANY(:subjects)
        ORDER BY subject FOR UPDATE))
""")


def release(
    tx: Connection, claim: Claim, *, reason: str, error: str = "", delay: float = 0.0
) -> None:
    """Put tasks back as if they had never been started: nothing was wrong with them.

    What of the claim has come to an end already stays as it is.
    """
    parameters = {"reason": reason, "error": error, "delay": delay}
    subjects = _take_out(tx, claim, claim.subjects)
    tx.execute(_RELEASE, {"name": claim.name, "subjects": subjects, **parameters})


_ABANDON = text(f"""
    WITH ended AS (
        UPDATE tasks AS t SET batched = false, starts = t.starts + 1,
            first_failed_at = coalesce(t.first_failed_at, now()),
            state = CASE WHEN t.starts + 1 >= :max_starts THEN 'failed' ELSE 'ready' END,
            run_at = now() + make_interval(secs => t.starts + 1),
            reason = :reason, code = NULL, error = left(:error, 2000)
        WHERE t.name = :name AND t.subject = ANY(ARRAY(
            SELECT subject FROM tasks WHERE name = :name AND subject = ANY(:subjects)
            ORDER BY subject FOR UPDATE))
        RETURNING t.name, t.subject, t.state, t.attempts, t.reason, t.code, t.error
    ), {TELL_WHO_FAILED}
    SELECT count(*) FILTER (WHERE state = 'failed') FROM ended
""")


def abandon(tx: Connection, claim: Claim, *, reason: str, error: str) -> int:
    """Put tasks back whose start came to no end, through a fault that may be one subject's.

    They are dispatched alone from now on, so that it is found; after :data:`MAX_STARTS` it is
    failed.

    Returns:
        How many are failed now.
    """
    parameters = {"reason": reason, "error": error, "max_starts": MAX_STARTS}
    subjects = _take_out(tx, claim, claim.subjects)
    failed = tx.execute(_ABANDON, {"name": claim.name, "subjects": subjects, **parameters})
    return int(failed.scalar_one())
