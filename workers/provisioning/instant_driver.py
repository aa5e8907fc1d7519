"""An infrastructure in memory that answers at once: for benchmarks and tests."""

import threading
import uuid

from schemas.values import ResourceState
from workers.provisioning.driver import DriverAnswer, DriverState, Operation, Resource

_ABSENT = Resource(None, ResourceState.ABSENT)


class InstantDriver:
    immediate = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resources: dict[uuid.UUID, Resource] = {}

    def create(self, operation: Operation) -> DriverAnswer:
        return self._become(operation, ResourceState.ACTIVE)

    def suspend(self, operation: Operation) -> DriverAnswer:
        return self._become(operation, ResourceState.SUSPENDED)

    def resume(self, operation: Operation) -> DriverAnswer:
        return self._become(operation, ResourceState.ACTIVE)

    def extend(self, operation: Operation) -> DriverAnswer:
        return self._become(operation, None)

    def terminate(self, operation: Operation) -> DriverAnswer:
        return self._become(operation, ResourceState.ABSENT)

    def get(self, service_id: uuid.UUID) -> DriverAnswer:
        return DriverAnswer(DriverState.DONE, self._resources.get(service_id, _ABSENT))

    def _become(self, operation: Operation, state: ResourceState | None) -> DriverAnswer:
        with self._lock:
            now = self._resources.get(operation.service_id, _ABSENT)
            if operation.generation < now.generation:
                return DriverAnswer(DriverState.STALE, reason="stale_generation")
            exists = now.state is not ResourceState.ABSENT
            if operation.kind not in ("create", "terminate") and not exists:
                return DriverAnswer(DriverState.REFUSED, reason="no_such_resource")
            resource = Resource(
                str(operation.service_id) if state is not ResourceState.ABSENT else None,
                state or now.state,
                operation.generation,
                operation.paid_until or now.paid_until,
            )
            self._resources[operation.service_id] = resource
        return DriverAnswer(DriverState.DONE, resource)
