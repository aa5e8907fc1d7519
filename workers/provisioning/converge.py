"""The task ``converge``: compare what should be with what is, do the one thing that is missing.

A service row says what should be; its generation grows with every change of mind. Calls carry
it, and a stale one is refused, so that a suspend still under way cannot undo the resume that
overtook it.
"""

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import Event, by_task
from producers.ledger import Claim, Failure, Outcome
from producers.renewals import next_steps
from producers.steps import CONVERGE, GATEWAY, REFUND
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date, local_midnight
from schemas.tables.bulk import rows_as_json
from schemas.values import OperationState, Period, ResourceState, ServiceState, derived_id
from workers.orders.ending import end_orders
from workers.provisioning.drivers.port import (
    Driver,
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
    perform,
)
from workers.runtime.runtime import RetryPolicy


def missing_operation(
    desired: ResourceState,
    confirmed: ResourceState,
    *,
    paid_until: date | None,
    confirmed_until: date | None,
    in_doubt: OperationKind | None,
    may_exist: bool,
) -> OperationKind | None:
    """The one thing to do next, or nothing.

    Args:
        in_doubt: what was begun last and never decided: it may have happened, or still will.
        may_exist: it was taken over, or a create was begun, whatever came of it; and no terminate
            was confirmed since.
    """
    if desired is ResourceState.ABSENT:
        return OperationKind.TERMINATE if may_exist else None
    if confirmed is ResourceState.ABSENT:
        return OperationKind.CREATE
    if desired is not confirmed or in_doubt in (OperationKind.SUSPEND, OperationKind.RESUME):
        suspend = desired is ResourceState.SUSPENDED
        return OperationKind.SUSPEND if suspend else OperationKind.RESUME
    if paid_until and confirmed_until and confirmed_until < paid_until:
        return OperationKind.EXTEND
    return None


@dataclass(frozen=True, slots=True)
class Call:
    operation: Operation
    driver: str
    subsidiary: str
    order_id: uuid.UUID | None
    state: ServiceState
    period: Period
    paid_periods: int
    desired: ResourceState
    ask_first: bool
    """It was begun before and never decided."""


_READ = text("""
    SELECT s.*, d.kind AS doubted, d.key AS doubted_key, d.generation AS doubted_generation,
           d.paid_until AS doubted_until, h.refused,
           h.created > h.terminated OR s.confirmed <> 'absent' AS may_exist
    FROM (
        SELECT * FROM services WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
    ) AS s
    LEFT JOIN LATERAL (
        SELECT o.* FROM operations AS o
        WHERE o.service_id = s.id AND o.state IN ('pending', 'unknown')
        ORDER BY o.generation DESC, o.started_at DESC LIMIT 1
    ) AS d ON true
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE o.state = 'failed' AND o.generation = s.generation)
                AS refused,
            coalesce(max(o.generation) FILTER (WHERE o.kind = 'create'), 0) AS created,
            coalesce(max(o.generation) FILTER (
                WHERE o.kind = 'terminate' AND o.state = 'done'), 0) AS terminated
        FROM operations AS o WHERE o.service_id = s.id
    ) AS h
    ORDER BY s.id
""")

_GIVE_UP = text("UPDATE services SET state = 'cancelled' WHERE id = ANY(:ids)")

_BEGIN = text("""
    INSERT INTO operations (key, service_id, kind, generation, paid_until, state)
    SELECT key, service_id, kind, generation, paid_until, 'pending'
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        key uuid, service_id uuid, kind text, generation integer, paid_until date)
    ON CONFLICT (key) DO UPDATE SET state = 'pending', reason = NULL, ended_at = NULL
    WHERE operations.state <> 'done'
""")

_END = text("""
    UPDATE operations AS o SET state = r.state, reason = r.reason,
        ended_at = CASE WHEN r.state = 'unknown' THEN NULL ELSE now() END
    FROM json_to_recordset(CAST(:rows AS json)) AS r(key uuid, state text, reason text)
    WHERE o.key = r.key AND o.state <> 'done'
""")

