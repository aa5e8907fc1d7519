"""A definite no, and how it is told: a code; by the infrastructure in a problem of RFC 9457."""

import math
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse, Response

WORDS = {
    "bad_configuration": "This plan cannot be set up as it was asked for.",
    "busy": "Too many requests. Come back later.",
    "forbidden": "This credential may not do that.",
    "key_reused": "This key belongs to another request.",
    "maintenance": "Closed for maintenance. Nothing was done.",
    "no_such_operation": "There is create, suspend, resume, extend and terminate.",
    "no_such_path": "Nothing is served at this path.",
    "no_such_resource": "There is no resource of this service.",
    "not_an_object": "The body is not a JSON object.",
    "not_found": "There is no resource of this service.",
    "not_json": "The body is not JSON.",
    "out_of_stock": "Nothing of this plan is left.",
    "quota_exceeded": "The customer has reached a quota.",
    "stale_generation": "A newer generation of this service was seen.",
    "too_large": "The body is too large.",
    "unauthorized": "A valid bearer token is needed.",
}


class Refused(Exception):
    """A definite refusal.

    Attributes:
        code: stable, for programs.
        words: for people; by default what is known of the code.
        retry_after: seconds for which the caller should stay away; told in whole ones.
    """

    def __init__(
        self,
        status: int,
        code: str,
        words: str | None = None,
        *,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.status, self.code = status, code
        self.words = words or WORDS.get(code, code)
        self.headers = {**(headers or {}), **after(retry_after)}

    @property
    def problem(self) -> dict[str, Any]:
        """As RFC 9457 has it, with the code beside it."""
        title = HTTPStatus(self.status).phrase
        return {"title": title, "status": self.status, "code": self.code, "detail": self.words}

    def answer(self, *, problem: bool) -> Response:
        if problem:
            media_type = "application/problem+json"
            return JSONResponse(self.problem, self.status, self.headers, media_type)
        return JSONResponse({"code": self.code}, self.status, self.headers)


def after(seconds: float | None) -> dict[str, str]:
    """The header ``Retry-After``: whole seconds, so that nobody comes back too early."""
    return {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}
