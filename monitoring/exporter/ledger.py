"""What waits, since when, and what has failed."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, text

from monitoring.exporter.collecting import Found, Labels
from monitoring.exporter.families import (
    FAILED,
    LANE_PAUSED,
    OLDEST_FAILED,
    OLDEST_HELD,
    OLDEST_READY,
    TASKS,
)

# Of failed tasks; what is rarer is counted together, under the reason `other`.
MOST_GROUPS = 200
OTHER = "other"
_WAITING_STATES = ("ready", "waiting", "backing_off", "dispatched", "leased")
_BY = ("operator", "guard", "breaker")

# Batches by their size, and tasks in no batch: the tasks of a batch are not counted one by one.
# Dispatched batches that were not started wait, too. Guarded tasks are not claimed while no
# heartbeat vouches for the fleet.
_QUEUES = text("""
    WITH held AS MATERIALIZED (
        SELECT lane FROM lane_pauses
        UNION SELECT lane FROM lane_breakers
        UNION SELECT lane FROM unnest(CAST(:guarded AS text[])) AS g(lane)
            WHERE EXISTS (SELECT FROM heartbeat WHERE trusted_until < now())
    ), found AS (
        SELECT queue, lane, state, sum(size) AS tasks,
            CASE WHEN state <> 'leased' THEN min(run_at) END AS since
        FROM batches GROUP BY queue, lane, state
        UNION ALL
        SELECT queue, lane, 'ready', count(*), min(run_at)
        FROM tasks WHERE state = 'ready' AND NOT batched AND run_at <= now()
        GROUP BY queue, lane
        UNION ALL
        SELECT queue, lane,
            CASE WHEN attempts > 0 OR reason IS NOT NULL THEN 'backing_off' ELSE 'waiting' END,
            count(*), NULL
        FROM tasks WHERE state = 'ready' AND NOT batched AND run_at > now()
        GROUP BY 1, 2, 3
    )
    SELECT f.queue, f.state, f.lane IN (SELECT lane FROM held) AS is_held,
        CAST(sum(f.tasks) AS bigint) AS tasks,
        CAST(extract(epoch FROM clock_timestamp() - min(f.since)) AS float8) AS age
    FROM found AS f GROUP BY 1, 2, 3
""")


def queues(tx: Connection, known: Collection[str], guarded: Sequence[str]) -> Found:
    """Tasks by queue and state, and how long the oldest has been ready.

    Args:
        known: the queues there are; what is on none counts under its own name.
        guarded: lanes of which nothing is claimed while no heartbeat vouches for the database.
    """
    ready = dict.fromkeys(((queue,) for queue in known), 0.0)
    held = dict(ready)
    counts = {(queue, state): 0.0 for queue in known for state in _WAITING_STATES}
    for row in tx.execute(_QUEUES, {"guarded": list(guarded)}):
        key = (row.queue, row.state)
        counts[key] = counts.get(key, 0.0) + row.tasks
        ages = held if row.is_held else ready
        ages[(row.queue,)] = max(ages.get((row.queue,), 0.0), row.age or 0.0)
    return {OLDEST_READY: ready, OLDEST_HELD: held, TASKS: counts}


_FAILED = text("""
    SELECT queue, name, lane, coalesce(reason, '') AS reason, count(*) AS tasks,
        CAST(extract(epoch FROM clock_timestamp() - min(coalesce(first_failed_at, run_at)))
            AS float8) AS age
    FROM tasks WHERE state = 'failed' GROUP BY 1, 2, 3, 4 ORDER BY tasks DESC
""")
_DRIVER = "driver:"


def failed(tx: Connection, known: Collection[str], steps: Collection[str]) -> Found:
    """Tasks that wait for a person."""
    groups: dict[Labels, float] = defaultdict(float)
    oldest = dict.fromkeys(((step,) for step in steps), 0.0)
    counts = {(queue, "failed"): 0.0 for queue in known}
    for row in tx.execute(_FAILED, {}):
        driver = row.lane.removeprefix(_DRIVER) if row.lane.startswith(_DRIVER) else ""
        labels = (row.name, driver, row.reason)
        if labels not in groups and len(groups) >= MOST_GROUPS:
            labels = (row.name, "", OTHER)
        groups[labels] += row.tasks
        oldest[(row.name,)] = max(oldest.get((row.name,), 0.0), row.age)
        key = (row.queue, "failed")
        counts[key] = counts.get(key, 0.0) + row.tasks
    return {FAILED: groups, OLDEST_FAILED: oldest, TASKS: counts}


_HELD = text("""
    SELECT DISTINCT lane, source AS by FROM lane_pauses
    UNION ALL SELECT lane, 'breaker' FROM lane_breakers
""")
_LANES = text("SELECT DISTINCT lane FROM routes")


def lanes(tx: Connection, fixed: Collection[str]) -> Found:
    """Which lanes are held, and by whom; 0 for one that is not.

    Args:
        fixed: lanes that every fleet has.
    """
    known = {*fixed, *tx.execute(_LANES).scalars()}
    values = {(lane, by): 0.0 for lane in sorted(known) for by in _BY}
    for row in tx.execute(_HELD):
        values[row.lane, row.by] = 1.0
    return {LANE_PAUSED: values}
