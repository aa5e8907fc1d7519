"""Lanes: tasks that are paused and resumed together: a driver's, the gateway's, all ends.

A lane is paused while at least one pause of it stands. A pause has an owner and a reason: an
operator's, or the guard's. Each ends by itself, so that who ends their own does not start what
somebody else, or the guard, holds back.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from producers import history
from producers.history import Event
from producers.ledger import DESTRUCTIVE_LANE
from producers.steps import STEPS
from schemas.errors import AutorenewError
from schemas.values import PauseSource, derived_id

# Those that every fleet has, whether or not anything was in them yet.
FIXED = {step.lane: step.queues[0] for step in STEPS.values() if step.lane is not None}


class UnknownLane(AutorenewError):
    code = "unknown_lane"


class CannotResume(AutorenewError):
    """It was not said which of several pauses ends, or there is no such pause."""

    code = "cannot_resume"


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a lane is paused; one of several reasons, perhaps.

    Attributes:
        id: to name it by.
        paused_by: the operator, or ``guard``.
    """

    id: int
    lane: str
    source: PauseSource
    paused_by: str
    reason: str
    paused_at: datetime

    def __str__(self) -> str:
        return f"{self.id} by {self.paused_by} since {self.paused_at:%F %H:%M} UTC: {self.reason}"


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane on one queue, and how many tasks it has in each state.

    Attributes:
        ready: to be done now, or as soon as nothing pauses it; handed to the broker or not.
        later: that back off, or wait for their time.
        leased: being worked on.
        failed: that wait for a person.
    """

    lane: str
    queue: str
    ready: int
    later: int
    leased: int
    failed: int
    pauses: tuple[Pause, ...] = ()

    @property
    def waiting(self) -> int:
        """Tasks that no person has to decide about."""
        return self.ready + self.later + self.leased


# What waits in no batch is found by its index, what has failed by another: nothing of what is in
# batches is counted one by one.
_LIST = text("""
    WITH counted AS (
        SELECT queue, lane, CASE state WHEN 'leased' THEN 'leased' ELSE 'ready' END AS state,
            sum(size) AS tasks
        FROM batches GROUP BY 1, 2, 3
        UNION ALL
        SELECT queue, lane, CASE WHEN run_at > clock_timestamp() THEN 'later' ELSE 'ready' END,
            count(*)
        FROM tasks WHERE state = 'ready' AND NOT batched GROUP BY 1, 2, 3
        UNION ALL
        SELECT queue, lane, 'failed', count(*) FROM tasks WHERE state = 'failed' GROUP BY 1, 2
    ), known AS (
        SELECT lane, queue FROM routes
        UNION
        SELECT lane, queue FROM unnest(CAST(:lanes AS text[]), CAST(:queues AS text[]))
            AS fixed(lane, queue)
        UNION
        SELECT h.lane, '' FROM (
            SELECT lane FROM lane_pauses UNION SELECT lane FROM lane_breakers
            UNION SELECT lane FROM lane_limits
        ) AS h
        WHERE h.lane <> ALL(:lanes) AND NOT EXISTS (SELECT FROM routes AS r WHERE r.lane = h.lane)
    )
    SELECT k.lane, k.queue,
        coalesce(sum(c.tasks) FILTER (WHERE c.state = 'ready'), 0)::bigint AS ready,
        coalesce(sum(c.tasks) FILTER (WHERE c.state = 'later'), 0)::bigint AS later,
        coalesce(sum(c.tasks) FILTER (WHERE c.state = 'leased'), 0)::bigint AS leased,
        coalesce(sum(c.tasks) FILTER (WHERE c.state = 'failed'), 0)::bigint AS failed
    FROM known AS k LEFT JOIN counted AS c USING (lane, queue)
    GROUP BY k.lane, k.queue ORDER BY k.lane, k.queue
""")
_PAUSES = text("""
    SELECT id, lane, source, paused_by, reason, paused_at FROM lane_pauses
    WHERE CAST(:lane AS text) IS NULL OR lane = :lane ORDER BY lane, id
""")
_IS_KNOWN = text("""
    SELECT 1 WHERE EXISTS (SELECT FROM routes WHERE lane = :lane)
        OR EXISTS (SELECT FROM lane_pauses WHERE lane = :lane)
        OR EXISTS (SELECT FROM lane_breakers WHERE lane = :lane)
        OR EXISTS (SELECT FROM lane_limits WHERE lane = :lane)
