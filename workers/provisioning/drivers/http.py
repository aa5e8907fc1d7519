"""An infrastructure that speaks HTTP, as ``simulator/infrastructure.openapi.yaml`` has it.

What each answer means is in docs/reference/drivers.md.
"""

from datetime import date
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.books import BookUnavailable, ResourceEntry
from schemas.errors import first_line
from schemas.values import ResourceState
from workers.outside.http import Answer, HttpCalls, HttpSettings, InDoubt, NotSent, Text
from workers.outside.texts import MOST_CODE
from workers.provisioning.drivers.details import told
from workers.provisioning.drivers.port import DriverAnswer, DriverState, Operation, Resource

RESOURCES_PAGE = 1000


class _Said(BaseModel):
    """What is answered about a service: what there is of it now."""

    model_config = ConfigDict(extra="ignore")

    state: ResourceState
    generation: Annotated[int, Field(ge=0, strict=True)]
    resource_id: Text | None = None
    paid_until: date | None = None
    details: Any = None


class _Problem(BaseModel):
    """Why not, or not yet: a problem of RFC 9457 with a code."""

    model_config = ConfigDict(extra="ignore")

    code: Text | None = None
    detail: Text | None = None
    title: Text | None = None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore")

    number: Annotated[int, Field(ge=0, strict=True)]
    resource_id: Text
    service_id: Text | None = None
    state: ResourceState
    paid_until: date | None = None


class _Page(BaseModel):
    entries: list[_Entry]


class HttpDriver:
    Settings = HttpSettings
    immediate = False

    def __init__(self, name: str, settings: HttpSettings) -> None:
        self._calls = HttpCalls(f"driver:{name}", settings)

    async def perform(self, operation: Operation) -> DriverAnswer:
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
        path = f"/services/{operation.service_id}/{operation.kind}"
        return await self._call(operation.kind, "PUT", path, body)

    async def ask(self, operation: Operation) -> DriverAnswer:
        return await self._call("get", "GET", f"/services/{operation.service_id}")

    async def resources(self, after: str | None) -> list[ResourceEntry]:
        path = f"/resources?after={quote(after or '0')}&limit={RESOURCES_PAGE}"
        try:
            answer = await self._calls.call("resources", "GET", path)
            if answer.status != 200:
                raise BookUnavailable(f"HTTP status {answer.status}")
            entries = [
                ResourceEntry(str(e.number), e.resource_id, e.service_id, e.state, e.paid_until)
                for e in _Page.model_validate_json(answer.body).entries
            ]
        except (NotSent, InDoubt) as error:
            raise BookUnavailable(str(error)) from None
        except ValidationError as error:
            raise BookUnavailable(f"not a list of resources: {first_line(error)}") from None
        self._calls.count("resources", "done")
        return entries

    async def close(self) -> None:
        await self._calls.close()

    async def _call(
        self,
        operation: str,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
    ) -> DriverAnswer:
        try:
            said = await self._calls.call(operation, method, path, body)
            answer = _read(said, question=body is None)
        except NotSent as error:
            answer = DriverAnswer(DriverState.UNAVAILABLE, reason=error.code, words=error.words)
        except InDoubt as error:
            answer = DriverAnswer(
                DriverState.UNKNOWN, reason=error.code, words=error.words,
                retry_after=error.retry_after,
            )  # fmt: skip
        self._calls.count(operation, answer.state)
        return answer


# Nothing was done, and it is worth trying again: too early, too many at once.
_TURNED_AWAY = (425, 429)
# The credential is wrong, whatever is asked for.
_NO_ENTRY = (401, 403)
# Nothing is there to be asked: the URL is wrong, or what is behind it is another API.
_NO_WAY = {404: ("no_such_path", "no_such_operation"), 405: ("method_not_allowed",)}


def _read(answer: Answer, *, question: bool) -> DriverAnswer:
    if answer.status in (200, 201):
        try:
            said = _Said.model_validate_json(answer.body)
        except ValidationError as error:
            wrong = sorted({str(part["loc"][0]) for part in error.errors() if part["loc"]})
            return DriverAnswer(DriverState.UNKNOWN, reason=f"not understood: {', '.join(wrong)}")
        details = told(said.details)
        resource = Resource(said.resource_id, said.state, said.generation, said.paid_until, details)
        return DriverAnswer(DriverState.DONE, resource)
    problem = _problem(answer)
    if answer.status == 404 and problem.code == "not_found" and question:
        return DriverAnswer(DriverState.DONE, Resource(None, ResourceState.ABSENT))
    default = "in_progress" if answer.status == 202 else f"HTTP {answer.status}"
    return DriverAnswer(
        _state(answer.status, problem.code),
        reason=(problem.code or default)[:MOST_CODE],
        words=problem.detail or problem.title or None,
        retry_after=answer.retry_after,
    )


def _problem(answer: Answer) -> _Problem:
    try:
        return _Problem.model_validate_json(answer.body)
    except ValidationError:
        return _Problem()


def _state(status: int, code: str | None) -> DriverState:
    """What an answer means that shows no resource."""
    if status == 202:
        return DriverState.IN_PROGRESS
    if status in _TURNED_AWAY:
        return DriverState.UNAVAILABLE
    if status in _NO_ENTRY or code in _NO_WAY.get(status, ()):
        return DriverState.PERMANENT
    if status == 409 and code == "stale_generation":
        return DriverState.STALE
    if 400 <= status < 500 and status not in (404, 405, 408):
        return DriverState.REFUSED
    return DriverState.UNKNOWN
