"""A relay's side of the ledger: which tasks go out next, and which come back.

What is ready is dispatched lane by lane, fairly, at most so much of a queue as its cap; what is
dispatched and not claimed, or leased and not finished, in time is made ready again.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, text

from producers.ledger.tasks import MAX_STARTS, TELL_WHO_FAILED

# From its second unfinished start a task is dispatched alone.
ALONE_FROM_STARTS = 1
# From its fourth it is a suspect: a queue has one suspect under way at a time, so that no two
# die of each other until one is set aside.
SUSPECT_FROM_STARTS = 3
# Of PostgreSQL's advisory locks; any constant of ours will do.
DISPATCH_LOCK = 0x6175746F

_RESCUE_DISPATCHED = text("""
    UPDATE tasks AS t SET state = 'ready' FROM (
        SELECT name, subject FROM tasks
        WHERE state = 'dispatched' AND rescue_at < now() AND queue = :queue
        ORDER BY rescue_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ) AS late
    WHERE t.name = late.name AND t.subject = late.subject
""")

_RESCUE_LEASED = text(f"""
    WITH ended AS (
    UPDATE tasks AS t SET
        state = CASE WHEN t.starts >= :max_starts THEN 'failed' ELSE 'ready' END,
        reason = CASE WHEN t.starts >= :max_starts THEN 'crashed' ELSE 'lease_lost' END,
        -- Spread, so that who ran beside a subject that kills its process does so only once.
        run_at = now() + make_interval(secs => random() * 2 ^ t.starts),
        lease_token = NULL, lease_until = NULL
    FROM (
        SELECT name, subject FROM tasks
        WHERE state = 'leased' AND lease_until < now()
        ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED
    ) AS late
    WHERE t.name = late.name AND t.subject = late.subject
    RETURNING t.*
    ), lost AS (
        INSERT INTO events (subject, name, task)
        SELECT subject, 'task.lease_lost', name FROM ended WHERE state = 'ready'
    ), {TELL_WHO_FAILED}
    SELECT count(*) FROM ended
""")


def rescue(tx: Connection, *, limit: int = 10_000) -> tuple[int, int]:
    """Make ready again what was dispatched and not claimed, and what lost its lease.

    A subject whose process died :data:`MAX_STARTS` times is failed as ``crashed`` instead.

    Returns:
        How many were rescued: from ``dispatched``, and from ``leased``.
    """
    queues = tx.execute(text("SELECT DISTINCT queue FROM routes")).scalars().all()
    dispatched = sum(
        tx.execute(_RESCUE_DISPATCHED, {"queue": queue, "limit": limit}).rowcount
        for queue in queues
    )
    parameters = {"max_starts": MAX_STARTS, "limit": limit}
    leased = tx.execute(_RESCUE_LEASED, parameters).scalar_one()
    return dispatched, leased


_DISPATCH = text("""
    WITH room AS (
        SELECT q.queue, CASE WHEN d.waiting * 2 <= :cap THEN :cap - d.waiting ELSE 0 END AS free
        FROM (SELECT DISTINCT queue FROM routes) AS q
        CROSS JOIN LATERAL (
            SELECT count(*) AS waiting FROM tasks AS d
            WHERE d.state = 'dispatched' AND d.queue = q.queue AND d.rescue_at > now()
        ) AS d
    ), picked AS MATERIALIZED (
        SELECT t.name, t.subject, t.queue, t.lane, t.starts, t.place
        FROM routes AS r
        JOIN room ON room.queue = r.queue AND room.free > 0
        CROSS JOIN LATERAL (
            SELECT t.name, t.subject, t.queue, t.lane, t.starts, t.run_at AS place
            FROM tasks AS t
            WHERE t.state = 'ready' AND t.queue = r.queue AND t.name = r.name
              AND t.lane = r.lane AND t.run_at <= now()
              AND t.run_at > now() - make_interval(secs => :horizon)
            ORDER BY t.run_at
            LIMIT room.free
            FOR UPDATE SKIP LOCKED
        ) AS t
        WHERE NOT EXISTS (SELECT FROM lane_pauses AS p WHERE p.lane = r.lane)
    ), fair AS (
        SELECT p.*, row_number() OVER (PARTITION BY p.queue ORDER BY p.turn) AS position,
            row_number() OVER (PARTITION BY p.queue, p.starts >= :suspect ORDER BY p.place) AS nth
        FROM (
            SELECT *, row_number() OVER (PARTITION BY queue, name, lane ORDER BY place) AS turn
            FROM picked
        ) AS p
    )
    UPDATE tasks AS t SET
        state = 'dispatched',
        rescue_at = now() + make_interval(
            secs => least(:rescue * 2 ^ least(t.dispatches, 10), 3600)),
        dispatches = least(t.dispatches + 1, 100)
    FROM fair JOIN room ON room.queue = fair.queue
    WHERE t.name = fair.name AND t.subject = fair.subject AND fair.position <= room.free
      AND (fair.starts < :suspect OR fair.nth = 1 AND NOT EXISTS (
        -- The number, not the parameter: so the index tasks_suspect will do.
        SELECT FROM tasks AS s WHERE s.starts >= 3 AND s.queue = fair.queue
          AND s.state IN ('dispatched', 'leased')))
    RETURNING t.queue, t.name, t.lane, t.subject, t.starts