""")


def list_lanes(tx: Connection) -> list[Lane]:
    """Every lane on every queue, with what is in it and what pauses it."""
    rows = tx.execute(_LIST, {"lanes": list(FIXED), "queues": list(FIXED.values())}).all()
    pauses = paused(tx)
    return [
        Lane(
            r.lane, r.queue, r.ready, r.later, r.leased, r.failed,
            tuple(pause for pause in pauses if pause.lane == r.lane),
        )
        for r in rows
    ]  # fmt: skip


def paused(tx: Connection, lane: str | None = None) -> list[Pause]:
    """What pauses lanes, or one of them, the oldest first."""
    rows = tx.execute(_PAUSES, {"lane": lane})
    return [Pause(r.id, r.lane, PauseSource(r.source), *r[3:]) for r in rows]


def check(tx: Connection, lane: str) -> None:
    """
    Raises:
        UnknownLane: there is no such lane.
    """
    if lane not in FIXED and tx.execute(_IS_KNOWN, {"lane": lane}).first() is None:
        raise UnknownLane(f"there is no lane {lane!r}; see `autorenew lanes list`")


def subject_of(lane: str) -> uuid.UUID:
    """What the history of a lane is kept under."""
    return derived_id("lane", lane)


_PAUSE = text("""
    INSERT INTO lane_pauses (lane, reason, paused_by)
    VALUES (:lane, :reason, coalesce(CAST(:by AS text), SESSION_USER))
    ON CONFLICT DO NOTHING RETURNING id
""")


def pause(tx: Connection, lane: str, reason: str) -> bool:
    """Start nothing more in a lane, until this pause and all others of it have ended; what runs
    goes on.

    It is the pause of the operator who acts (:func:`producers.history.acting`).

    Returns:
        False: they have paused it for that reason already.

    Raises:
        UnknownLane: there is no such lane.
    """
    check(tx, lane)
    who = history.operator()
    parameters = {"lane": lane, "reason": reason, "by": who.by if who else None}
    number = tx.execute(_PAUSE, parameters).scalar()
    if number is None:
        return False
    detail = {"lane": lane, "pause": number, "because": reason}
    history.record(tx, [Event(subject_of(lane), "lane.paused", detail)])
    return True


def choose(
    pauses: Sequence[Pause],
    *,
    numbers: Collection[int] = (),
    paused_by: str | None = None,
    everybody: bool = False,
    guard: bool = False,
) -> list[Pause]:
    """Which pauses of a lane a person means to end.

    Without anything said it is the only one of an operator. The guard's are never meant by
    accident.

    Args:
        numbers: these, whosever they are.
        paused_by: all of this operator.
        everybody: all of all operators.
        guard: all of the guard, in addition.

    Raises:
        CannotResume: there are several, and it was not said which; or not what was named.
    """
    operators = [p for p in pauses if p.source is PauseSource.OPERATOR]
    guards = [p for p in pauses if p.source is PauseSource.GUARD]
    chosen = {p.id for p in guards} if guard else set()
    if unknown := set(numbers) - {p.id for p in pauses}:
        raise CannotResume(f"no pause {', '.join(map(str, sorted(unknown)))}{_standing(pauses)}")
    chosen |= set(numbers)
    if paused_by is not None:
        theirs = {p.id for p in operators if p.paused_by == paused_by}
        if not theirs:
            raise CannotResume(f"no pause by {paused_by!r}{_standing(pauses)}")
        chosen |= theirs
    if everybody:
        chosen |= {p.id for p in operators}
    if not (numbers or paused_by or everybody or guard):
        if len(operators) > 1:
            raise CannotResume(
                f"several pauses: say which ends, with --pause, --paused-by or --all"
                f"{_standing(operators)}"
            )
        chosen = {p.id for p in operators}
    return [p for p in pauses if p.id in chosen]


def _standing(pauses: Sequence[Pause]) -> str:
    return "".join(f"\n  {pause}" for pause in pauses) or "; it is not paused"


_END = text("DELETE FROM lane_pauses WHERE lane = :lane AND id = ANY(:ids) RETURNING id")
# What was handed over when the pause came was turned down: it is due again now.
_SEND_AGAIN = text("UPDATE batches SET until = now() WHERE lane = :lane AND state = 'dispatched'")
_FORGET_ENDS = text("DELETE FROM destructions")


def resume(
    tx: Connection,
    lane: str,
    *,
    numbers: Collection[int] = (),
    paused_by: str | None = None,
    everybody: bool = False,
    guard: bool = False,
) -> list[Pause]:
    """End pauses of a lane; what waits in it starts with the last one.

    Who ends the guard's has looked: what it has counted of ends is counted anew from here.

    Args:
        numbers, paused_by, everybody, guard: which ones, as in :func:`choose`.

    Returns:
        Those that ended.

    Raises:
        UnknownLane: there is no such lane.
        CannotResume: there are several, and it was not said which; or not what was named.
    """
    check(tx, lane)
    chosen = choose(
        paused(tx, lane), numbers=numbers, paused_by=paused_by, everybody=everybody, guard=guard
    )
    gone = set(tx.execute(_END, {"lane": lane, "ids": [p.id for p in chosen]}).scalars())
    ended = [pause for pause in chosen if pause.id in gone]
    # Whatever else stands: who ends that at the same moment may not see this one gone.
    tx.execute(_SEND_AGAIN, {"lane": lane})
    if lane == DESTRUCTIVE_LANE and any(p.source is PauseSource.GUARD for p in ended):
        tx.execute(_FORGET_ENDS)
    history.record(
        tx,
        (
            Event(
                subject_of(lane), "lane.resumed",
                {"lane": lane, "pause": p.id, "paused_by": p.paused_by, "paused_because": p.reason},
            )
            for p in ended
        ),
    )  # fmt: skip
    return ended