# What was still in doubt is settled by what was confirmed after it.
_SUPERSEDE = text("""
    UPDATE operations AS o SET state = 'failed', reason = 'superseded', ended_at = now()
    FROM json_to_recordset(CAST(:rows AS json)) AS r(service_id uuid, generation integer, key uuid)
    WHERE o.service_id = r.service_id AND o.generation <= r.generation AND o.key <> r.key
      AND o.state IN ('pending', 'unknown')
""")

# Unless somebody's change of mind has gone beyond it already.
_OVERTAKE = text("""
    UPDATE services AS s SET generation = r.seen + 1
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, generation integer, seen integer)
    WHERE s.id = r.id AND s.generation = r.generation
""")

_CONFIRM = text("""
    UPDATE services AS s SET confirmed = r.confirmed, confirmed_until = r.until,
        resource_id = coalesce(r.resource_id, s.resource_id),
        -- What was given up while it was being created is not delivered.
        state = CASE WHEN s.desired = 'absent' AND r.state <> 'terminated' THEN s.state
            ELSE coalesce(r.state, s.state) END,
        suspended_at = CASE r.state WHEN 'suspended' THEN r.at WHEN 'active' THEN NULL
            ELSE s.suspended_at END,
        next_step = CASE WHEN r.state = 'terminated' THEN NULL ELSE s.next_step END,
        next_step_at = CASE WHEN r.state = 'terminated' THEN NULL ELSE s.next_step_at END,
        anchor = coalesce(s.anchor, r.anchor),
        expires_at = coalesce(s.expires_at, r.expires_at)
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, confirmed text, until date,
        resource_id text, state text, at timestamptz, anchor date, expires_at timestamptz)
    WHERE s.id = r.id
    RETURNING s.id, s.generation, s.desired, s.state, s.anchor, s.paid_periods
""")


# What a service is once that was confirmed.
_STATES = {
    OperationKind.SUSPEND: ServiceState.SUSPENDED,
    OperationKind.RESUME: ServiceState.ACTIVE,
    OperationKind.TERMINATE: ServiceState.TERMINATED,
}
# What never was delivered has ended as cancelled already.
_DELIVERED = (ServiceState.ACTIVE, ServiceState.SUSPENDED)


