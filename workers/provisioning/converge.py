"""The task ``converge``: compare what should be with what is, do the one thing that is missing.

A service row says what should be; its generation grows with every change of mind. Calls carry
it, and a stale one is refused, so that a suspend still under way cannot undo the resume that
overtook it.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from producers import history, ledger
from producers.history import Event, by_task
from producers.ledger import Claim, ClaimedTask, Failure, Outcome
from producers.renewals import next_steps
from producers.steps import CONVERGE, GATEWAY, REFUND
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, local_date, local_midnight
from schemas.values import DELIVERED, OperationState, Period, ResourceState, ServiceState
from workers.orders.ending import end_orders
from workers.orders.telling import BY_EMAIL, tell
from workers.outside.attempts import AGAIN, DONE, Meaning, attempt, settle
from workers.outside.health import Health
from workers.outside.texts import printable
from workers.provisioning import store
from workers.provisioning.drivers.details import told
from workers.provisioning.drivers.port import Driver, DriverAnswer, DriverState, OperationKind
from workers.provisioning.operations import (
    Call,
    becomes,
    call_of,
    checked,
    health_of,
    is_decided,
    meaning_of,
    missing_operation,
    overtaken,
)
from workers.runtime.retries import RetryPolicy

# What a service is once that was confirmed.
_STATES = {
    OperationKind.SUSPEND: ServiceState.SUSPENDED,
    OperationKind.RESUME: ServiceState.ACTIVE,
    OperationKind.TERMINATE: ServiceState.TERMINATED,
}
# What never was delivered has ended as cancelled already.


class ConvergeHandler:
    name = CONVERGE
    at_once: int | None = None

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        catalogue: CatalogueCache,
        clock: Clock,
        *,
        policy: RetryPolicy,
        told_after: float = 300.0,
    ) -> None:
        """
        Args:
            told_after: seconds for which the e-mail about an order that has not ended is put off.
        """
        self.immediate = all(driver.immediate for driver in drivers.values())
        self._drivers = drivers
        self._catalogue = catalogue
        self._clock = clock
        self._policy = policy
        self._told_after = told_after

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, Call]], Outcome]:
        catalogue, now = self._catalogue.current(tx), self._clock.now()
        rows = tx.execute(store.READ, {"ids": claim.subjects}).all()
        self._give_up(tx, rows, catalogue)
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
                calls.append((row.id, call_of(row, kind, paid_until)))
        known = {row.id for row in rows}
        outcome.done += [subject for subject in claim.subjects if subject not in known]
        if calls:
            store.BEGIN(tx, [_row(call) for _, call in calls])
        return calls, outcome

    def _give_up(self, tx: Connection, rows: Sequence[Any], catalogue: Catalogue) -> None:
        """Paid, not delivered and not wanted any more: the money goes back at once, whatever
        may still have to be cleaned up at the infrastructure."""
        given_up = [
            r
            for r in rows
            if r.state == ServiceState.DELIVERING and r.desired == ResourceState.ABSENT
        ]
        if not given_up:
            return
        tx.execute(store.GIVE_UP, {"ids": [row.id for row in given_up]})
        ledger.enqueue(tx, REFUND, [(row.id, GATEWAY) for row in given_up])
        told = [row for row in given_up if catalogue.subsidiary(row.subsidiary).delivery_emails]
        by_email = {row.id: BY_EMAIL for row in told}
        history.record(
            tx, (Event(row.id, "service.cancelled", by_email.get(row.id)) for row in given_up)
        )
        ended = end_orders(tx, (row.order_id for row in given_up))
        tell(tx, {row.order_id for row in told}, ended, self._told_after)

    async def call(self, call: Call) -> DriverAnswer:
        driver, operation = self._drivers[call.driver], call.operation
        answer = await attempt(
            driver,
            operation,
            in_doubt=call.ask_first,
            is_decided=lambda found: is_decided(call, found),
        )
        if answer.state is DriverState.STALE:
            return overtaken(call, answer, await driver.ask(operation))
        return checked(call, answer)

    def health(self, call: Call, answer: DriverAnswer) -> Health | None:
        return health_of(answer)

    async def close(self) -> None:
        for driver in self._drivers.values():
            await driver.close()

    def record(
        self,
        tx: Connection,
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, Call, DriverAnswer]],
    ) -> Outcome:
        tasks = {task.subject: task for task in claim.tasks}
        store.END(tx, [_ended(call, answer) for _, call, answer in answers])
        forgotten = [
            store.OvertakeRow(subject, call.operation.generation, answer.resource.generation)
            for subject, call, answer in answers
            if answer.state is DriverState.STALE and answer.resource is not None
        ]
        if forgotten:
            store.OVERTAKE(tx, forgotten)
        done = [one for one in answers if one[2].state is DriverState.DONE]
        happened = [
            by_task(
                tasks[subject],
                CONVERGE,
                subject,
                f"operation.{answer.state}",
                _detail(call, answer),
            )
            for subject, call, answer in answers
            if not (answer.state is DriverState.IN_PROGRESS and call.ask_first)  # told once
        ]
        to_tell: set[uuid.UUID] = set()
        as_desired = self._confirm(tx, done, happened, to_tell) if done else set()
        history.record(tx, happened)
        delivered = (c.order_id for _, c, _ in done if c.state is ServiceState.DELIVERING)
        ended = end_orders(tx, (order_id for order_id in delivered if order_id is not None))
        tell(tx, to_tell, ended, self._told_after)

        def meaning(task: ClaimedTask, call: Call, answer: DriverAnswer) -> Meaning:
            meant = meaning_of(task, answer, self._policy, call.seconds)
            return AGAIN if meant is DONE and task.subject not in as_desired else meant

        return settle(claim, answers, meaning)

    def _confirm(
        self,
        tx: Connection,
        done: Sequence[tuple[uuid.UUID, Call, DriverAnswer]],
        happened: list[Event],
        to_tell: set[uuid.UUID],
    ) -> set[uuid.UUID]:
        """Write down what drivers confirmed; returns the services that are as desired by now.

        Args:
            happened, to_tell: are given what is to be recorded, and the orders whose customers are
                to be told.
        """
        catalogue, now = self._catalogue.current(tx), self._clock.now()
        rows = [_confirmed(subject, call, answer, catalogue, now) for subject, call, answer in done]
        now_is = {row.id: row for row in store.CONFIRM(tx, rows)}
        changed = []
        for (_, call, _), row in zip(done, rows, strict=True):
            if row.expires_at is not None and row.anchor is not None:
                changed.append(row.id)
                if now_is[row.id].state == ServiceState.ACTIVE:
                    subsidiary = catalogue.subsidiary(now_is[row.id].subsidiary)
                    until = local_date(row.expires_at, subsidiary.timezone).isoformat()
                    detail: dict[str, Any] = {"resource": row.resource_id, "paid_until": until}
                    if subsidiary.delivery_emails and call.order_id is not None:
                        detail |= BY_EMAIL
                        to_tell.add(call.order_id)
                    happened.append(Event(row.id, "service.delivered", detail))
        for row in rows:
            if row.state is not None and row.expires_at is None:
                changed.append(row.id)
                became = "resumed" if row.state is ServiceState.ACTIVE else row.state
                happened.append(Event(row.id, f"service.{became}"))
        if catalogue.rollouts:
            next_steps.decide_again(tx, changed, catalogue, now)
        settled = [
            store.SupersedeRow(o.service_id, o.generation, uuid.UUID(o.key))
            for _, call, _ in done
            if (o := call.operation).kind is OperationKind.TERMINATE or call.ask_first
        ]
        if settled:
            store.SUPERSEDE(tx, settled)
        return {
            row.id
            for (_, call, _), row in zip(done, rows, strict=True)
            if _is_as_desired(now_is[row.id], call, row)
        }


def _row(call: Call) -> store.OperationRow:
    o = call.operation
    return store.OperationRow(uuid.UUID(o.key), o.service_id, o.kind, o.generation, o.paid_until)


def _ended(call: Call, answer: DriverAnswer) -> store.EndedRow:
    match answer.state:
        case DriverState.DONE:
            state = OperationState.DONE
        case DriverState.REFUSED | DriverState.PERMANENT | DriverState.STALE:
            state = OperationState.FAILED
        case DriverState.UNKNOWN | DriverState.UNAVAILABLE | DriverState.IN_PROGRESS:
            state = OperationState.UNKNOWN
    return store.EndedRow(uuid.UUID(call.operation.key), state, answer.reason)


def _detail(call: Call, answer: DriverAnswer) -> dict[str, str]:
    detail: dict[str, str] = {"operation": call.operation.kind}
    if answer.state is not DriverState.DONE:
        detail["reason"] = answer.reason or ""
        if answer.words:
            detail["words"] = answer.words
    return detail


def _confirmed(
    subject: uuid.UUID, call: Call, answer: DriverAnswer, catalogue: Catalogue, now: datetime
) -> store.ConfirmRow:
    """What is written of a service whose operation is done."""
    operation, resource = call.operation, answer.resource
    assert resource is not None  # what is done was seen
    state = at = anchor = expires_at = None
    if operation.kind is OperationKind.CREATE and call.state is ServiceState.DELIVERING:
        timezone = catalogue.subsidiary(call.subsidiary).timezone
        state, anchor = ServiceState.ACTIVE, local_date(now, timezone)
        expires_at = local_midnight(call.period.end(anchor, call.paid_periods), timezone)
    elif operation.kind in _STATES and call.state in DELIVERED:
        # What is suspended, and was found to be active there, is suspended since when it was.
        is_again = operation.kind is OperationKind.SUSPEND and call.state is ServiceState.SUSPENDED
        if not is_again or call.ask_first:
            state, at = _STATES[operation.kind], now
    return store.ConfirmRow(
        id=subject,
        confirmed=becomes(operation.kind, call.desired),
        until=resource.paid_until or operation.paid_until,
        resource_id=printable(resource.resource_id) if resource.resource_id else None,
        details=told(resource.details) or None,
        state=state,
        at=at,
        anchor=anchor,
        expires_at=expires_at,
    )


def _is_as_desired(service: Any, call: Call, row: store.ConfirmRow) -> bool:
    """Whether nothing is left to do: what is there is what should be, and lasts as long as what
    was paid for; what is gone always does."""
    if service.generation != call.operation.generation or service.desired != row.confirmed:
        return False
    if service.desired == ResourceState.ABSENT:
        return True
    return row.until >= call.period.end(service.anchor, service.paid_periods)
