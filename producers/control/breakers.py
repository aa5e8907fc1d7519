"""Circuit breakers of lanes, shared by the whole fleet: a lane is open while it has a row here.

An open lane's tasks wait. Its relay lets one out from time to time, as a probe; who calls for it
says whether the lane closes, or stays open for twice as long. It is no pause: it ends by itself.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from producers import history
from producers.control.lanes import subject_of
from producers.history import Event
from schemas.values import OpenCause


@dataclass(frozen=True, slots=True)
class OpenLane:
    """
    Attributes:
        reason: what the last bad answer said.
        probes: that have failed since it was opened.
        probe_at: when the next one may go out.
    """

    lane: str
    cause: OpenCause
    reason: str
    opened_at: datetime
    probes: int
    probe_at: datetime

    def __str__(self) -> str:
        probes = "1 probe" if self.probes == 1 else f"{self.probes} probes"
        return (
            f"open since {self.opened_at:%F %H:%M} UTC: {self.reason}; {probes} failed,"
            f" the next one at {self.probe_at:%H:%M:%S}"
        )


_LIST = text("""
    SELECT lane, cause, reason, opened_at, probes, probe_at FROM lane_breakers
    WHERE CAST(:lane AS text) IS NULL OR lane = :lane ORDER BY lane
""")


def open_lanes(tx: Connection, lane: str | None = None) -> list[OpenLane]:
    """Which lanes are open, or whether this one is."""
    return [
        OpenLane(r.lane, OpenCause(r.cause), r.reason, r.opened_at, r.probes, r.probe_at)
        for r in tx.execute(_LIST, {"lane": lane})
    ]


_OPEN = text("""
    INSERT INTO lane_breakers (lane, queue, cause, reason, probe_at)
    VALUES (:lane, :queue, :cause, :reason,
        clock_timestamp() + make_interval(secs => :seconds))
    ON CONFLICT (lane) DO NOTHING RETURNING lane
""")
# Who is told only now for how long the far side wants to be left alone: nobody is to ask before.
_ASKED_MEANWHILE = text("""
    UPDATE lane_breakers SET cause = :cause, reason = :reason, probe = NULL,
        probe_at = clock_timestamp() + make_interval(secs => :seconds)
    WHERE lane = :lane AND probe_at < clock_timestamp() + make_interval(secs => :seconds)
""")


def open_lane(
    tx: Connection, lane: str, queue: str, cause: OpenCause, reason: str, *, seconds: float
) -> bool:
    """Have a lane's tasks wait.

    Args:
        queue: where it was found out.
        seconds: until the first probe.

    Returns:
        False: it was open already. If the far side asks for more time than it has, it gets that.
    """
    parameters = {
        "lane": lane, "queue": queue, "cause": cause, "reason": reason[:500], "seconds": seconds,
    }  # fmt: skip
    if tx.execute(_OPEN, parameters).first() is None:
        if cause is OpenCause.ASKED:
            tx.execute(_ASKED_MEANWHILE, parameters)
        return False
    history.record(
        tx,
        [Event(subject_of(lane), "lane.opened", {"lane": lane, "cause": cause, "reason": reason})],
    )
    return True


# The wait doubles with each probe that fails.
_OPEN_LONGER = text("""
    UPDATE lane_breakers SET probe = NULL, probes = least(probes + 1, 10000), reason = :reason,
        cause = CASE WHEN CAST(:asked AS float8) IS NULL THEN cause ELSE 'asked' END,
        probe_at = clock_timestamp() + make_interval(secs => coalesce(
            CAST(:asked AS float8), least(:first * 2 ^ least(probes + 1, 30), :cap)))
    WHERE lane = :lane
""")


def open_longer(
    tx: Connection, lane: str, reason: str, *, first: float, cap: float, asked: float | None
) -> None:
    """A probe has failed.

    Args:
        first, cap: seconds until the first probe, and at most between two.
        asked: seconds that the far side asked for instead.
    """
    parameters = {
        "lane": lane, "reason": reason[:500], "first": first, "cap": cap, "asked": asked,
    }  # fmt: skip
    tx.execute(_OPEN_LONGER, parameters)


_CLOSE = text("""
    DELETE FROM lane_breakers WHERE lane = :lane
    RETURNING probes, extract(epoch FROM clock_timestamp() - opened_at)::float8 AS seconds
""")
# What was handed over when it opened was turned down: it is due again now.
_SEND_AGAIN = text("UPDATE batches SET until = now() WHERE lane = :lane AND state = 'dispatched'")


def close_lane(tx: Connection, lane: str) -> bool:
    """Let a lane's tasks go on; returns whether it was open."""
    row = tx.execute(_CLOSE, {"lane": lane}).first()
    if row is None:
        return False
    tx.execute(_SEND_AGAIN, {"lane": lane})
    detail = {"lane": lane, "seconds": round(row.seconds, 1), "probes": row.probes}
    history.record(tx, [Event(subject_of(lane), "lane.closed", detail)])
    return True


_PROBE_NOW = text("""
    UPDATE lane_breakers SET probe = NULL, probe_at = clock_timestamp() WHERE lane = :lane
    RETURNING lane
""")


def probe_now(tx: Connection, lane: str) -> bool:
    """Have the next probe of a lane go out at once; returns whether it is open.

    It is kept in the history if an operator wants it.
    """
    is_open = tx.execute(_PROBE_NOW, {"lane": lane}).first() is not None
    if is_open and history.operator() is not None:
        history.record(tx, [Event(subject_of(lane), "lane.tried", {"lane": lane})])
    return is_open
