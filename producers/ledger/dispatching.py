"""A relay's side of the ledger: which tasks go out next, and which come back.

What is ready is dispatched lane by lane, fairly, at most so much of a queue as its cap; what is
dispatched and not claimed, or leased and not finished, in time is made ready again.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from producers.ledger.claims import TELL_WHO_FAILED
from producers.ledger.composing import SUSPECT_FROM_STARTS, Part, Ready, compose
from producers.ledger.tasks import MAX_STARTS
from schemas import locks
from schemas.locks import Lock
from schemas.tables.bulk import Bulk

# In one statement: tasks that are gathered, and batches of either kind that are rescued.
MOST_GATHERED = 5000
MOST_RESCUED = 1000

_RESCUE_DISPATCHED = text("""
    WITH rescued AS (
        UPDATE batches SET state = 'ready' WHERE id = ANY(ARRAY(
            SELECT id FROM batches WHERE state = 'dispatched' AND until < now()
            ORDER BY until LIMIT :limit FOR UPDATE SKIP LOCKED))
        RETURNING size
    )
    SELECT coalesce(sum(size), 0) FROM rescued
""")

_LOST = text("""
    DELETE FROM batches WHERE id = ANY(ARRAY(
        SELECT id FROM batches WHERE state = 'leased' AND until < now()
        ORDER BY until LIMIT :limit FOR UPDATE SKIP LOCKED))
    RETURNING name, subjects
""")

_RESCUE_LEASED = text(f"""
    WITH ended AS (
        UPDATE tasks AS t SET
            batched = false,
            starts = t.starts + 1,
            state = CASE WHEN t.starts + 1 >= :max_starts THEN 'failed' ELSE 'ready' END,
            reason = CASE WHEN t.starts + 1 >= :max_starts THEN 'crashed' ELSE 'lease_lost' END,
            code = NULL,
            -- Spread, so that who ran beside a subject that kills its process does so only once.
            run_at = now() + make_interval(secs => random() * 2 ^ (t.starts + 1))
        WHERE t.name = :name AND t.subject = ANY(ARRAY(
            SELECT subject FROM tasks WHERE name = :name AND subject = ANY(:subjects)
            ORDER BY subject FOR UPDATE))
        RETURNING t.name, t.subject, t.state, t.attempts, t.reason, t.code, t.error
    ), lost AS (
        INSERT INTO events (subject, name, task)
        SELECT subject, 'task.lease_lost', name FROM ended WHERE state = 'ready'
    ), {TELL_WHO_FAILED}
    SELECT count(*) FROM ended
""")


# A probe that comes to nothing, such as with the process that had it, is followed by another.
PROBE_SECONDS = 30.0
# The database's clock was set back, or a server whose clock is behind took over: nothing waits
# until it has caught up. What was left of a burst counts; a lane that seems to have opened in the
# future is tried as often as probes that come to nothing.
_SET_BACK = (
    text("UPDATE lane_limits SET filled_at = now() WHERE filled_at > clock_timestamp()"),
    text("""
        UPDATE lane_breakers SET probe_at = now() + make_interval(secs => :probe)
        WHERE opened_at > clock_timestamp() AND probe_at > now() + make_interval(secs => :probe)
    """),
)


def rescue(tx: Connection, *, limit: int = MOST_RESCUED) -> tuple[int, int]:
    """Make ready again what was dispatched and not claimed, and what lost its lease; let lanes go
    on that wait for a time which a clock that was set back has put far away.

    A subject whose process died :data:`MAX_STARTS` times is failed as ``crashed`` instead.

    Args:
        limit: most batches of either kind.

    Returns:
        How many tasks were rescued: from ``dispatched``, and from ``leased``.
    """
    for statement in _SET_BACK:
        tx.execute(statement, {"probe": PROBE_SECONDS})
    dispatched = tx.execute(_RESCUE_DISPATCHED, {"limit": limit}).scalar_one()
    lost: dict[str, list[uuid.UUID]] = {}
    for name, subjects in tx.execute(_LOST, {"limit": limit}):
        lost.setdefault(name, []).extend(subjects)
    leased = 0
    for name in sorted(lost):
        parameters = {"name": name, "subjects": lost[name], "max_starts": MAX_STARTS}
        leased += tx.execute(_RESCUE_LEASED, parameters).scalar_one()
    return dispatched, leased


# Whose time has come is put into batches; whose start came to no end is alone in its own.
# They are named by where they stand, since they are held: a join with them may read all tasks,
# whatever it was planned for. One that was changed meanwhile is left for the next time.
_GATHER = text("""
    WITH gathered AS (
        UPDATE tasks AS t SET batched = true
        WHERE t.ctid = ANY(ARRAY(
            SELECT d.ctid FROM tasks AS d
            WHERE d.state = 'ready' AND NOT d.batched AND d.run_at <= now()
              AND d.run_at > now() - make_interval(secs => :horizon)
            ORDER BY d.run_at LIMIT :gather FOR UPDATE SKIP LOCKED))
        RETURNING t.queue, t.name, t.lane, t.subject, t.run_at, t.starts
    )
    INSERT INTO batches (id, queue, name, lane, subjects, size, run_at, starts)
    SELECT gen_random_uuid(), queue, name, lane, array_agg(subject ORDER BY subject), count(*),
        min(run_at), starts
    FROM gathered
    GROUP BY queue, name, lane, starts, CASE WHEN starts > 0 THEN subject END
