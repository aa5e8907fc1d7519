"""An infrastructure in memory that answers at once: for benchmarks and tests."""

import threading
import uuid

from pydantic import BaseModel

from schemas.books import ResourceEntry
from schemas.values import ResourceState
from workers.provisioning.drivers.port import (
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)

_ABSENT = Resource(None, ResourceState.ABSENT)
_BECOMES = {
    OperationKind.CREATE: ResourceState.ACTIVE,
    OperationKind.SUSPEND: ResourceState.SUSPENDED,
    OperationKind.RESUME: ResourceState.ACTIVE,
    OperationKind.EXTEND: None,  # what it is
    OperationKind.TERMINATE: ResourceState.ABSENT,
}


class NoSettings(BaseModel):
    """There is nothing to tell it."""


class InstantDriver:
    Settings = NoSettings
    immediate = True

    def __init__(self, _name: str = "instant", _settings: NoSettings | None = None) -> None:
        self._lock = threading.Lock()
        self._resources: dict[uuid.UUID, Resource] = {}
        self._answers: dict[str, tuple[tuple[object, ...], DriverAnswer]] = {}  # by key

    async def ask(self, operation: Operation) -> DriverAnswer:
        resource = self._resources.get(operation.service_id, _ABSENT)
        return DriverAnswer(DriverState.DONE, resource)

    async def resources(self, after: str | None) -> list[ResourceEntry]:
        living = [
            ResourceEntry(str(number), str(service), str(service), resource.state)
            for number, (service, resource) in enumerate(list(self._resources.items()), 1)
            if resource.state is not ResourceState.ABSENT
        ]
        return [entry for entry in living if int(entry.cursor) > int(after or 0)]

    async def close(self) -> None:
        pass

    async def perform(self, operation: Operation) -> DriverAnswer:
        state = _BECOMES[operation.kind]
        body = _body(operation)
        with self._lock:
            now = self._resources.get(operation.service_id, _ABSENT)
            if operation.generation < now.generation:
                return DriverAnswer(DriverState.STALE, reason="stale_generation")
            known = self._answers.get(operation.key)
            if known is not None:
                if known[0] != body:
                    return DriverAnswer(DriverState.REFUSED, reason="key_reused")
                return known[1]
            if now is _ABSENT and operation.resource_id is not None:  # taken over
                now = Resource(operation.resource_id, ResourceState.ACTIVE)
            exists = now.state is not ResourceState.ABSENT
            if operation.kind not in ("create", "terminate") and not exists:
                return DriverAnswer(DriverState.REFUSED, reason="no_such_resource")
            absent = state is ResourceState.ABSENT
            resource = Resource(
                None if absent else str(operation.service_id),
                state or now.state,
                operation.generation,
                None if absent else operation.paid_until,
            )
            answer = DriverAnswer(DriverState.DONE, resource)
            self._resources[operation.service_id] = resource
            self._answers[operation.key] = body, answer
        return answer


def _body(operation: Operation) -> tuple[object, ...]:
    """What tells operations apart; of a configuration, which may be large, its hash."""
    configuration = operation.configuration
    return (
        operation.kind,
        operation.generation,
        operation.service_id,
        operation.customer,
        operation.plan,
        operation.paid_until,
        hash(str(sorted(configuration.items()))) if configuration else None,
    )
