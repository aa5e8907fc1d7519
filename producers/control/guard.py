"""Pauses charging and ending when the fleet may have lost track of what happened.

Relays and schedulers record a heartbeat. After a gap in it, a jump of time or a change of the
database, three lanes are paused: charges (and with them the numbering of invoices), payment
requests, and ends. Too many ends in a window pause the lane of ends alone. An operator finds out
why, reconciles the books with the gateway, and resumes the lanes.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from monitoring import metrics
from producers.control.lanes import subject_of
from producers.ledger import DESTRUCTIVE_LANE, GUARDED_LANES
from schemas.clock import Clock
from schemas.settings import Settings

log = logging.getLogger(__name__)

# Clocks that differ by less count as equal: NTP keeps hosts far closer than this.
SKEW = timedelta(minutes=5)
# The share of ends is not looked at up to this many of them: it means little among few services.
FEW_SERVICES = 20

# The cluster, its timeline (which a point-in-time recovery changes), and the database in it.
_IDENTITY = """
    SELECT format('%s/%s/%s', (SELECT system_identifier FROM pg_control_system()),
        (SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
_NOW = text(f"SELECT clock_timestamp() AS now, ({_IDENTITY}) AS identity")
_LAST = text("SELECT beat_at, business_at, identity FROM heartbeat FOR NO KEY UPDATE")
_BEAT = text("""
    INSERT INTO heartbeat (sole, beat_at, business_at, trusted_until, identity)
    VALUES (true, :now, :business, CAST(:now AS timestamptz) + :silence, :identity)
    ON CONFLICT (sole) DO UPDATE SET beat_at = excluded.beat_at,
        business_at = excluded.business_at, trusted_until = excluded.trusted_until,
        identity = excluded.identity
""")
# What it has found already, and nobody has looked at yet, is said once. An operator's pause of the
# lane is another one, and each ends by itself.
_PAUSE = text("""
    WITH paused AS (
        INSERT INTO lane_pauses (lane, reason, source, paused_by, cause)
        VALUES (:lane, :reason, 'guard', 'guard', :cause)
        ON CONFLICT DO NOTHING
        RETURNING lane
    ), told AS (
        INSERT INTO events (subject, name, detail)
        SELECT :subject, 'lane.paused', jsonb_build_object('lane', lane, 'by', 'guard',
            'because', CAST(:reason AS text))
        FROM paused
    )
    SELECT lane FROM paused
""")


def beat(tx: Connection, clock: Clock, settings: Settings) -> list[str]:
    """Record a heartbeat; pause the guarded lanes if the last one does not fit.

    Returns:
        The findings, as sentences for an operator; empty if there are none.
    """
    last = tx.execute(_LAST).first()
    # Read while the row is locked, so that times follow the order of heartbeats.
    now, identity = tx.execute(_NOW).one()
    business_now = clock.now()
    silence = timedelta(seconds=settings.silence_seconds)
    found = []
    wrong_clock = settings.clock == "system" and abs(business_now - now) > SKEW
    if wrong_clock:
        found.append(
            ("clock", f"this host's clock says {business_now:%F %T}, the database's {now:%F %T}")
        )
    if last is not None:
        gap = max(now - last.beat_at, business_now - last.business_at)
        if gap > silence:
            hours = gap.total_seconds() / 3600
            found.append(("silence", f"nothing was seen of the fleet for {hours:.1f} h"))
        if now < last.beat_at - SKEW or business_now < last.business_at - SKEW:
            found.append(("time", f"time went back from {last.business_at:%F %T} UTC"))
        if identity != last.identity:
            found.append(("database", "this is not the database it was: a restored backup?"))
    if not wrong_clock:
        beaten = {"now": now, "business": business_now, "silence": silence, "identity": identity}
        tx.execute(_BEAT, beaten)
    if found:
        _pause(tx, GUARDED_LANES, found)
    return [words for _, words in found]


_COUNT = text("""
    INSERT INTO destructions AS d (hour, services) VALUES (date_trunc('hour', :now), :more)
    ON CONFLICT (hour) DO UPDATE SET services = d.services + excluded.services
""")
_FORGET = text("DELETE FROM destructions WHERE hour < :since")
_COUNTED = text("SELECT coalesce(sum(services), 0) FROM destructions WHERE hour >= :since")
# Beyond 100,000 services the planner's estimate is good enough, and costs the same for any number.
_SERVICES = text("""
    SELECT CASE WHEN reltuples < 100000 THEN (
        SELECT count(*) FROM services WHERE state IN ('active', 'suspended'))
    ELSE reltuples END FROM pg_class WHERE oid = 'services'::regclass
""")


def count_ends(tx: Connection, more: int, now: datetime, settings: Settings) -> bool:
    """Count services about to be suspended or terminated; pause the lane if they are too many.

    Args:
        more: services that are enqueued in this transaction.

    Returns:
        Whether the lane is paused now. Its tasks, also those already enqueued, wait for an
        operator.
    """
    since = now - timedelta(seconds=settings.destructive_window_seconds)
    tx.execute(_COUNT, {"now": now, "more": more})
    tx.execute(_FORGET, {"since": since - timedelta(days=1)})
    counted = int(tx.execute(_COUNTED, {"since": since}).scalar_one())
    share = max(
        settings.destructive_share * float(tx.execute(_SERVICES).scalar_one()), FEW_SERVICES
    )
    if counted <= min(settings.destructive_most, share):
        return False
    hours = settings.destructive_window_seconds / 3600
    words = f"{counted} services would be suspended or terminated within {hours:g} h"
    _pause(tx, (DESTRUCTIVE_LANE,), [("many", words)])
    return True


def _pause(tx: Connection, lanes: Sequence[str], found: Iterable[tuple[str, str]]) -> None:
    codes, words = zip(*found, strict=True)
    reason = f"guard: {'; '.join(words)}"
    for lane in lanes:
        pause = {
            "lane": lane,
            "reason": reason,
            "cause": ",".join(codes),
            "subject": subject_of(lane),
        }
        if tx.execute(_PAUSE, pause).first() is not None:
            log.error("lane %s is paused: %s", lane, reason)
            for code in codes:
                metrics.guard_trips.labels(lane, code).inc()