""")

_READY = text("""
    WITH standing AS (
        SELECT lane FROM lane_pauses UNION SELECT lane FROM lane_breakers
    ), queues AS (
        SELECT q.queue, h.has_suspect,
            CASE WHEN h.waiting * 2 <= :cap THEN :cap - h.waiting ELSE 0 END AS room
        FROM (SELECT DISTINCT queue FROM routes) AS q
        CROSS JOIN LATERAL (
            -- Nobody claims what was dispatched before its lane was paused or opened: it takes no
            -- room from other lanes, and holds up no suspect.
            SELECT coalesce(sum(b.size) FILTER (
                    WHERE b.state = 'dispatched' AND b.until > now() AND s.lane IS NULL
                ), 0) AS waiting,
                coalesce(bool_or(b.starts >= :suspect) FILTER (
                    WHERE b.state = 'leased' OR s.lane IS NULL
                ), false) AS has_suspect
            FROM batches AS b LEFT JOIN standing AS s ON s.lane = b.lane
            WHERE b.state IN ('dispatched', 'leased') AND b.queue = q.queue
              -- What ended long ago is not read, whoever holds an old snapshot; what has just lost
              -- its lease is a suspect until it is rescued.
              AND b.until > now() - interval '1 minute'
        ) AS h
    )
    SELECT r.queue, r.name, r.lane, b.id, b.size, b.starts, q.room, q.has_suspect,
        x.room AS lane_room, false AS is_probe,
        extract(epoch FROM now() - b.run_at)::float8 AS waited, b.run_at
    FROM routes AS r
    JOIN queues AS q ON q.queue = r.queue AND q.room > 0
    LEFT JOIN LATERAL (
        SELECT greatest(0, least(
            l.at_once - (
                SELECT coalesce(sum(h.size), 0) FROM batches AS h WHERE h.lane = l.lane
                  AND (h.state = 'leased' OR h.state = 'dispatched' AND h.until > now())),
            floor(least(l.burst,
                l.tokens + l.per_second * extract(epoch FROM greatest(now() - l.filled_at, '0'))))
        ))::integer AS room
        FROM lane_limits AS l WHERE l.lane = r.lane
    ) AS x ON true
    CROSS JOIN LATERAL (
        SELECT id, size, starts, run_at FROM batches AS b
        WHERE b.state = 'ready' AND b.queue = r.queue AND b.name = r.name AND b.lane = r.lane
          AND b.run_at <= now() AND b.run_at > now() - make_interval(secs => :horizon)
          AND (b.until IS NULL OR b.until <= now())
        ORDER BY b.run_at LIMIT least(q.room, x.room)
    ) AS b
    WHERE NOT EXISTS (SELECT FROM lane_pauses AS p WHERE p.lane = r.lane)
      AND NOT EXISTS (SELECT FROM lane_breakers AS o WHERE o.lane = r.lane)
    UNION ALL
    -- Of each lane that is open, one task once in a while, and not the same one again; of any of
    -- its queues and steps, since nobody may be at work on one of them.
    SELECT b.queue, b.name, b.lane, b.id, b.size, b.starts, 1, false, 1, true,
        extract(epoch FROM now() - b.run_at)::float8, b.run_at
    FROM lane_breakers AS o CROSS JOIN LATERAL (
        SELECT first.* FROM routes AS r CROSS JOIN LATERAL (
            SELECT b.* FROM batches AS b
            WHERE b.state = 'ready' AND b.queue = r.queue AND b.name = r.name AND b.lane = r.lane
              AND b.run_at <= now() AND (b.until IS NULL OR b.until <= now())
            ORDER BY b.starts, b.run_at LIMIT 1
        ) AS first
        WHERE r.lane = o.lane ORDER BY first.starts, random() LIMIT 1
    ) AS b
    WHERE o.probe_at <= now() AND NOT EXISTS (SELECT FROM lane_pauses AS p WHERE p.lane = o.lane)
    ORDER BY queue, name, lane, run_at
