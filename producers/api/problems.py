"""Errors as RFC 9457 problem documents: our stable code, and each field with its path."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json
from starlette.responses import Response

from schemas.json_bodies import Problem, at_most, path_of, said_of, summary

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
"""What an answer says when something of ours is away."""

CODES: Mapping[str, tuple[int, str]] = {
    "key_missing": (401, "no key was given"),
    "key_unknown": (401, "the key is unknown, expired or revoked"),
    "scope_missing": (403, "the key lacks a scope"),
    "not_found": (404, "there is nothing of this name that the key may see"),
    "method_not_allowed": (405, "the path does not take this method"),
    "too_slow": (408, "the body did not arrive in time"),
    "conflict": (409, "what it is about is in another state"),
    "key_reused": (409, "another request was made under this idempotency key"),
    "too_large": (413, "the body is too large"),
    "media_type": (415, "the body is of another media type"),
    "invalid": (422, "some of what was sent is not accepted"),
    "refused": (422, "what is asked for cannot be done"),
    "too_many_requests": (429, "the key may not ask for so much in a second"),
    "internal": (500, "a defect of ours; it was logged"),
    "unavailable": (503, "the database is away or full: come again"),
    "malformed": (400, "the request is not well-formed"),
}
"""Code of a whole answer -> its status, and what it means. Fields have those of documents."""


class ProblemDocument(BaseModel):
    """Why a request was not done (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    type: str
    """A URN of the code."""
    title: str
    status: int
    code: str
    detail: str
    problems: list[Problem] | None = None
    """Each field that is not accepted: a stable code, its path, and a sentence."""


class Failed(Exception):
    """A request that is not done.

    Args:
        code: one of :data:`CODES`.
        problems: each field that is not accepted.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        problems: Sequence[Problem] = (),
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, title = CODES[code]
        if status is not None:
            self.status = status
        self.code = code
        self.detail = detail or title
        self.problems = at_most(list(problems))
        self.headers = dict(headers or {})
        super().__init__(self.detail)

    @property
    def document(self) -> dict[str, Any]:
        return document(self.status, self.code, self.detail, self.problems)

    @property
    def body(self) -> bytes:
        return to_json(self.document)

    def response(self) -> Response:
        return Response(self.body, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def document(
    status: int, code: str, detail: str, problems: Sequence[Problem] = ()
) -> dict[str, Any]:
    """A problem document."""
    said: dict[str, Any] = {
        "type": f"urn:autorenew:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if problems:
        said["problems"] = [problem.model_dump() for problem in problems]
    return said


def not_found(detail: str | None = None) -> Failed:
    """The same for what does not exist and for what the key may not see.

    Args:
        detail: of what there is once for all keys.
    """
    return Failed("not_found", detail)


def no_such_path() -> Failed:
    """A path that no route takes: a name in it that is not known is :func:`not_found`."""
    return Failed("not_found", "there is no such path: /v1/openapi.json lists those there are")


def unavailable() -> Failed:
    return Failed("unavailable", headers={"Retry-After": str(RETRY_SECONDS)})


def of_answer(problems: Sequence[Problem]) -> Failed:
    """Of a document that was not accepted, from its problems."""
    code = problems[0].code if problems else "refused"
    match code:
        case "not_json" | "field_repeated" | "too_many_fields":
            whole = "malformed"
        case "key_reused" | "link_outdated":
            whole = "key_reused" if code == "key_reused" else "conflict"
        case "too_large":
            whole = "too_large"
        case _:
            whole = "invalid"
    return Failed(whole, summary(problems) if problems else None, problems=problems)


_NO_BODY = "a JSON object is needed as the body"
_FIELD_CODES = {"missing": "field_missing", "extra_forbidden": "field_unknown"}


def of_fields(errors: Sequence[Any]) -> Failed:
    """Of a request whose parameters or fields are not accepted."""
    problems, code = [], "invalid"
    for error in errors:
        where, *place = error["loc"] or ("",)
        if error["type"] == "json_invalid":
            code, place = "malformed", []
        path = path_of(place) if where == "body" else path_of((where, *place))
        field = "not_json" if error["type"] == "json_invalid" else "field_invalid"
        has_no_body = path == "" and error["type"] == "missing"
        message = _NO_BODY if has_no_body else said_of(error["type"], error["msg"])
        problems.append(
            Problem(code=_FIELD_CODES.get(error["type"], field), path=path, message=message)
        )
    return Failed(code, summary(problems) if problems else None, problems=problems)


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """What a route may answer beside what it is for, as its OpenAPI document says it."""
    by_status: dict[int, list[str]] = {}
    for code in (*codes, *ALWAYS):
        by_status.setdefault(CODES[code][0], []).append(code)
    return {
        status: {
            "model": ProblemDocument,
            "description": "; ".join(f"`{code}`: {CODES[code][1]}" for code in found),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/ProblemDocument"},
                    "example": document(status, found[0], CODES[found[0]][1]),
                }
            },
        }
        for status, found in by_status.items()
    }


ALWAYS = (
    "key_missing", "key_unknown", "scope_missing", "too_many_requests", "unavailable", "malformed",
)  # fmt: skip
