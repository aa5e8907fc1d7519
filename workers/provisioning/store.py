"""The statements of provisioning: services with what is in doubt of them, and operations."""

import uuid
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import text

from schemas.tables.bulk import Bulk
from schemas.values import OperationState, ResourceState, ServiceId, ServiceState
from workers.provisioning.drivers.port import OperationKind

# With the condition of the index ``operations_telling``: a service that was extended for years is
# read as fast as a new one.
READ = text("""
    SELECT s.*, d.kind AS doubted, d.key AS doubted_key, d.generation AS doubted_generation,
           d.paid_until AS doubted_until, h.refused,
           extract(epoch FROM now() - d.started_at)::float8 AS doubted_seconds,
           h.created > h.terminated OR s.confirmed <> 'absent' AS may_exist
    FROM (
        SELECT id, order_id, customer_id, subsidiary, plan, driver, configuration, period_months,
            state, anchor, paid_periods, desired, generation, confirmed, confirmed_until,
            resource_id
        FROM services WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
    ) AS s
    LEFT JOIN LATERAL (
        SELECT o.* FROM operations AS o
        WHERE o.service_id = s.id AND o.state IN ('pending', 'unknown')
          AND (o.kind <> 'extend' OR o.state <> 'done')
        ORDER BY o.generation DESC, o.started_at DESC LIMIT 1
    ) AS d ON true
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE o.state = 'failed' AND o.generation = s.generation)
                AS refused,
            coalesce(max(o.generation) FILTER (WHERE o.kind = 'create'), 0) AS created,
            coalesce(max(o.generation) FILTER (
                WHERE o.kind = 'terminate' AND o.state = 'done'), 0) AS terminated
        FROM operations AS o
        WHERE o.service_id = s.id AND (o.kind <> 'extend' OR o.state <> 'done')
    ) AS h
    ORDER BY s.id
""")

GIVE_UP = text("UPDATE services SET state = 'cancelled' WHERE id = ANY(:ids)")


@dataclass(frozen=True, slots=True)
class OperationRow:
    """An operation as it begins."""

    key: uuid.UUID
    service_id: ServiceId
    kind: OperationKind
    generation: int
    paid_until: date


BEGIN = Bulk(
    OperationRow,
    """
    INSERT INTO operations (key, service_id, kind, generation, paid_until, state)
    SELECT key, service_id, kind, generation, paid_until, 'pending'
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        key uuid, service_id uuid, kind text, generation integer, paid_until date)
    ON CONFLICT (key) DO UPDATE SET state = 'pending', reason = NULL, ended_at = NULL
    WHERE operations.state <> 'done'
    """,
)


@dataclass(frozen=True, slots=True)
class EndedRow:
    """How an operation ended, as far as is known."""

    key: uuid.UUID
    state: OperationState
    reason: str | None


END = Bulk(
    EndedRow,
    """
    UPDATE operations AS o SET state = r.state, reason = r.reason,
        ended_at = CASE WHEN r.state = 'unknown' THEN NULL ELSE now() END
    FROM json_to_recordset(CAST(:rows AS json)) AS r(key uuid, state text, reason text)
    WHERE o.key = r.key AND o.state <> 'done'
    """,
)


@dataclass(frozen=True, slots=True)
class SupersedeRow:
    """What was confirmed: whatever of its service is in doubt up to there is settled by it."""

    service_id: ServiceId
    generation: int
    key: uuid.UUID


SUPERSEDE = Bulk(
    SupersedeRow,
    """
    UPDATE operations AS o SET state = 'failed', reason = 'superseded', ended_at = now()
    FROM json_to_recordset(CAST(:rows AS json)) AS r(service_id uuid, generation integer, key uuid)
    WHERE o.service_id = r.service_id AND o.generation <= r.generation AND o.key <> r.key
      AND o.state IN ('pending', 'unknown') AND (o.kind <> 'extend' OR o.state <> 'done')
    """,
)


@dataclass(frozen=True, slots=True)
class OvertakeRow:
    """A generation that the far side has seen and we forgot."""

    id: uuid.UUID
    generation: int
    seen: int


# Unless somebody's change of mind has gone beyond it already.
OVERTAKE = Bulk(
    OvertakeRow,
    """
    UPDATE services AS s SET generation = r.seen + 1
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, generation integer, seen integer)
    WHERE s.id = r.id AND s.generation = r.generation
    """,
)


@dataclass(frozen=True, slots=True)
class ConfirmRow:
    """What a driver confirmed of a service.

    Attributes:
        state: what the service is by that; None: what it was.
        at: when it was confirmed, where the state changes.
        anchor, expires_at: of one that was just delivered.
    """

    id: uuid.UUID
    confirmed: ResourceState
    until: date
    resource_id: str | None
    details: dict[str, str] | None = None
    state: ServiceState | None = None
    at: datetime | None = None
    anchor: date | None = None
    expires_at: datetime | None = None


CONFIRM = Bulk(
    ConfirmRow,
    """
    UPDATE services AS s SET confirmed = r.confirmed, confirmed_until = r.until,
        resource_id = coalesce(r.resource_id, s.resource_id),
        details = coalesce(r.details, s.details),
        -- What was given up while it was being created is not delivered.
        state = CASE WHEN s.desired = 'absent' AND r.state <> 'terminated' THEN s.state
            ELSE coalesce(r.state, s.state) END,
        suspended_at = CASE r.state WHEN 'active' THEN NULL
            WHEN 'suspended' THEN CASE WHEN s.held_at IS NULL THEN r.at ELSE s.suspended_at END
            ELSE s.suspended_at END,
        next_step = CASE WHEN r.state = 'terminated' THEN NULL ELSE s.next_step END,
        next_step_at = CASE WHEN r.state = 'terminated' THEN NULL ELSE s.next_step_at END,
        anchor = coalesce(s.anchor, r.anchor),
        expires_at = coalesce(s.expires_at, r.expires_at)
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, confirmed text, until date,
        resource_id text, details jsonb, state text, at timestamptz, anchor date,
        expires_at timestamptz)
    WHERE s.id = r.id
    RETURNING s.id, s.subsidiary, s.generation, s.desired, s.state, s.anchor,
        s.paid_periods
    """,
)
