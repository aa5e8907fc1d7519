"""The port to an infrastructure API: what provisioning asks, and what may be answered."""

import uuid
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Protocol

from schemas.values import ResourceState


class OperationKind(StrEnum):
    CREATE = "create"
    SUSPEND = "suspend"
    RESUME = "resume"
    EXTEND = "extend"
    TERMINATE = "terminate"


class DriverState(StrEnum):
    DONE = "done"
    REFUSED = "refused"  # a definite no
    STALE = "stale"  # a newer generation was seen there
    UNKNOWN = "unknown"  # it may or may not have been done
    UNAVAILABLE = "unavailable"  # certainly not done


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to do. The same key and generation may be sent any number of times."""

    kind: OperationKind
    key: str
    generation: int
    service_id: uuid.UUID
    customer: str
    plan: str
    configuration: dict[str, Any]
    paid_until: date
    resource_id: str | None = None
    """What the far side calls it. Of a service that was taken over, it is all the far side knows:
    the first operation on it makes the service's id known there."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What there is at the far side; ``state`` absent: nothing."""

    resource_id: str | None
    state: ResourceState
    generation: int = 0
    paid_until: date | None = None


@dataclass(frozen=True, slots=True)
class DriverAnswer:
    state: DriverState
    resource: Resource | None = None
    reason: str | None = None


class Driver(Protocol):
    """Faults of the far side are answers, never exceptions.

    create, of what exists, and terminate, of what does not, are done: services are converged.
    A call with an older generation than the last one seen is stale.
    """

    immediate: bool
    """Answers at once in this process, without waiting for anything."""

    def create(self, operation: Operation) -> DriverAnswer: ...

    def suspend(self, operation: Operation) -> DriverAnswer: ...

    def resume(self, operation: Operation) -> DriverAnswer: ...

    def extend(self, operation: Operation) -> DriverAnswer: ...

    def terminate(self, operation: Operation) -> DriverAnswer: ...

    def get(self, service_id: uuid.UUID) -> DriverAnswer:
        """What there is now: done with a resource (perhaps absent), or why it is not known."""
        ...


def perform(driver: Driver, operation: Operation) -> DriverAnswer:
    match operation.kind:
        case OperationKind.CREATE:
            return driver.create(operation)
        case OperationKind.SUSPEND:
            return driver.suspend(operation)
        case OperationKind.RESUME:
            return driver.resume(operation)
        case OperationKind.EXTEND:
            return driver.extend(operation)
        case OperationKind.TERMINATE:
            return driver.terminate(operation)
