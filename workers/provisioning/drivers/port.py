"""The port to an infrastructure API: what provisioning asks, and what may be answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any, Protocol

from schemas.books import ResourceEntry
from schemas.values import ResourceState, ServiceId

# A far side may have seen generations that a restored database forgot, but not many: an answer that
# is further ahead is wrong, and following it would pin its service for ever.
MOST_AHEAD = 1000


class OperationKind(StrEnum):
    CREATE = "create"
    SUSPEND = "suspend"
    RESUME = "resume"
    EXTEND = "extend"
    TERMINATE = "terminate"


class DriverState(StrEnum):
    DONE = "done"
    IN_PROGRESS = "in_progress"  # begun there, and not ended yet: to be asked about again
    REFUSED = "refused"  # a definite no to what was asked for, such as a quota or a wrong option
    PERMANENT = "permanent"  # no other wording of it changes this no: a credential is wrong
    STALE = "stale"  # a newer generation was seen there
    UNKNOWN = "unknown"  # it may or may not have been done
    UNAVAILABLE = "unavailable"  # certainly not done


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to do. The same key and generation may be sent any number of times."""

    kind: OperationKind
    key: str
    generation: int
    service_id: ServiceId
    customer: str
    plan: str
    configuration: dict[str, Any]
    paid_until: date
    resource_id: str | None = None
    """What the far side calls it. Of a service that was taken over, it is all the far side knows:
    the first operation on it makes the service's id known there."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What there is at the far side; ``state`` absent: nothing.

    Attributes:
        details: what the customer is told of it when it is delivered, such as its address: short
            texts by name. Never a password.
    """

    resource_id: str | None
    state: ResourceState
    generation: int = 0
    paid_until: date | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DriverAnswer:
    """
    Attributes:
        resource: what there is now, if that is known.
        reason: a short stable code, by which failures are grouped: the far side's own
            (``out_of_stock``), or what happened to the call.
        words: what the far side says to a person about it.
        retry_after: seconds for which the far side asks not to be called at all, or, of what is
            in progress, not to be asked about it.
    """

    state: DriverState
    resource: Resource | None = None
    reason: str | None = None
    words: str | None = None
    retry_after: float | None = None


class Driver(Protocol):
    """See :class:`workers.outside.attempts.Port`. A new one passes ``workers.conformance``.

    Services are converged: to create what exists, and to terminate what does not, is done. A call
    with an older generation than the last one seen is stale.
    """

    immediate: bool

    async def perform(self, operation: Operation) -> DriverAnswer: ...

    async def ask(self, operation: Operation) -> DriverAnswer:
        """What there is of its service now: done with a resource (perhaps absent), or why that is
        not known."""
        ...

    async def resources(self, after: str | None) -> Sequence[ResourceEntry]:
        """See :class:`schemas.books.ResourceBook`."""
        ...

    async def close(self) -> None: ...
