"""Lanes: tasks that are paused and resumed together: a driver's, the gateway's, all ends."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from producers.ledger import DESTRUCTIVE_LANE
from producers.steps import STEPS
from schemas.errors import AutorenewError

# Those that every fleet has, whether or not anything was in them yet.
FIXED = {step.lane: step.queues[0] for step in STEPS.values() if step.lane is not None}

_LIST = text("""
    SELECT r.lane, r.queue, count(t.subject) AS tasks, p.paused_at, p.reason
    FROM (
        SELECT queue, name, lane FROM routes
        UNION SELECT queue, NULL, lane FROM unnest(CAST(:lanes AS text[]),
            CAST(:queues AS text[])) AS fixed(lane, queue)
    ) AS r
    LEFT JOIN tasks AS t ON (t.queue, t.name, t.lane) = (r.queue, r.name, r.lane)
    LEFT JOIN lane_pauses AS p ON p.lane = r.lane
    GROUP BY r.lane, r.queue, p.paused_at, p.reason ORDER BY r.lane
""")


def list_lanes(tx: Connection) -> Sequence[Any]:
    """lane, queue, tasks in it, paused_at and reason of each."""
    return tx.execute(_LIST, {"lanes": list(FIXED), "queues": list(FIXED.values())}).all()


def pause(tx: Connection, lane: str, reason: str) -> None:
    """Start nothing more in a lane; what runs goes on.

    Raises:
        AutorenewError: there is no such lane.
    """
    known = tx.execute(text("SELECT 1 FROM routes WHERE lane = :lane"), {"lane": lane}).first()
    if known is None and lane not in FIXED:
        raise AutorenewError(f"there is no lane {lane!r}; see `autorenew lanes list`")
    tx.execute(
        text("""INSERT INTO lane_pauses (lane, reason) VALUES (:lane, :reason)
             ON CONFLICT (lane) DO UPDATE SET reason = excluded.reason"""),
        {"lane": lane, "reason": reason},
    )


def resume(tx: Connection, lane: str) -> bool:
    """Start what waits in a lane; returns whether it was paused.

    A person has looked: what the guard has counted of ends is counted anew from here.
    """
    gone = tx.execute(text("DELETE FROM lane_pauses WHERE lane = :lane"), {"lane": lane})
    # What was handed over when the pause came was turned down: it is due again now.
    tx.execute(
        text("UPDATE batches SET until = now() WHERE lane = :lane AND state = 'dispatched'"),
        {"lane": lane},
    )
    if lane == DESTRUCTIVE_LANE:
        tx.execute(text("DELETE FROM destructions"))
    return bool(gone.rowcount)