""")


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One message to be: tasks of the same queue, name and lane."""

    queue: str
    name: str
    lane: str
    subjects: tuple[uuid.UUID, ...]


def dispatch(
    tx: Connection,
    *,
    batch: Callable[[str], int],
    cap: int,
    rescue_seconds: float,
    horizon: float = 1e9,
) -> list[Dispatch]:
    """Take what is ready, lane by lane, and mark it dispatched; commit *before* publishing.

    Args:
        batch: most tasks in one message, by the task's name.
        cap: most tasks of a queue that may be dispatched and not yet claimed. Filled up again
            when half of it is gone, so that messages are large when work is plenty.
        rescue_seconds: how soon an unclaimed task is ready again; doubles each time.
        horizon: look only at tasks that became ready so many seconds ago or later. Keeps a
            poll cheap while an old snapshot makes dead index entries pile up.
    """
    parameters = {
        "cap": cap,
        "rescue": rescue_seconds,
        "horizon": horizon,
        "suspect": SUSPECT_FROM_STARTS,
    }
    # One relay at a time counts what is dispatched, so that the cap is the fleet's, not each's.
    tx.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": DISPATCH_LOCK})
    groups: dict[tuple[str, str, str], list[uuid.UUID]] = {}
    alone: list[Dispatch] = []
    for queue, name, lane, subject, starts in tx.execute(_DISPATCH, parameters):
        if starts >= ALONE_FROM_STARTS:
            alone.append(Dispatch(queue, name, lane, (subject,)))
        else:
            groups.setdefault((queue, name, lane), []).append(subject)
    return alone + [
        Dispatch(queue, name, lane, tuple(subjects[i : i + batch(name)]))
        for (queue, name, lane), subjects in groups.items()
        for i in range(0, len(subjects), batch(name))
    ]


_UNDISPATCH = text("""
    UPDATE tasks AS t SET state = 'ready', dispatches = greatest(t.dispatches - 1, 0)
    FROM (
        SELECT name, subject FROM tasks
        WHERE name = :name AND subject = ANY(:subjects) AND state = 'dispatched'
        ORDER BY subject FOR UPDATE SKIP LOCKED
    ) AS unsent
    WHERE t.name = unsent.name AND t.subject = unsent.subject
""")


def undispatch(tx: Connection, unsent: Iterable[Dispatch]) -> None:
    """Take back what the broker may not have got, so that its outage does not put off the rescue
    of what it does lose. A message that was sent after all finds nothing to claim, or claims."""
    for message in unsent:
        tx.execute(_UNDISPATCH, {"name": message.name, "subjects": list(message.subjects)})


_HAND_BACK = text("""
    UPDATE tasks AS t SET state = 'ready', dispatches = 0,
        run_at = greatest(t.run_at, now() + make_interval(secs => :delay))
    FROM (
        SELECT name, subject FROM tasks
        WHERE name = :name AND subject = ANY(:subjects) AND state || '' = 'dispatched'
        ORDER BY subject FOR UPDATE SKIP LOCKED
    ) AS untouched
    WHERE t.name = untouched.name AND t.subject = untouched.subject
""")


def hand_back(tx: Connection, name: str, subjects: Iterable[uuid.UUID], *, delay: float) -> None:
    """What a worker got and has no room for: dispatch it again, ``delay`` seconds from now."""
    tx.execute(_HAND_BACK, {"name": name, "subjects": list(subjects), "delay": delay})