class ConvergeHandler:
    name = CONVERGE

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        catalogue: CatalogueCache,
        clock: Clock,
        *,
        policy: RetryPolicy,
    ) -> None:
        self.immediate = all(driver.immediate for driver in drivers.values())
        self._drivers = drivers
        self._catalogue = catalogue
        self._clock = clock
        self._policy = policy

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, Call]], Outcome]:
        catalogue, now = self._catalogue.current(tx), self._clock.now()
        rows = tx.execute(_READ, {"ids": claim.subjects}).all()
        self._give_up(tx, rows)
        calls: list[tuple[uuid.UUID, Call]] = []
        outcome = Outcome()
        for row in rows:
            timezone = catalogue.subsidiary(row.subsidiary).timezone
            anchor = row.anchor or local_date(now, timezone)
            paid_until = Period(row.period_months).end(anchor, row.paid_periods)
            kind = missing_operation(
                ResourceState(row.desired),
                ResourceState(row.confirmed),
                paid_until=paid_until,
                confirmed_until=row.confirmed_until,
                in_doubt=OperationKind(row.doubted) if row.doubted else None,
                may_exist=row.may_exist,
            )
            if kind is None:
                outcome.done.append(row.id)
            elif row.driver not in self._drivers:
                outcome.failures.append(
                    Failure(row.id, "no_such_driver", f"no URL is set for driver {row.driver!r}")
                )
            else:
                calls.append((row.id, _call(row, kind, paid_until)))
        known = {row.id for row in rows}
        outcome.done += [subject for subject in claim.subjects if subject not in known]
        if calls:
            begun = [
                {
                    "key": call.operation.key,
                    "service_id": subject,
                    "kind": call.operation.kind,
                    "generation": call.operation.generation,
                    "paid_until": call.operation.paid_until,
                }
                for subject, call in calls
            ]
            tx.execute(_BEGIN, {"rows": rows_as_json(begun)})
        return calls, outcome

    @staticmethod
    def _give_up(tx: Connection, rows: Sequence[Any]) -> None:
        """Paid, not delivered and not wanted any more: the money goes back at once, whatever
        may still have to be cleaned up at the infrastructure."""
        given_up = [r for r in rows if r.state == "delivering" and r.desired == "absent"]
        if not given_up:
            return
        tx.execute(_GIVE_UP, {"ids": [row.id for row in given_up]})
        ledger.enqueue(tx, REFUND, [(row.id, GATEWAY) for row in given_up])
        history.record(tx, (Event(row.id, "service.cancelled") for row in given_up))
        end_orders(tx, (row.order_id for row in given_up))

    def call(self, call: Call) -> DriverAnswer:
        driver, operation = self._drivers[call.driver], call.operation
        if call.ask_first:
            found = driver.get(operation.service_id)
            if found.state is not DriverState.DONE or _is_as_asked(call, found.resource):
                return found
        answer = perform(driver, operation)
        if answer.state is DriverState.STALE:
            seen = driver.get(operation.service_id).resource
            ahead = seen is not None and seen.generation > operation.generation
            return replace(answer, resource=seen if ahead else None)
        if answer.state is DriverState.DONE and not _is_as_asked(call, answer.resource):
            # Whatever was done there, it is not this.
            return DriverAnswer(DriverState.UNKNOWN, answer.resource, "answer_contradicts_request")
        return answer

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Call, DriverAnswer]],
    ) -> Outcome:
        tasks = {task.subject: task for task in claim.tasks}
        outcome = Outcome()
        done: list[tuple[uuid.UUID, Call, DriverAnswer]] = []
        ended, overtaken = [], []
        happened = []
        for subject, call, answer in answers:
            match answer.state:
                case DriverState.DONE:
                    done.append((subject, call, answer))
                    state = OperationState.DONE
                case DriverState.REFUSED:
                    outcome.failures.append(Failure(subject, "driver_refused", answer.reason or ""))
                    state = OperationState.FAILED
                case DriverState.STALE if answer.resource is not None:
                    # The far side has seen a generation that we forgot: go on above it.
                    overtaken.append(
                        {
                            "id": str(subject),
                            "generation": call.operation.generation,
                            "seen": answer.resource.generation,
                        }
                    )
                    outcome.again.append(subject)
                    state = OperationState.FAILED
                case _:
                    outcome.add(
                        self._policy.decide(
                            tasks[subject],
                            f"driver_{answer.state}",
                            answer.reason or "",
                            random.random(),
                        )
                    )
                    stale = answer.state is DriverState.STALE
                    state = OperationState.FAILED if stale else OperationState.UNKNOWN
            ended.append({"key": call.operation.key, "state": state, "reason": answer.reason})
            detail: dict[str, str] = {"operation": call.operation.kind}
            if answer.state is not DriverState.DONE:
                detail["reason"] = answer.reason or ""
            happened.append(
                by_task(tasks[subject], CONVERGE, subject, f"operation.{answer.state}", detail)
            )
        tx.execute(_END, {"rows": rows_as_json(ended)})
        if overtaken:
            tx.execute(_OVERTAKE, {"rows": rows_as_json(overtaken)})
        if done:
            self._confirm(tx, done, outcome, happened)
        history.record(tx, happened)
        delivered = (c.order_id for _, c, _ in done if c.state is ServiceState.DELIVERING)
        end_orders(tx, (order_id for order_id in delivered if order_id is not None))
        return outcome

    def _confirm(
        self,
        tx: Connection,
        done: Sequence[tuple[uuid.UUID, Call, DriverAnswer]],
        outcome: Outcome,
        happened: list[Event],
    ) -> None:
        """Write down what the driver confirmed; what is not as desired yet is looked at again."""
        catalogue, now = self._catalogue.current(tx), self._clock.now()
        rows, supersede = [], []
        delivered: dict[uuid.UUID, dict[str, str]] = {}
        changed: dict[uuid.UUID, ServiceState] = {}
        for subject, call, answer in done:
            operation, resource = call.operation, answer.resource
            confirmed = _becomes(operation.kind, call.desired)
            assert resource is not None  # what is done was seen
            until = resource.paid_until or operation.paid_until
            row: dict[str, Any] = {
                "id": subject,
                "confirmed": confirmed,
                "until": until,
                "resource_id": resource.resource_id,
            }
            if operation.kind is OperationKind.CREATE and call.state is ServiceState.DELIVERING:
                timezone = catalogue.subsidiary(call.subsidiary).timezone
                anchor = local_date(now, timezone)
                expires = call.period.end(anchor, call.paid_periods)
                row |= {
                    "state": ServiceState.ACTIVE,
                    "anchor": anchor,
                    "expires_at": local_midnight(expires, timezone),
                }
                delivered[subject] = {
                    "resource": row["resource_id"],
                    "paid_until": expires.isoformat(),
                }
            elif operation.kind in _STATES and call.state in _DELIVERED:
                row |= {"state": _STATES[operation.kind], "at": now}
                changed[subject] = _STATES[operation.kind]
            rows.append(row)
            if call.ask_first or operation.kind is OperationKind.TERMINATE:
                supersede.append(
                    {
                        "service_id": str(subject),
                        "generation": operation.generation,
                        "key": operation.key,
                    }
                )
        now_is = {row.id: row for row in tx.execute(_CONFIRM, {"rows": rows_as_json(rows)}).all()}
        happened += (
            Event(subject, "service.delivered", detail)
            for subject, detail in delivered.items()
            if now_is[subject].state == ServiceState.ACTIVE
        )
        happened += (
            Event(subject, f"service.{'resumed' if state == 'active' else state}")
            for subject, state in changed.items()
        )
        if catalogue.rollouts:
            next_steps.decide_again(tx, [*delivered, *changed], catalogue, now)
        if supersede:
            tx.execute(_SUPERSEDE, {"rows": rows_as_json(supersede)})
        for (subject, call, _), row in zip(done, rows, strict=True):
            service = now_is[subject]
            same = service.generation == call.operation.generation
            if same and service.desired == row["confirmed"] and _is_paid_up(service, call, row):
                outcome.done.append(subject)
            else:
                outcome.again.append(subject)


