"""An infrastructure that speaks HTTP; what it must answer is in docs/reference/simulator.md."""

from datetime import date
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.books import BookUnavailable, ResourceEntry
from schemas.errors import first_line
from schemas.values import ResourceState
from workers.outside.http import Answer, HttpCalls, HttpSettings, InDoubt, NotSent, Text
from workers.provisioning.drivers.port import DriverAnswer, DriverState, Operation, Resource

RESOURCES_PAGE = 1000
# What is kept of a service's details.
MOST_DETAILS, MOST_CHARACTERS = 20, 500


class _Said(BaseModel):
    """What is answered about a service: what there is of it now."""

    model_config = ConfigDict(extra="ignore")

    state: ResourceState
    generation: Annotated[int, Field(ge=0, strict=True)]
    resource_id: Text | None = None
    paid_until: date | None = None
    details: Any = None


class _Refusal(BaseModel):
    model_config = ConfigDict(extra="ignore")

    code: Text | None = None


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
            answer = DriverAnswer(DriverState.UNAVAILABLE, reason=str(error))
        except InDoubt as error:
            answer = DriverAnswer(DriverState.UNKNOWN, reason=str(error))
        self._calls.count(operation, answer.state)
        return answer


def _details(said: Any) -> dict[str, str]:
    """What is text of it; nothing is refused for the rest: it decides nothing."""
    if not isinstance(said, dict):
        return {}
    texts = [(k, v) for k, v in said.items() if isinstance(v, str) and v]
    return {name[:MOST_CHARACTERS]: value[:MOST_CHARACTERS] for name, value in texts[:MOST_DETAILS]}


# The request never reached the infrastructure itself: wrong credential, too many at once.
_TURNED_AWAY = (401, 403, 425, 429)


def _read(answer: Answer, *, question: bool) -> DriverAnswer:
    if answer.status in (200, 201):
        try:
            said = _Said.model_validate_json(answer.body)
        except ValidationError as error:
            wrong = sorted({str(part["loc"][0]) for part in error.errors() if part["loc"]})
            return DriverAnswer(DriverState.UNKNOWN, reason=f"not understood: {', '.join(wrong)}")
        resource = Resource(
            said.resource_id, said.state, said.generation, said.paid_until, _details(said.details)
        )
        return DriverAnswer(DriverState.DONE, resource)
    try:
        code = _Refusal.model_validate_json(answer.body).code or f"HTTP {answer.status}"
    except ValidationError:
        code = f"HTTP {answer.status}"
    if answer.status == 404 and code == "not_found" and question:
        return DriverAnswer(DriverState.DONE, Resource(None, ResourceState.ABSENT))
    if answer.status in _TURNED_AWAY:
        return DriverAnswer(DriverState.UNAVAILABLE, reason=code)
    if answer.status == 409 and code == "stale_generation":
        return DriverAnswer(DriverState.STALE, reason=code)
    if 400 <= answer.status < 500 and answer.status not in (404, 405, 408):
        return DriverAnswer(DriverState.REFUSED, reason=code)
    return DriverAnswer(DriverState.UNKNOWN, reason=code)
