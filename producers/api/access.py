"""Which key a request has, what it sees, and what a route needs of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from producers.api import answers
from producers.api.answers import Effect
from producers.api.doors import Doors
from producers.api.keys import Key, KeyScope
from producers.api.problems import Failed, of_answer
from producers.views.scope import Scope
from schemas.fields import is_identifier
from schemas.json_bodies import Problem, read

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """A request's key, and what it sees.

    Attributes:
        trace: the header ``traceparent`` that came with it, unchecked.
    """

    key: Key
    scope: Scope
    doors: Doors
    trace: str | None = None


_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description="A key that `autorenew keys create` showed: `Authorization: Bearer ark_…`",
)


def needs(scope: KeyScope) -> Any:
    """What a route declares: its key must have this scope."""

    async def access(request: Request, _: Annotated[Any, Depends(_BEARER)]) -> Access:
        doors: Doors = request.app.state.doors
        key = await doors.key(request.headers, scope)
        return Access(key, doors.scope(key), doors, request.headers.get("traceparent"))

    return Depends(access)


def _as_text(given: Any) -> Any:
    """A moment is written, and no number of seconds."""
    if isinstance(given, str) and not given[:5].endswith("-"):
        raise ValueError("must be a moment such as 2026-03-01T08:00:00Z")
    return given


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_as_text)]
"""RFC 3339."""


class Document(BaseModel):
    """A body: what it does not know is not accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BodyRefused(HTTPException):
    """A body that is no JSON object, or an ambiguous one."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(400)
        self.failed = of_answer(problems)


class _Request(Request):
    async def json(self) -> Any:
        value, problems = read(await self.body())
        if problems:
            raise BodyRefused(problems)
        return value


class Route(APIRoute):
    """Reads bodies as documents of every other door are read: bounded, and without ambiguity."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return handle_bounded


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same request under the same one is done once, and gets the same answer,"
        " for 48 hours; another request under it is answered with 409.",
        min_length=1,
        max_length=100,
    ),
]


def check_name(name: str | None) -> str | None:
    """
    Raises:
        Failed: it cannot be kept.
    """
    if name is not None and not is_identifier(name):
        message = "must be 1 to 100 printable characters, without blanks at its ends"
        problem = Problem(code="field_invalid", path="header.Idempotency-Key", message=message)
        raise Failed("invalid", problems=[problem])
    return name


def once(
    access: Access, request: Request, name: str | None, body: BaseModel | None, effect: Effect
) -> dict[str, Any]:
    """Do something once, in the name of a key; see :func:`producers.api.answers.once`."""
    said = b"" if body is None else body.model_dump_json(exclude_unset=True).encode()
    what = f"{request.method} {request.url.path}"
    asked = answers.Request(access.key, check_name(name), what, said)
    with access.doors.acting(access.key, getattr(body, "because", None)):
        return answers.once(access.doors.write, asked, effect)
