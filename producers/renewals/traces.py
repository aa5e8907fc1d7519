"""The trace of a renewal: it begins with whatever comes first, and ends with the service extended.

Its context is kept with the renewal (column ``trace``), so it survives what the renewal waits for:
a renewal that is announced weeks before it is charged is one trace. Where nothing is traced,
nothing is read or written.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, text

from monitoring import tracing
from schemas.tables.bulk import Bulk
from schemas.values import ServiceId


@dataclass(frozen=True, slots=True)
class TracedRow:
    service_id: ServiceId
    period_number: int
    trace: str


_trace = Bulk(
    TracedRow,
    """
    UPDATE renewals AS n SET trace = r.trace
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        service_id uuid, period_number integer, trace text)
    WHERE n.service_id = r.service_id AND n.period_number = r.period_number
    """,
)
_UNTRACED = text("SELECT * FROM untraced_renewals(CAST(:services AS uuid[]))")


def begin(
    tx: Connection, services: Collection[uuid.UUID], because: str, parent: str | None = None
) -> None:
    """Begin a trace for each renewal that is under way and in none yet, linked to that of the order
    by which its service came.

    Args:
        services: which this transaction has locked.
        because: what begins them: ``reminder``, ``request`` or ``command``.
        parent: the context that upstream sent with its command: the renewal is in that trace.
    """
    if not (tracing.is_on() and services):
        return
    rows = []
    for row in tx.execute(_UNTRACED, {"services": list(services)}):
        context, end = tracing.begin(
            "begin renewal",
            kind="producer",
            parent=parent,
            links=[row.order_trace] if row.order_trace else [],
            because=because,
            service=str(row.service_id),
            period=row.period_number,
        )
        end()
        if context is not None:
            rows.append(TracedRow(row.service_id, row.period_number, context))
    if rows:
        _trace(tx, rows)