def _is_paid_up(service: Any, call: Call, row: Mapping[str, Any]) -> bool:
    """Whether what is there lasts as long as what was paid for; what is gone always does."""
    if service.desired == ResourceState.ABSENT:
        return True
    paid_until = call.period.end(service.anchor, service.paid_periods)
    return bool(row["until"] >= paid_until)


def _is_as_asked(call: Call, resource: Resource | None) -> bool:
    """Whether what the far side shows is what this call leads to."""
    operation = call.operation
    if resource is None or resource.state is not _becomes(operation.kind, call.desired):
        return False
    if resource.state is ResourceState.ABSENT:
        # Nothing is there; but a create that is still under way may arrive. Only a terminate
        # that was seen there makes it stale.
        return resource.generation >= operation.generation
    lasts = operation.kind not in (OperationKind.CREATE, OperationKind.EXTEND) or (
        resource.paid_until is None or resource.paid_until >= operation.paid_until
    )
    return lasts and resource.generation >= operation.generation


def _becomes(kind: OperationKind, desired: ResourceState) -> ResourceState:
    match kind:
        case OperationKind.CREATE | OperationKind.RESUME:
            return ResourceState.ACTIVE
        case OperationKind.SUSPEND:
            return ResourceState.SUSPENDED
        case OperationKind.TERMINATE:
            return ResourceState.ABSENT
        case OperationKind.EXTEND:
            return desired


def _call(row: Any, kind: OperationKind, paid_until: date) -> Call:
    if (row.doubted, row.doubted_generation) == (kind, row.generation):
        # Asked for again in the same words under the same key, until it is decided.
        key, paid_until = row.doubted_key, row.doubted_until
    else:
        facts = (row.id, row.generation, kind, paid_until, row.refused)
        key = derived_id("operation", *facts)
    return Call(
        operation=Operation(
            kind=kind,
            key=str(key),
            generation=row.generation,
            service_id=row.id,
            customer=row.customer_id,
            plan=row.plan,
            configuration=row.configuration,
            paid_until=paid_until,
            resource_id=row.resource_id,
        ),
        driver=row.driver,
        subsidiary=row.subsidiary,
        order_id=row.order_id,
        state=ServiceState(row.state),
        period=Period(row.period_months),
        paid_periods=row.paid_periods,
        desired=ResourceState(row.desired),
        ask_first=row.doubted is not None,
    )