""")
_PROBING = (
    text("""
        UPDATE lane_breakers SET probe = :id, probe_at = now() + make_interval(secs => :seconds)
        WHERE lane = :lane
    """),
    # However often it was dispatched before: perhaps there is no other task to try.
    text("UPDATE batches SET until = now() + make_interval(secs => :seconds) WHERE id = :id"),
)

_TAKE_TOKENS = text("""
    UPDATE lane_limits SET filled_at = now(), tokens = least(burst,
        tokens + per_second * extract(epoch FROM greatest(now() - filled_at, '0'))) - :tasks
    WHERE lane = :lane AND per_second IS NOT NULL
""")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Subjects of a batch that is cut.

    Attributes:
        id: of the batch they go into.
        first, last: their places in the batch that is cut, from 1.
        joined: the batch they go into has subjects of others, too.
    """

    id: uuid.UUID
    state: str
    batch: uuid.UUID
    first: int
    last: int
    joined: bool = False


_SEND = text("""
    UPDATE batches SET state = 'dispatched', dispatches = least(dispatches + 1, 100),
        until = now() + make_interval(secs => least(:rescue * 2 ^ least(dispatches, 10), 3600))
    WHERE id = ANY(:ids)
""")

_RECUT = Bulk(
    _Piece,
    """
    WITH pieces AS (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id uuid, state text, batch uuid, first integer, last integer, joined boolean)
    ), cut AS (
        DELETE FROM batches WHERE id = ANY(ARRAY(SELECT batch FROM pieces)) RETURNING *
    ), formed AS (
        -- Subjects of a batch are in order already. A large one is cut again and again.
        SELECT p.id, p.state, c.queue, c.name, c.lane, c.subjects[p.first:p.last] AS subjects,
            p.last - p.first + 1 AS size, c.run_at, c.starts, c.dispatches
        FROM pieces AS p JOIN cut AS c ON c.id = p.batch WHERE NOT p.joined
        UNION ALL
        SELECT p.id, p.state, c.queue, c.name, c.lane, array_agg(s.subject ORDER BY s.subject),
            count(*), min(c.run_at), max(c.starts), max(c.dispatches)
        FROM pieces AS p JOIN cut AS c ON c.id = p.batch
        CROSS JOIN LATERAL unnest(c.subjects[p.first:p.last]) AS s(subject)
        WHERE p.joined
        GROUP BY p.id, p.state, c.queue, c.name, c.lane
    )
    INSERT INTO batches (id, queue, name, lane, subjects, size, state, run_at, starts, dispatches,
        until)
    SELECT f.id, f.queue, f.name, f.lane, f.subjects, f.size, f.state, f.run_at, f.starts,
        CASE f.state WHEN 'ready' THEN f.dispatches ELSE least(f.dispatches + 1, 100) END,
        CASE f.state WHEN 'dispatched' THEN
            now() + make_interval(secs => least(:rescue * 2 ^ least(f.dispatches, 10), 3600))
        END
    FROM formed AS f
    """,
)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One message to be: a batch of tasks of the same queue, name and lane.

    Attributes:
        waited: seconds since the first of them was ready.
        fills_queue: whether its queue has no more room, so that there may be more of it.
    """

    queue: str
    name: str
    lane: str
    batch: uuid.UUID
    size: int
    waited: float = 0.0
    fills_queue: bool = False


def dispatch(
    tx: Connection,
    *,
    batch: Callable[[str], int],
    cap: int,
    rescue_seconds: float,
    horizon: float = 1e9,
    gather: int = MOST_GATHERED,
) -> list[Dispatch]:
    """Take what is ready, lane by lane, and mark it dispatched; commit *before* publishing.

    Args:
        batch: most tasks in one message, by the task's name.
        cap: most tasks of a queue that may be dispatched and not yet claimed. Filled up again
            when half of it is gone, so that messages are large when work is plenty.
        rescue_seconds: how soon an unclaimed task is ready again; doubles each time.
        horizon: look only at tasks that became ready so many seconds ago or later. Keeps a
            poll cheap while an old snapshot makes dead index entries pile up.
        gather: most tasks whose time has come that are put into batches.
    """
    # One relay at a time counts what is dispatched, so that the cap is the fleet's, not each's.
    # Nor need it reach the disk: after a crash of the database it is dispatched again.
    locks.take(tx, Lock.DISPATCH)
    tx.execute(_NEED_NOT_REACH_THE_DISK)
    tx.execute(_GATHER, {"horizon": horizon, "gather": gather})
    rows = tx.execute(_READY, {"cap": cap, "suspect": SUSPECT_FROM_STARTS, "horizon": horizon})
    found = [Ready(*row[:-1]) for row in rows.all()]
    ready = [one for one in found if not one.is_probe]
    messages = compose(ready, batch)
    probes = [one for one in found if one.is_probe]
    messages += [[Part(probe, 1, 1)] for probe in probes]
    limited = {one.lane for one in ready if one.lane_room is not None}
    if not messages:
        return []
    whole = [parts[0].batch.id for parts in messages if len(parts) == 1 and parts[0].is_whole]
    if whole:
        tx.execute(_SEND, {"ids": whole, "rescue": rescue_seconds})
    names = [
        parts[0].batch.id if len(parts) == 1 and parts[0].is_whole else uuid.uuid4()
        for parts in messages
    ]
    pieces = [
        _Piece(name, "dispatched", part.batch.id, part.first, part.last, len(parts) > 1)
        for name, parts in zip(names, messages, strict=True)
        for part in parts
        if name != part.batch.id
    ]
    if pieces:
        _RECUT(tx, pieces + _left_over(messages), rescue=rescue_seconds)
    for lane in limited:
        going = sum(part.size for parts in messages for part in parts if part.batch.lane == lane)
        tx.execute(_TAKE_TOKENS, {"lane": lane, "tasks": going})
    for name, parts in list(zip(names, messages, strict=True))[len(messages) - len(probes) :]:
        probing = {"id": name, "lane": parts[0].batch.lane, "seconds": PROBE_SECONDS}
        for statement in _PROBING:
            tx.execute(statement, probing)
    taken: Counter[str] = Counter()
    for parts in messages:
        taken[parts[0].batch.queue] += sum(part.size for part in parts)
    return [
        Dispatch(
            parts[0].batch.queue, parts[0].batch.name, parts[0].batch.lane, name,
            sum(part.size for part in parts), max(part.batch.waited for part in parts),
            taken[parts[0].batch.queue] >= parts[0].batch.room,
        )
        for name, parts in zip(names, messages, strict=True)
    ]  # fmt: skip


# What no lane, cap or size stands in the way of. Relays that are woken together do not count
# together: the cap may be passed by what each was woken for.
_DISPATCH_NEW = text("""
    UPDATE batches SET state = 'dispatched', dispatches = 1,
        until = now() + make_interval(secs => :rescue)
    WHERE id = ANY(ARRAY(
        SELECT b.id FROM batches AS b
        -- IS TRUE: by the key alone, and not by an index of all that is ready.
        WHERE b.id = ANY(:ids) AND (b.state = 'ready') IS TRUE AND b.until IS NULL
          AND b.starts = 0 AND b.size <= :most
          AND NOT EXISTS (SELECT FROM lane_pauses AS p WHERE p.lane = b.lane)
          AND NOT EXISTS (SELECT FROM lane_breakers AS o WHERE o.lane = b.lane)
          AND NOT EXISTS (SELECT FROM lane_limits AS l WHERE l.lane = b.lane)
          AND :cap > (
              SELECT coalesce(sum(h.size), 0) * 2 FROM batches AS h
              WHERE h.state = 'dispatched' AND h.queue = b.queue AND h.until > now())
        FOR UPDATE OF b SKIP LOCKED))
    RETURNING queue, name, lane, id, size, set_config('synchronous_commit', 'off', true)
