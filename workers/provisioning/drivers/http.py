"""An infrastructure that speaks HTTP; what it must answer is in docs/reference/simulator.md."""

import uuid
from datetime import date
from typing import Any

from schemas.values import ResourceState
from workers.outside.http import Answer, HttpCalls, InDoubt, NotSent
from workers.provisioning.drivers.port import (
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)


class HttpDriver:
    immediate = False

    def __init__(
        self, name: str, base_url: str, *, seconds: float, token: str | None = None
    ) -> None:
        self._calls = HttpCalls(f"driver:{name}", base_url, token=token, seconds=seconds)

    def create(self, operation: Operation) -> DriverAnswer:
        return self._put(OperationKind.CREATE, operation)

    def suspend(self, operation: Operation) -> DriverAnswer:
        return self._put(OperationKind.SUSPEND, operation)

    def resume(self, operation: Operation) -> DriverAnswer:
        return self._put(OperationKind.RESUME, operation)

    def extend(self, operation: Operation) -> DriverAnswer:
        return self._put(OperationKind.EXTEND, operation)

    def terminate(self, operation: Operation) -> DriverAnswer:
        return self._put(OperationKind.TERMINATE, operation)

    def get(self, service_id: uuid.UUID) -> DriverAnswer:
        return self._ask("get", "GET", f"/services/{service_id}")

    def _put(self, kind: OperationKind, operation: Operation) -> DriverAnswer:
        body = {
            "key": operation.key,
            "generation": operation.generation,
            "customer": operation.customer,
            "plan": operation.plan,
            "configuration": operation.configuration,
            "paid_until": operation.paid_until.isoformat(),
        }
        if operation.resource_id is not None:
            body["resource_id"] = operation.resource_id
        return self._ask(kind, "PUT", f"/services/{operation.service_id}/{kind}", body)

    def _ask(
        self, operation: str, method: str, path: str, body: dict[str, Any] | None = None
    ) -> DriverAnswer:
        try:
            answer = _read(self._calls.call(operation, method, path, body), operation)
        except NotSent as error:
            answer = DriverAnswer(DriverState.UNAVAILABLE, reason=str(error))
        except InDoubt as error:
            answer = DriverAnswer(DriverState.UNKNOWN, reason=str(error))
        self._calls.count(operation, answer.state)
        return answer


# The request never reached the infrastructure itself: wrong credential, too many at once.
_TURNED_AWAY = (401, 403, 425, 429)


def _read(answer: Answer, operation: str) -> DriverAnswer:
    body = answer.body
    if answer.status in (200, 201):
        try:
            until = body.get("paid_until")
            resource = Resource(
                resource_id=body.get("resource_id"),
                state=ResourceState(body["state"]),
                generation=int(body["generation"]),
                paid_until=date.fromisoformat(until) if until else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            return DriverAnswer(DriverState.UNKNOWN, reason=f"not understood: {error}")
        return DriverAnswer(DriverState.DONE, resource)
    code = str(body.get("code") or f"HTTP {answer.status}")
    if answer.status == 404 and code == "not_found" and operation == "get":
        return DriverAnswer(DriverState.DONE, Resource(None, ResourceState.ABSENT))
    if answer.status in _TURNED_AWAY:
        return DriverAnswer(DriverState.UNAVAILABLE, reason=code)
    if answer.status == 409 and code == "stale_generation":
        return DriverAnswer(DriverState.STALE, reason=code)
    if 400 <= answer.status < 500 and answer.status not in (404, 405, 408):
        return DriverAnswer(DriverState.REFUSED, reason=code)
    return DriverAnswer(DriverState.UNKNOWN, reason=code)
