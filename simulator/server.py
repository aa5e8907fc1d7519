"""The HTTP server: payment gateway and infrastructure, both idempotent by key."""

import asyncio
import contextlib
import json
import socket
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.faults import TARGETS, Faults, Rule
from simulator.store import Refused, Request, Store

_CHARGE = {"key": str, "amount": int, "currency": str, "token": str, "customer": str}
_REFUND = {"key": str, "charge_key": str, "amount": int, "currency": str}
_OPERATION = {"key": str, "generation": int, "plan": str, "customer": str}

_MOST = 2**63 - 1  # the largest integer of SQLite

Act = Callable[[], tuple[int, dict[str, Any]]]


class Simulator:
    """The application, its store and its faults."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self.store = store
        self.faults = faults
        self._asked: dict[str, asyncio.Event] = {}
        self._late: set[asyncio.Task[None]] = set()
        self.app = Starlette(
            routes=[
                Route("/gateway/charges", self._safely(self._charge), methods=["POST"]),
                Route("/gateway/refunds", self._safely(self._refund), methods=["POST"]),
                Route("/gateway/charges/{key}", self._safely(self._find_charge)),
                Route("/gateway/refunds/{key}", self._safely(self._find_refund)),
                Route("/gateway/book", self._safely(self._book)),
                Route("/infrastructure/resources", self._safely(self._resources)),
                Route("/infrastructure/{driver}/resources", self._safely(self._resources)),
                Route(
                    "/infrastructure/{driver}/services/{service_id}/{kind}",
                    self._safely(self._operate),
                    methods=["PUT"],
                ),
                Route("/infrastructure/{driver}/services/{service_id}", self._safely(self._get)),
                Route("/faults", self._safely(self._change_faults), methods=["POST", "DELETE"]),
                Route("/health", self._safely(self._health)),
            ]
        )

    @staticmethod
    def _safely(
        endpoint: Callable[[HttpRequest], Awaitable[Response]],
    ) -> Callable[[HttpRequest], Awaitable[Response]]:
        async def answer(request: HttpRequest) -> Response:
            try:
                return await endpoint(request)
            except Refused as refused:
                return JSONResponse({"code": refused.code}, refused.status)
            except asyncio.CancelledError:  # a call that hangs while the server is stopped
                return JSONResponse({"code": "stopping"}, 503)

        return answer

    async def _charge(self, request: HttpRequest) -> Response:
        body = await _read(request, _CHARGE)

        def act() -> tuple[int, dict[str, Any]]:
            self.store.take(body)
            return 201, _about(body, "succeeded", reference=f"ch-{body['key'][:8]}")

        return await self._once(Request("gateway", "charge", "", body["key"], body), act)

    async def _refund(self, request: HttpRequest) -> Response:
        body = await _read(request, _REFUND)

        def act() -> tuple[int, dict[str, Any]]:
            refused = self.store.give_back(body)
            if refused:
                return 402, _about(body, "declined", reason=refused)
            return 201, _about(body, "succeeded", reference=f"re-{body['key'][:8]}")

        return await self._once(Request("gateway", "refund", "", body["key"], body), act)

    async def _operate(self, request: HttpRequest) -> Response:
        driver, service_id, kind = (
            request.path_params[name] for name in ("driver", "service_id", "kind")
        )
        if kind not in TARGETS["infrastructure"]:
            raise Refused(404, "no_such_operation")
        body = await _read(request, _OPERATION)
        for name in ("paid_until", "resource_id"):
            if body.get(name) is not None:
                _check(body, name, str)

        def act() -> tuple[int, dict[str, Any]]:
            return 200, _with_details(self.store.operate(driver, service_id, kind, body))

        def check() -> None:
            self.store.check_generation(service_id, body["generation"])

        wanted = Request("infrastructure", kind, f"{driver}/{service_id}", body["key"], body)
        return await self._once(wanted, act, check=check, asked_by=service_id)

    async def _once(
        self,
        request: Request,
        act: Act,
        *,
        check: Callable[[], None] = lambda: None,
        asked_by: str | None = None,
    ) -> Response:
        """Act once per key, and misbehave as the rules say.

        Args:
            check: raises if the request must not be answered, not even as a repeated one.
            asked_by: the id by which a GET asks about this request; by default its key.
        """

        def do() -> Response:
            check()
            known = self.store.answer(request)
            if known is None:
                known = act()
                self.store.remember(request, *known)
            return JSONResponse(known[1], known[0])

        rule = self.faults.draw(request.target, request.operation, request.key, request.body)
        if rule is None:
            return do()
        return await self._misbehave(rule, request, do, asked_by or request.key)

    async def _misbehave(
        self, rule: Rule, request: Request, do: Callable[[], Response], asked_by: str
    ) -> Response:
        match rule.fault:
            case "decline":
                answer = _about(request.body, "declined", reason=rule.reason)
                known = self.store.answer(request)
                if known is None:
                    self.store.remember(request, 402, answer)
                    known = 402, answer
                return JSONResponse(known[1], known[0])
            case "refuse":
                raise Refused(422, rule.reason)
            case "error":
                return JSONResponse({"code": "internal_error"}, 500)
            case "hang_before":
                await asyncio.sleep(rule.seconds)
                return JSONResponse({"code": "gave_up"}, 503)
            case "hang_after":
                do()
                await asyncio.sleep(rule.seconds)
                return JSONResponse({"code": "gave_up"}, 503)
            case "late":
                asked = self._asked.setdefault(asked_by, asyncio.Event())

                async def arrive() -> None:
                    with contextlib.suppress(asyncio.TimeoutError, Refused):
                        async with asyncio.timeout(rule.seconds):
                            await asked.wait()
                            do()

                task = asyncio.create_task(arrive())
                self._late.add(task)
                task.add_done_callback(self._late.discard)
                await asyncio.sleep(rule.seconds)
                return JSONResponse({"code": "gave_up"}, 503)
            case "slow":
                await asyncio.sleep(rule.seconds)
                return do()
            case _:  # duplicate: a proxy that repeats the request
                do()
                return do()

    async def _find_charge(self, request: HttpRequest) -> Response:
        return self._find("charge", request.path_params["key"])

    async def _find_refund(self, request: HttpRequest) -> Response:
        return self._find("refund", request.path_params["key"])

    def _find(self, operation: str, key: str) -> Response:
        answer = self.store.find(operation, key)
        self._was_asked(key)
        if answer is None:
            raise Refused(404, "not_found")
        return JSONResponse(answer)

    async def _get(self, request: HttpRequest) -> Response:
        resource = self.store.resource(request.path_params["service_id"])
        self._was_asked(request.path_params["service_id"])
        if resource is None:
            raise Refused(404, "not_found")
        return JSONResponse(_with_details(resource))

    def _was_asked(self, what: str) -> None:
        event = self._asked.pop(what, None)
        if event is not None:
            event.set()

    async def _book(self, request: HttpRequest) -> Response:
        return JSONResponse({"entries": self.store.book(*_page(request))})

    async def _resources(self, request: HttpRequest) -> Response:
        driver = request.path_params.get("driver")
        return JSONResponse({"entries": self.store.resources(*_page(request), driver)})

    async def _change_faults(self, request: HttpRequest) -> Response:
        if request.method == "DELETE":
            self.faults.clear()
        else:
            try:
                self.faults.add(await request.json())
            except (TypeError, ValueError, RecursionError) as error:
                return JSONResponse({"code": "bad_rule", "message": str(error)}, 400)
        return JSONResponse({"rules": len(self.faults.rules)})

    async def _health(self, _request: HttpRequest) -> Response:
        return JSONResponse({"state": "up"})


def _with_details(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource with what a customer is told of it, made up from its name."""
    name = resource["resource_id"]
    if name is None:
        return resource
    number = zlib.crc32(name.encode())
    # Addresses for documentation (RFC 3849).
    address = f"2001:db8::{number >> 16:x}:{number & 0xFFFF:x}"
    return resource | {"details": {"name": f"{name}.example.net", "address": address}}


