"""Failed tasks by their fingerprint: what failed, where, why, and the far side's own code."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from producers.control.selection import ALL, FITS, Filters, resolve
from schemas.values import Money


@dataclass(frozen=True, slots=True)
class Group:
    """Failed tasks of one fingerprint.

    Attributes:
        reason: ours, such as ``driver_refused``.
        code: the far side's own, such as ``out_of_stock``.
        first: when the first of them failed for the first time.
        last: when the last of them failed.
        attempts: that failed, of all of them.
    """

    name: str
    lane: str
    reason: str | None
    code: str | None
    tasks: int
    first: datetime
    last: datetime
    attempts: int

    @property
    def driver(self) -> str | None:
        """Of a service; None: it is in another lane."""
        kind, colon, driver = self.lane.partition(":")
        return driver if colon and kind == "driver" else None


_GROUPS = text(f"""
    SELECT t.name, t.lane, t.reason, t.code, count(*) AS tasks,
        min(coalesce(t.first_failed_at, t.run_at)) AS first,
        max(least(t.run_at, clock_timestamp())) AS last,
        sum(greatest(t.total_attempts, t.attempts)) AS attempts
    FROM tasks AS t WHERE t.state = 'failed' AND {FITS}
    GROUP BY 1, 2, 3, 4
    ORDER BY tasks DESC, t.name, t.lane, t.reason, t.code
""")


def groups(tx: Connection, filters: Filters = ALL) -> list[Group]:
    """Failed tasks that fit, by fingerprint, the largest group first.

    Raises:
        UnknownName: a filter names nothing that is known.
        UnknownLane: it names no lane.
    """
    _, parameters = resolve(tx, filters)
    return [Group(*row) for row in tx.execute(_GROUPS, parameters)]


# Those of a service that is paid and not delivered, and is given up with its task.
_PAID = text(f"""
    SELECT r.currency, sum(l.net + l.tax)::bigint AS amount
    FROM tasks AS t
    JOIN services AS d ON d.id = t.subject AND d.state = 'delivering' AND d.desired <> 'absent'
    JOIN request_lines AS l ON l.service_id = d.id AND l.released_at IS NULL
    JOIN payment_requests AS r ON r.id = l.request_id AND r.state = 'paid'
    WHERE t.state = 'failed' AND t.name = 'converge' AND {FITS}
    GROUP BY r.currency ORDER BY r.currency
""")


def paid_for(tx: Connection, filters: Filters) -> list[Money]:
    """What goes back if the failed tasks that fit are given up, in each currency.

    Raises:
        UnknownName: a filter names nothing that is known.
        UnknownLane: it names no lane.
    """
    _, parameters = resolve(tx, filters)
    return [Money(row.amount, row.currency) for row in tx.execute(_PAID, parameters)]