""")


def dispatch_new(
    tx: Connection, ids: Sequence[uuid.UUID], *, most: int, cap: int, rescue_seconds: float
) -> list[Dispatch]:
    """Take batches that were just enqueued, in one statement: the short way of an idle fleet.

    What it leaves, such as batches of a lane that is paused, open or limited, waits for
    :func:`dispatch`.

    Args:
        most: tasks in one message, whatever their name.
        cap, rescue_seconds: as in :func:`dispatch`.
    """
    parameters = {"ids": list(ids), "most": most, "cap": cap, "rescue": rescue_seconds}
    rows = tx.execute(_DISPATCH_NEW, parameters).all()
    return [Dispatch(row.queue, row.name, row.lane, row.id, row.size) for row in rows]


_NEED_NOT_REACH_THE_DISK = text("SET LOCAL synchronous_commit = off")


def _left_over(messages: Sequence[Sequence[Part]]) -> list[_Piece]:
    """What of a batch that is cut does not go out."""
    last: dict[uuid.UUID, Part] = {}
    for parts in messages:
        for part in parts:
            last[part.batch.id] = part
    return [
        _Piece(uuid.uuid4(), "ready", part.batch.id, part.last + 1, part.batch.size)
        for part in last.values()
        if part.last < part.batch.size
    ]


_UNDISPATCH = text("""
    UPDATE batches SET state = 'ready', dispatches = greatest(dispatches - 1, 0), until = NULL
    WHERE id = ANY(:ids) AND state = 'dispatched'