def _about(body: dict[str, Any], state: str, **more: str) -> dict[str, Any]:
    """An answer of the gateway: to what, how much, and how it ended."""
    of = {name: body[name] for name in ("key", "amount", "currency")}
    return {**of, "state": state, **more}


async def _read(request: HttpRequest, fields: dict[str, type]) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Refused(400, "not_json") from None
    if not isinstance(body, dict):
        raise Refused(400, "not_an_object")
    for name, kind in fields.items():
        _check(body, name, kind)
    return body


def _check(body: dict[str, Any], name: str, kind: type) -> None:
    """Refuse a field of the wrong type, or with a value that cannot be stored."""
    value = body.get(name)
    if isinstance(value, str):
        good = not any("\ud800" <= c <= "\udfff" for c in value)  # lone surrogates
    else:
        least = 1 if name == "amount" else 0
        good = isinstance(value, int) and least <= value <= _MOST
    if type(value) is not kind or not good:
        raise Refused(400, f"bad_{name}")


def _page(request: HttpRequest) -> tuple[int, int]:
    try:
        after = int(request.query_params.get("after", "0"))
        limit = int(request.query_params.get("limit", "1000"))
    except ValueError:
        raise Refused(400, "bad_page") from None
    return min(max(after, 0), _MOST), min(max(limit, 1), 10_000)


class Running:
    """A simulator that serves from a thread until it is stopped.

    Args:
        port: 0 for any free one.
        store: SQLite file.
        rules: see :class:`simulator.faults.Rule`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        store: str = ":memory:",
        seed: int = 1,
        rules: list[dict[str, Any]] | None = None,
    ) -> None:
        self.simulator = Simulator(Store(store), Faults(rules, seed))
        # asyncio sets TCP_NODELAY only if the protocol is named: 2 ms a call instead of 42.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self._socket.listen(512)
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.simulator.app,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=1,
                lifespan="off",
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="simulator", daemon=True
        )
        self._thread.start()
        end = time.monotonic() + 10
        while not self._server.started:
            if time.monotonic() > end or not self._thread.is_alive():
                raise RuntimeError("the simulator did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(5)
        self._socket.close()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
