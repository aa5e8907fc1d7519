"""Who is at work, and what operators have going."""

from collections.abc import Callable, Collection

from sqlalchemy import Connection, text

from monitoring.exporter.collecting import Found
from monitoring.exporter.families import ALIVE, BULK, DEAD_DOCUMENTS, LAST_BEAT, UNTOLD
from schemas.values import BulkState

# A process that has missed three heartbeats in a row.
ALIVE_SECONDS = 50.0
# Without which nothing moves: absent, they are shown as 0.
BEATING = ("scheduler", "relay")
WORKER = "worker"

_PROCESSES = text("""
    SELECT p.process, q.queue, p.version,
        count(*) FILTER (WHERE p.ended_at IS NULL
            AND p.beat_at > now() - make_interval(secs => :alive)) AS alive,
        CAST(extract(epoch FROM max(p.beat_at)) AS float8) AS last
    FROM processes AS p
    CROSS JOIN LATERAL unnest(CASE p.queues WHEN '{}' THEN '{""}' ELSE p.queues END) AS q(queue)
    GROUP BY 1, 2, 3
""")


def processes(tx: Connection, queues: Collection[str], version: str) -> Found:
    """Processes that are alive; one that serves several queues counts on each."""
    alive = {(WORKER, queue, version): 0.0 for queue in queues}
    alive |= {(process, "", version): 0.0 for process in BEATING}
    last = dict.fromkeys(((process,) for process in BEATING), 0.0)
    for row in tx.execute(_PROCESSES, {"alive": ALIVE_SECONDS}):
        alive[row.process, row.queue, row.version] = row.alive
        if (row.process,) in last:
            last[(row.process,)] = max(last[(row.process,)], row.last)
    return {ALIVE: alive, LAST_BEAT: last}


_BULK = text("SELECT state, count(*) AS operations FROM bulk_operations GROUP BY state")


def bulk(tx: Connection) -> Found:
    """Bulk operations, of which people ask for few."""
    counts = {(str(state),): 0.0 for state in BulkState}
    return {BULK: counts | {(r.state,): r.operations for r in tx.execute(_BULK)}}


_UNTOLD = text("SELECT count(event_id) FROM untold_events")


def untold(tx: Connection) -> Found:
    """Events for upstream that were left out."""
    return {UNTOLD: {(): float(tx.execute(_UNTOLD).scalar_one())}}


def dead_documents(count: Callable[[], int]) -> Found:
    """Documents that an intake set aside."""
    return {DEAD_DOCUMENTS: {(): float(count())}}
