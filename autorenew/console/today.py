"""What today brought, who is at work, what the audit said last: read seldom, kept for a while."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from monitoring.exporter.fleet import ALIVE_SECONDS
from schemas.database import limit
from schemas.values import Money

T = TypeVar("T")

READ_SECONDS = 20.0
"""For a statement that a page waits for."""


FAILED_SECONDS = 5.0
"""For so long nobody asks again for what could not be read."""


class Kept(Generic[T]):
    """What was read, for some seconds: pages that refresh themselves ask for it all the time.

    So is why it could not be read: those who wait would each try in turn, and pages that refresh
    themselves come faster than a slow database answers, until no thread is left."""

    def __init__(self, read: Callable[[Connection], T], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._lock = threading.Lock()
        self._value: T | None = None
        self._failed: Exception | None = None
        self._until = 0.0

    def get(self, engine: Engine) -> T:
        """The value; one thread reads it anew, and the others wait for that.

        Raises:
            SQLAlchemyError: it cannot be read now.
        """
        with self._lock:
            is_over = time.monotonic() > self._until
            if self._failed is not None and not is_over:
                raise self._failed.with_traceback(None)
            if self._value is None or is_over:
                self._failed = None
                try:
                    with engine.begin() as tx:
                        limit(tx, READ_SECONDS)
                        self._value = self._read(tx)
                except SQLAlchemyError as error:
                    self._failed, self._until = error, time.monotonic() + FAILED_SECONDS
                    raise
                self._until = time.monotonic() + self._seconds
            return self._value


@dataclass(frozen=True, slots=True)
class Today:
    """Since midnight UTC, by the real clock; documents by the day that they carry.

    Attributes:
        orders: accepted, and how many of them were refused.
        open_orders: not ended, of whatever day, and since when the oldest is.
        renewals, first: invoices of renewals, and of orders.
        flows: ``invoiced``, ``charged``, ``declined``, ``refunded``: the amounts.
    """

    orders: int
    refused: int
    open_orders: int
    oldest_open: datetime | None
    renewals: int
    first: int
    flows: dict[str, list[Money]] = field(default_factory=dict)


# Each part reads the blocks of one day, or an index of what is open.
_COUNTS = text("""
    WITH today AS MATERIALIZED (
        SELECT date_trunc('day', now(), 'UTC') AS midnight,
            CAST((now() + coalesce((SELECT ahead FROM virtual_clock), interval '0'))
                AT TIME ZONE 'UTC' AS date) AS day
    ), accepted AS (
        SELECT count(*) AS orders, count(*) FILTER (WHERE state = 'refused') AS refused
        FROM orders WHERE accepted_at >= (SELECT midnight FROM today)
    ), open AS (
        SELECT count(*) AS orders, min(accepted_at) AS oldest FROM orders
        WHERE ended_at IS NULL AND customer_id IS NOT NULL  -- refused ones have neither
    ), invoiced AS (
        SELECT count(*) FILTER (WHERE r.order_id IS NULL) AS renewals,
            count(*) FILTER (WHERE r.order_id IS NOT NULL) AS first
        FROM invoices AS i JOIN payment_requests AS r ON r.id = i.request_id
        WHERE i.issued_on >= (SELECT day FROM today)
    )
    SELECT accepted.orders, accepted.refused, open.orders AS open_orders, open.oldest,
        invoiced.renewals, invoiced.first
    FROM accepted, open, invoiced
""")
_MONEY = text("""
    WITH today AS MATERIALIZED (
        SELECT date_trunc('day', now(), 'UTC') AS midnight,
            CAST((now() + coalesce((SELECT ahead FROM virtual_clock), interval '0'))
                AT TIME ZONE 'UTC' AS date) AS day
    )
    SELECT 'invoiced' AS flow, currency, sum(total)::bigint AS amount
    FROM invoices WHERE issued_on >= (SELECT day FROM today) GROUP BY currency
    UNION ALL
    SELECT CASE state WHEN 'succeeded' THEN 'charged' ELSE 'declined' END, currency,
        sum(amount)::bigint
    FROM charges
    WHERE decided_at >= (SELECT midnight FROM today) AND state IN ('succeeded', 'declined')
    GROUP BY 1, 2
    UNION ALL
    SELECT 'refunded', currency, sum(amount)::bigint
    FROM refunds WHERE decided_at >= (SELECT midnight FROM today) AND state = 'succeeded'
    GROUP BY currency
    ORDER BY flow, currency
""")


def today(tx: Connection) -> Today:
    """Orders, renewals and money of today."""
    counts = tx.execute(_COUNTS).one()
    flows: dict[str, list[Money]] = {}
    for row in tx.execute(_MONEY):
        flows.setdefault(row.flow, []).append(Money(row.amount, row.currency))
    return Today(
        counts.orders, counts.refused, counts.open_orders, counts.oldest, counts.renewals,
        counts.first, flows,
    )  # fmt: skip


_WORKERS = text("""
    SELECT q.queue, count(*) AS workers FROM processes AS p
    CROSS JOIN LATERAL unnest(p.queues) AS q(queue)
    WHERE p.ended_at IS NULL
      AND p.beat_at > clock_timestamp() - make_interval(secs => :seconds)
    GROUP BY q.queue
""")


def workers(tx: Connection) -> dict[str, int]:
    """Queue -> worker processes that were heard of lately."""
    rows = tx.execute(_WORKERS, {"seconds": ALIVE_SECONDS})
    return {row.queue: row.workers for row in rows}


@dataclass(frozen=True, slots=True)
class Audit:
    """The last full run, and what is violated by now.

    Attributes:
        broken: check -> how many offenders it has.
    """

    ended_at: datetime | None
    broken: dict[str, int]


_AUDIT = text("SELECT max(ended_at) AS ended_at FROM audit_runs")
_BROKEN = text("""
    SELECT invariant, violations FROM audit_findings WHERE violations > 0 ORDER BY invariant
""")


def audit(tx: Connection) -> Audit:
    """What the exporter's audit found last."""
    ended_at = tx.execute(_AUDIT).scalar()
    return Audit(ended_at, {row.invariant: row.violations for row in tx.execute(_BROKEN)})
