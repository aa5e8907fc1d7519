"""Which operation a service needs next, and what its driver's answer means. Pure functions."""

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from producers.ledger import ClaimedTask, Retry
from schemas.values import OrderId, Period, ResourceState, ServiceState, derived_id
from workers.outside.attempts import AGAIN, DONE, Meaning
from workers.outside.health import GOOD, Health
from workers.provisioning.drivers.port import (
    MOST_AHEAD,
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)
from workers.runtime.retries import RetryPolicy

# What is in progress is asked about again after a quarter of the time it has taken, within these.
POLL_SECONDS = 1.0
POLL_MOST_SECONDS = 60.0
# What takes longer is no progress: it counts as a failure.
LONGEST_SECONDS = 6 * 3600.0


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
    order_id: OrderId | None
    state: ServiceState
    period: Period
    paid_periods: int
    desired: ResourceState
    ask_first: bool
    """It was begun before and never decided."""
    repeats: bool = True
    """And it was this one, not one that it overtakes."""
    seconds: float = 0.0
    """Since it was begun."""


def call_of(row: Any, kind: OperationKind, paid_until: date) -> Call:
    """The call that does it.

    Args:
        row: the service, with its last operation that was not decided.
    """
    repeats = (row.doubted, row.doubted_generation) == (kind, row.generation)
    if repeats:
        # Asked for again in the same words under the same key, until it is decided.
        key, paid_until = row.doubted_key, row.doubted_until
    else:
        facts = (row.id, row.generation, kind, paid_until, row.refused)
        key = derived_id("operation", *facts, near=paid_until)
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
        repeats=repeats or row.doubted is None,
        seconds=row.doubted_seconds or 0.0,
    )


def checked(call: Call, answer: DriverAnswer) -> DriverAnswer:
    """An answer that can be believed: of the state that was asked for, of a generation that can be.

    A driver that reports success, but not what we asked for, leaves it unknown.
    """
    resource = answer.resource
    if resource is not None and resource.generation > call.operation.generation + MOST_AHEAD:
        return DriverAnswer(DriverState.UNKNOWN, reason="generation_out_of_bounds")
    if answer.state is DriverState.DONE and not is_as_asked(call, resource):
        return DriverAnswer(DriverState.UNKNOWN, resource, "answer_contradicts_request")
    return answer


def overtaken(call: Call, stale: DriverAnswer, seen: DriverAnswer) -> DriverAnswer:
    """A stale answer, with what is there if that is ahead of us: a generation that we forgot."""
    resource = seen.resource
    ahead = 0 if resource is None else resource.generation - call.operation.generation
    if ahead > MOST_AHEAD:
        return DriverAnswer(DriverState.UNKNOWN, reason="generation_out_of_bounds")
    return replace(stale, resource=resource if ahead > 0 else None)


def meaning_of(
    task: ClaimedTask, answer: DriverAnswer, policy: RetryPolicy, seconds: float = 0.0
) -> Meaning:
    """What a driver's answer means for a service's task.

    Args:
        seconds: since its operation was begun.
    """
    match answer.state:
        case DriverState.DONE:
            return DONE
        case DriverState.IN_PROGRESS if seconds < LONGEST_SECONDS:
            delay = answer.retry_after or min(max(seconds / 4, POLL_SECONDS), POLL_MOST_SECONDS)
            return Retry(
                task.subject, "in_progress", said(answer), delay=delay, counts=False,
                code=answer.reason,
            )  # fmt: skip
        case DriverState.STALE if answer.resource is not None:
            return AGAIN  # above the generation that the far side has seen
        case state:
            return policy.decide(task, f"driver_{state}", said(answer), answer.reason)


def health_of(answer: DriverAnswer) -> Health:
    """Whether an infrastructure works: whatever it refuses, it does."""
    match answer.state:
        case DriverState.UNKNOWN | DriverState.UNAVAILABLE | DriverState.PERMANENT:
            return Health(False, said(answer), answer.retry_after)
    return GOOD


def said(answer: DriverAnswer) -> str:
    """What a person reads of an answer."""
    return ": ".join(filter(None, dict.fromkeys((answer.reason, answer.words))))


def is_decided(call: Call, found: DriverAnswer) -> bool:
    """Whether what a driver says to the question about an operation in doubt is the last word.

    What is still in progress there is waited for, unless another operation is wanted by now: that
    calls it off.
    """
    match found.state:
        case DriverState.DONE:
            return is_as_asked(call, found.resource)
        case DriverState.IN_PROGRESS:
            return call.repeats
    return True


def is_as_asked(call: Call, resource: Resource | None) -> bool:
    """Whether what the far side shows is what this call leads to."""
    operation = call.operation
    if resource is None or resource.state is not becomes(operation.kind, call.desired):
        return False
    if resource.state is ResourceState.ABSENT:
        # Nothing is there; but a create that is still under way may arrive. Only a terminate
        # that was seen there makes it stale.
        return resource.generation >= operation.generation
    lasts = operation.kind not in (OperationKind.CREATE, OperationKind.EXTEND) or (
        resource.paid_until is None or resource.paid_until >= operation.paid_until
    )
    return lasts and resource.generation >= operation.generation


def becomes(kind: OperationKind, desired: ResourceState) -> ResourceState:
    match kind:
        case OperationKind.CREATE | OperationKind.RESUME:
            return ResourceState.ACTIVE
        case OperationKind.SUSPEND:
            return ResourceState.SUSPENDED
        case OperationKind.TERMINATE:
            return ResourceState.ABSENT
        case OperationKind.EXTEND:
            return desired