""")


def undispatch(tx: Connection, unsent: Iterable[Dispatch]) -> None:
    """Take back what the broker may not have got, so that its outage does not put off the rescue
    of what it does lose. A message that was sent after all finds nothing to claim, or claims."""
    tx.execute(_UNDISPATCH, {"ids": [message.batch for message in unsent]})


# Half of the time that it has waited, so that each time it is handed back it waits longer.
_HAND_BACK = text("""
    UPDATE batches SET state = 'ready', dispatches = 0,
        until = now() + least(greatest((now() - run_at) / 2, make_interval(secs => :shortest)),
            make_interval(secs => :longest))
    WHERE id = ANY(:ids) AND state = 'dispatched'
""")


def hand_back(
    tx: Connection, batches: Sequence[uuid.UUID], *, shortest: float, longest: float
) -> None:
    """What a worker got and has no room for: dispatch it again, later each time.

    It keeps its place among what is ready: once its delay is over, the oldest goes first.

    Args:
        shortest, longest: seconds until it may be dispatched again.
    """
    # Nor need it reach the disk: after a crash of the database it is rescued.
    tx.execute(_NEED_NOT_REACH_THE_DISK)
    parameters = {"ids": list(batches), "shortest": shortest, "longest": longest}
    tx.execute(_HAND_BACK, parameters)


_SLEEP = text("""
    INSERT INTO sleeping_relays (id, until) VALUES (:relay, now() + make_interval(secs => :seconds))
    ON CONFLICT (id) DO UPDATE SET until = excluded.until
""")
_AWAKE = text("DELETE FROM sleeping_relays WHERE id = :relay OR until < now() - interval '1 hour'")


def sleep(tx: Connection, relay: uuid.UUID, seconds: float) -> None:
    """From its commit on an enqueue wakes this relay; look once more before sleeping."""
    tx.execute(_SLEEP, {"relay": relay, "seconds": seconds})
    tx.execute(_NEED_NOT_REACH_THE_DISK)


def awake(tx: Connection, relay: uuid.UUID) -> None:
    """It looks by itself again: enqueues need not wake it."""
    tx.execute(_AWAKE, {"relay": relay})
