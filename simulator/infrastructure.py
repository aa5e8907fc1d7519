"""The infrastructure: serves infrastructure.openapi.yaml, and nothing that is not in it."""

import hmac
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from simulator.faults import Rule
from simulator.refusals import Refused, after
from simulator.requests import KINDS, id_of, page_of, read_operation
from simulator.store import Request, Store

DOCUMENT = files("simulator").joinpath("infrastructure.openapi.yaml").read_bytes()

Do = Callable[[], Response]
Once = Callable[..., Any]


class Infrastructure:
    """
    Args:
        once: answers a request once per key, and misbehaves as the rules say.
        was_asked: is told of each service that was asked about.
        token: the bearer token that a caller has to send; None: nobody has to.
    """

    def __init__(
        self, store: Store, once: Once, was_asked: Callable[[str], None], token: str | None
    ) -> None:
        self._store = store
        self._once = once
        self._was_asked = was_asked
        self._token = token

    async def operate(self, request: HttpRequest) -> Response:
        self._admit(request)
        kind = request.path_params["kind"]
        if kind not in KINDS:
            raise Refused(404, "no_such_operation")
        driver, service_id = id_of(request, "driver"), id_of(request, "service_id")
        body = await read_operation(request)
        store = self._store

        def check() -> None:
            store.check_generation(service_id, body["generation"])

        def act() -> tuple[int, dict[str, Any]]:
            answer = store.operate(driver, service_id, kind, body)
            if kind == "terminate":
                store.call_off(service_id)
            return 200, shown(answer)

        wanted = Request("infrastructure", kind, f"{driver}/{service_id}", body["key"], body)
        answer: Response = await self._once(wanted, act, check=check, asked_by=service_id)
        return answer

    def begin(self, rule: Rule, request: Request, do: Do) -> Response:
        """Begin what takes long: it is done, or refused, and nobody learns how before its time."""
        if self._store.answer(request) is not None:  # begun before
            return do()
        service_id = request.subject.partition("/")[2]
        if rule.reason is None:
            do()
        else:
            self._store.check_generation(service_id, request.body["generation"])
            self._store.remember(request, 422, Refused(422, rule.reason, rule.words).problem)
        self._store.go_on(service_id, rule.seconds)
        return self.answered(request, 200, {})

    def answered(self, request: Request, status: int, body: dict[str, Any]) -> Response:
        """The answer to an operation, unless something is under way for its service."""
        progress = self._progress(request.subject.partition("/")[2])
        if progress is not None:
            return progress
        if status >= 400:
            return JSONResponse(body, status, media_type="application/problem+json")
        return JSONResponse(body, status)

    async def get(self, request: HttpRequest) -> Response:
        self._admit(request)
        id_of(request, "driver")
        service_id = id_of(request, "service_id")
        resource = self._store.resource(service_id)
        progress = self._progress(service_id)
        self._was_asked(service_id)
        if progress is not None:
            return progress
        if resource is None:
            generation = self._store.generation(service_id)
            if generation is None:
                raise Refused(404, "not_found")
            return JSONResponse({"state": "absent", "generation": generation})
        return JSONResponse(shown(resource))

    async def resources(self, request: HttpRequest) -> Response:
        self._admit(request)
        driver = id_of(request, "driver")
        entries = self._store.resources(*page_of(request), driver)
        names = ("number", "service_id", "resource_id", "state", "paid_until")
        shown = [{n: e[n] for n in names if e[n] is not None} for e in entries]
        return JSONResponse({"entries": shown})

    async def document(self, _request: HttpRequest) -> Response:
        return Response(DOCUMENT, media_type="application/yaml")

    def _progress(self, service_id: str) -> Response | None:
        seconds = self._store.seconds_left(service_id)
        if not seconds:
            return None
        body = {"code": "in_progress", "detail": "It is being set up."}
        return JSONResponse(body, 202, after(seconds))

    def _admit(self, request: HttpRequest) -> None:
        if self._token is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        good = hmac.compare_digest(token.strip().encode(), self._token.encode())
        if scheme.lower() != "bearer" or not good:
            raise Refused(401, "unauthorized", headers={"WWW-Authenticate": "Bearer"})


def shown(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource with what its customer is told of it, and without what is not known."""
    if resource["resource_id"] is not None:
        address = f"{resource['resource_id']}.example.net"
        resource = {**resource, "details": {"address": address}}
    return {name: value for name, value in resource.items() if value is not None}
