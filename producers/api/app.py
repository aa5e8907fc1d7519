"""The application: routes, errors as problem documents, bounds of bodies, its OpenAPI document."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic_core import to_json
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from producers.api import problems
from producers.api.access import BodyRefused
from producers.api.doors import Doors
from producers.api.problems import MEDIA_TYPE, Failed
from producers.api.routes import (
    audit,
    bulk,
    customers,
    failed,
    lanes,
    order_schemas,
    orders,
    reading,
    services,
)
from producers.views.orders import SeveralOrders
from producers.views.scope import CursorInvalid
from producers.web import health
from producers.web.headers import SecurityHeaders
from producers.web.limits import BodyLimits
from schemas.database import is_circumstance, is_data_error
from schemas.errors import AutorenewError, ConfigurationError, DataError, first_line
from schemas.json_bodies import MAX_BODY_BYTES, Problem

log = logging.getLogger(__name__)

THREADS = 12
"""Requests of a process that are answered from the database at once."""
OPENAPI = "/v1/openapi.json"
DESCRIPTION = """\
The back office behind one click: orders, renewals, billing and provisioning.

A request names its key: `Authorization: Bearer ark_…`. A key belongs to a realm, and sees nothing
else: what it may not see is answered with 404, as what does not exist.

Amounts are whole numbers of the currency's minor unit. Moments are UTC; days are those of the
subsidiary. Errors are problem documents (RFC 9457) with a stable `code`, and `problems` with the
path of each field. After 429 and 503 come again after `Retry-After` seconds: the same order, or the
same request under the same `Idempotency-Key`, is done once.

What is no HTTP request is answered with 400 `malformed`, a head of more than 64 KiB with 431
`too_large`, and one that takes more than 20 seconds with 408 `too_slow`: problem documents, too.
The connection is closed then. A key without the scope of a route is told so (403) before its limit
is looked at: such a request counts nothing.
"""


def build(doors: Doors, checks: Mapping[str, Callable[[], None]] | None = None) -> ASGIApp:
    """The application.

    Args:
        checks: what readiness needs beside both databases.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield

    app = FastAPI(
        title="Autorenew",
        version="1",
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.doors = doors
    _add_routes(app)
    app.router.routes += health.routes(
        {"database": doors.check_write, "read database": doors.check_read, **(checks or {})}
    )
    _handle_errors(app)
    _serve_document(app)
    return SecurityHeaders(_Limits(app, doors))


def _add_routes(app: FastAPI) -> None:
    """All in one list: FastAPI keeps included routers apart, which nobody who asks for the template
    of a route sees into. Those that take orders come first, being asked for most."""
    app.router.routes[:0] = orders.PLAIN_ROUTES
    for area in (orders, customers, services, reading, failed, bulk, lanes, audit):
        app.router.routes += area.router.routes


class _Limits:
    """Batches may be longer than other bodies: nothing is kept of one before its key is known, or
    whoever comes could fill the memory."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self._doors = doors
        self._others = BodyLimits(app, most=MAX_BODY_BYTES, answer=refusal)
        self._batch = BodyLimits(app, most=orders.MOST_BATCH_BYTES, answer=refusal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != orders.BATCH:
            await self._others(scope, receive, send)
            return
        try:
            await self._doors.known(Headers(scope=scope))
        except Exception as error:
            failed = failure_of(error)
            failed.headers["Connection"] = "close"  # what it goes on to send is not read
            await failed.response()(scope, receive, send)
            return
        await self._batch(scope, receive, send)


def refusal(status: int, code: str, said: str) -> tuple[bytes, str]:
    """A problem document of what no route sees, and its media type."""
    return Failed(code, said, status=status).body, MEDIA_TYPE


def _handle_errors(app: FastAPI) -> None:
    async def answer(request: Request, error: Exception) -> Response:
        failed = failure_of(error)
        if failed.status == 405:
            failed.headers["Allow"] = ", ".join(_methods(app, request.scope))
        return failed.response()

    for kind in (
        Failed, RequestValidationError, HTTPException, SQLAlchemyError, AutorenewError, Exception,
    ):  # fmt: skip
        app.add_exception_handler(kind, answer)


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """What a path takes, of all its routes; the router names those of the first one."""
    found: set[str] = set()
    for route in app.router.routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found - {"HEAD"})


def failure_of(error: Exception) -> Failed:
    """What is answered instead of an error."""
    match error:
        case Failed():
            return error
        case BodyRefused():
            return error.failed
        case RequestValidationError():
            return problems.of_fields(error.errors())
        case HTTPException():
            return _of_http(error)
        case CursorInvalid():
            problem = Problem(code=error.code, path="query.cursor", message=str(error))
            return Failed("invalid", problems=[problem])
        case SeveralOrders():
            return Failed("conflict", str(error))
        case ConfigurationError():  # no catalogue is in force
            log.error("%s", error)
            return problems.unavailable()
        case DataError():
            problem = Problem(code=error.code, path="", message=str(error))
            return Failed("invalid", problems=[problem])
        case SQLAlchemyError() if is_circumstance(error):
            log.warning("the database: %s", first_line(error))
            return problems.unavailable()
        case SQLAlchemyError() if is_data_error(error):
            log.warning("the database refuses data: %s", first_line(error))
            problem = Problem(code="data", path="", message="the database refuses its data")
            return Failed("invalid", problems=[problem])
    log.error("a request failed", exc_info=error)
    return Failed("internal")


def _of_http(error: HTTPException) -> Failed:
    """Errors of the framework: no such route, no such method, a body that cannot be read."""
    if error.status_code == 404:
        return problems.no_such_path()
    code = {405: "method_not_allowed"}.get(error.status_code, "malformed")
    return Failed(code, headers=error.headers)


def _serve_document(app: FastAPI) -> None:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]

    @app.get(OPENAPI, include_in_schema=False)
    def openapi() -> Any:
        return Response(to_json(app.openapi()), media_type="application/json")


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        openapi_version="3.1.0",
    )
    order_schemas.add(document)
    for path in document["paths"].values():
        for operation in path.values():
            if MEDIA_TYPE not in operation["responses"].get("422", {}).get("content", {}):
                operation["responses"].pop("422", None)  # FastAPI's own
            for status, response in operation["responses"].items():
                # FastAPI lists its own media type beside ours.
                if status != "200" and MEDIA_TYPE in response.get("content", {}):
                    response["content"].pop("application/json", None)
    document["components"]["schemas"].pop("HTTPValidationError", None)
    document["components"]["schemas"].pop("ValidationError", None)
    return document


def application() -> FastAPI:
    """The application without its doors, for its OpenAPI document."""
    app = FastAPI(title="Autorenew", version="1", description=DESCRIPTION, openapi_url=None)
    _add_routes(app)
    _serve_document(app)
    return app
