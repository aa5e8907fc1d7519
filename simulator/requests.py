"""What a request may be: anything else is a documented 4xx."""

import json
import re
from datetime import date
from typing import Annotated, Any, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from starlette.requests import Request as HttpRequest

from simulator.refusals import Refused

MOST_BODY_BYTES = 262_144
MOST = 2**63 - 1  # the largest integer of SQLite
KINDS = ("create", "suspend", "resume", "extend", "terminate")

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
_CURSOR = re.compile(r"[0-9]{1,18}", re.ASCII)


def _day(text: str) -> str:
    if not _DATE.fullmatch(text):
        raise ValueError("not a date as 2026-03-31")
    date.fromisoformat(text)
    return text


Text = Annotated[str, Field(min_length=1, max_length=500)]


def _whole(number: object) -> object:
    """1.0 is an integer of JSON Schema."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


class Operation(BaseModel):
    """The body of an operation: ``Operation`` of infrastructure.openapi.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Text
    generation: Annotated[int, Field(ge=0, le=MOST), BeforeValidator(_whole)]
    customer: Text
    plan: Text
    configuration: dict[str, Any] = {}
    paid_until: Annotated[str, AfterValidator(_day)] = "2000-01-01"  # if it is there at all
    resource_id: Text = "none"


async def read_operation(request: HttpRequest) -> dict[str, Any]:
    """The body of an operation, whose fields are all as the document says.

    Raises:
        Refused: it is anything else.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(415, "not_json", "The body is not application/json.")
    body = await read_json(request)
    try:
        body["generation"] = Operation.model_validate(body).generation
    except ValidationError as error:
        _refuse(error)
    return body


def _refuse(error: ValidationError) -> NoReturn:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""  # a name that is no text has none
    if first["type"] == "extra_forbidden" or not name:
        raise Refused(400, "unknown_field", f"{name[:100]!a}: there is no such field.")
    raise Refused(400, f"bad_{name}", f"{name}: {first['msg']}.")


async def read_json(request: HttpRequest) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        Refused: it is anything else, or too large.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BODY_BYTES:
            raise Refused(413, "too_large")
    try:
        body = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Refused(400, "not_json") from None
    if not isinstance(body, dict):
        raise Refused(400, "not_an_object")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def id_of(request: HttpRequest, name: str) -> str:
    """An id of the path.

    Raises:
        Refused: it cannot be one.
    """
    text = str(request.path_params[name])
    if not _ID.fullmatch(text):
        words = f"{name}: 1 to 100 letters, digits, points, hyphens and underscores."
        raise Refused(400, f"bad_{name}", words)
    return text


def page_of(request: HttpRequest) -> tuple[int, int]:
    """After which entry, and how many at most.

    Raises:
        Refused: that is not what it says.
    """
    after = request.query_params.get("after", "0")
    limit = request.query_params.get("limit", "1000")
    if not (_CURSOR.fullmatch(after) and _CURSOR.fullmatch(limit)):
        raise Refused(400, "bad_page", "after and limit are whole numbers.")
    if not 1 <= int(limit) <= 10_000:
        raise Refused(400, "bad_page", "limit is from 1 to 10000.")
    return int(after), int(limit)
