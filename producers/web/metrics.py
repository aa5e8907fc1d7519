"""Metrics of what is served over HTTP, and `/metrics` itself beside the probes of health."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitoring import metrics
from producers.web import health

UNMATCHED = "unmatched"
"""The route of requests for which there is none."""
# Anybody may send any other, and each label would stay for ever.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER = "OTHER"


class RequestMetrics:
    """Counts requests, and how long they took, by the template of their route.

    An application of Starlette or FastAPI says which route it chose; of any other all requests are
    ``unmatched``.

    Args:
        server: which door it is, as a label.
    """

    def __init__(self, app: ASGIApp, server: str) -> None:
        self._app = app
        self._server = server
        self._templates: dict[Any, str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        finally:
            route = self._template(scope)
            method = scope["method"] if scope["method"] in _METHODS else OTHER
            metrics.http_requests.labels(self._server, method, route, str(status)).inc()
            took = time.perf_counter() - started
            metrics.http_seconds.labels(self._server, route).observe(took)

    def _template(self, scope: Scope) -> str:
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return UNMATCHED
        # FastAPI says so of a router that was included; its route has not the prefix.
        effective = scope.get("fastapi", {}).get("effective_route_context")
        if effective is not None:
            return str(getattr(effective, "path_format", "") or effective.path)
        if self._templates is None:
            found = scope.get("app")
            self._templates = dict(_templates(getattr(found, "routes", ())))
        return self._templates.get(_key(endpoint), UNMATCHED)


def _key(endpoint: Any) -> Any:
    return getattr(endpoint, "__func__", None) or id(endpoint)


def _templates(routes: Any, prefix: str = "") -> Iterator[tuple[Any, str]]:
    """Endpoint -> the template of its path, such as ``/orders/{key}``."""
    for route in routes:
        yield from _of_route(route, prefix)


def _of_route(route: BaseRoute, prefix: str) -> Iterator[tuple[Any, str]]:
    path = getattr(route, "path_format", "") or getattr(route, "path", "")
    if isinstance(route, Mount):
        if route.routes:
            yield from _templates(route.routes, prefix + path)
        yield _key(route.app), f"{prefix}{path}/…"
    elif (endpoint := getattr(route, "endpoint", None)) is not None:
        yield _key(endpoint), prefix + path


def application(registry: CollectorRegistry, checks: Mapping[str, Callable[[], None]]) -> Starlette:
    """`/metrics`, `/healthz` and `/readyz`.

    Args:
        checks: what readiness needs, as for :func:`producers.web.health.routes`.
    """

    def serve(request: Request) -> Response:  # in a thread: a registry may take its time
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return Starlette(routes=[Route("/metrics", serve), *health.routes(checks)])
