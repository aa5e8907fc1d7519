"""What a lane may ask of its far side, whatever the number of workers: calls at once, and a rate.

A relay counts when it hands tasks over: those that are handed over or worked on, and a token bucket
in the database. So a limit holds for the whole fleet, and costs nothing where none is set.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from producers import history
from producers.control import lanes
from producers.control.lanes import subject_of
from producers.history import Event
from schemas.errors import AutorenewError

MOST = 1_000_000


class WrongLimit(AutorenewError):
    code = "wrong_limit"


@dataclass(frozen=True, slots=True)
class Limit:
    """
    Attributes:
        at_once: tasks of the lane that are handed over or worked on at a time; None: no limit.
        per_second: tasks that are handed over a second; None: no limit.
        burst: so many may go at once after a quiet time.
    """

    at_once: int | None = None
    per_second: float | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        if self.at_once is None and self.per_second is None:
            raise WrongLimit("a limit is a number at once, or a rate, or both")
        if self.at_once is not None and not 1 <= self.at_once <= MOST:
            raise WrongLimit(f"at least 1 at once, at most {MOST:,}; to stop a lane, pause it")
        if self.per_second is not None and not 0 < self.per_second <= MOST:
            raise WrongLimit(f"a rate is more than 0 and at most {MOST:,} a second")
        if (self.burst is None) != (self.per_second is None):
            raise WrongLimit("a burst belongs to a rate")
        if self.burst is not None and not 1 <= self.burst <= MOST:
            raise WrongLimit(f"a burst is at least 1 and at most {MOST:,}")

    def __str__(self) -> str:
        at_once = f"{self.at_once} at once" if self.at_once is not None else ""
        rate = f"{self.per_second:g}/s, burst {self.burst}" if self.per_second is not None else ""
        return "; ".join(filter(None, (at_once, rate)))


_SET = text("""
    INSERT INTO lane_limits AS l (lane, at_once, per_second, burst, tokens)
    VALUES (:lane, :at_once, :per_second, :burst, coalesce(:burst, 0))
    ON CONFLICT (lane) DO UPDATE SET at_once = excluded.at_once,
        per_second = excluded.per_second, burst = excluded.burst,
        tokens = least(l.tokens, coalesce(excluded.burst, 0))
""")
_LIFT = text("DELETE FROM lane_limits WHERE lane = :lane RETURNING lane")
_LIST = text("SELECT lane, at_once, per_second, burst FROM lane_limits ORDER BY lane")


def limits(tx: Connection) -> dict[str, Limit]:
    """Lane -> its limit, for those that have one."""
    return {row.lane: Limit(*row[1:]) for row in tx.execute(_LIST)}


def set_limit(tx: Connection, lane: str, limit: Limit) -> None:
    """Holds from the next task that is handed over; what is under way goes on.

    Raises:
        UnknownLane: there is no such lane.
    """
    lanes.check(tx, lane)
    parameters = {
        "lane": lane, "at_once": limit.at_once, "per_second": limit.per_second,
        "burst": limit.burst,
    }  # fmt: skip
    tx.execute(_SET, parameters)
    history.record(tx, [Event(subject_of(lane), "lane.limited", {**parameters})])


def lift(tx: Connection, lane: str) -> bool:
    """Take a lane's limit away; returns whether it had one.

    Raises:
        UnknownLane: there is no such lane.
    """
    lanes.check(tx, lane)
    if tx.execute(_LIFT, {"lane": lane}).first() is None:
        return False
    history.record(tx, [Event(subject_of(lane), "lane.unlimited", {"lane": lane})])
    return True
