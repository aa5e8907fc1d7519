"""The HTTP server: payment gateway and infrastructure, both idempotent by key."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.faults import Faults, Rule
from simulator.infrastructure import Infrastructure
from simulator.mailbox import Mailbox, shown
from simulator.refusals import Refused
from simulator.requests import MOST, read_json
from simulator.store import Request, Store

_CHARGE = {"key": str, "amount": int, "currency": str, "token": str, "customer": str}
_REFUND = {"key": str, "charge_key": str, "amount": int, "currency": str}

Act = Callable[[], tuple[int, dict[str, Any]]]


class Simulator:
    """The application, its store and its faults."""

    def __init__(
        self,
        store: Store,
        faults: Faults,
        token: str | None = None,
        mailbox: Mailbox | None = None,
    ) -> None:
        self.store = store
        self.mailbox = mailbox
        self.faults = faults
        self._infrastructure = Infrastructure(store, self._once, self._was_asked, token)
        self._asked: dict[str, asyncio.Event] = {}
        self._late: set[asyncio.Task[None]] = set()
        infrastructure = "/infrastructure/{driver}"
        service = infrastructure + "/services/{service_id}"
        self.app = Starlette(
            routes=[
                self._route("/gateway/charges", self._charge, "POST"),
                self._route("/gateway/refunds", self._refund, "POST"),
                self._route("/gateway/charges/{key}", self._find_charge),
                self._route("/gateway/refunds/{key}", self._find_refund),
                self._route("/gateway/book", self._book),
                self._route("/infrastructure/resources", self._resources),
                self._route(infrastructure + "/resources", self._infrastructure.resources),
                self._route(service + "/{kind}", self._infrastructure.operate, "PUT"),
                self._route(service, self._infrastructure.get),
                self._route("/faults", self._change_faults, "POST", "DELETE"),
                self._route("/mails", self._mails),
                self._route("/health", self._health),
                self._route("/openapi.yaml", self._infrastructure.document),
            ],
            exception_handlers={HTTPException: self._no_route, Exception: self._broken},
        )
        self.app.router.redirect_slashes = False

    @staticmethod
    def _route(
        path: str, endpoint: Callable[[HttpRequest], Awaitable[Response]], *methods: str
    ) -> Route:
        async def answer(request: HttpRequest) -> Response:
            problem = path.startswith("/infrastructure/{driver}")
            try:
                return await endpoint(request)
            except Refused as refused:
                return refused.answer(problem=problem)
            except ClientDisconnect:  # in the middle of its request; nobody reads the answer
                return Refused(400, "not_json").answer(problem=problem)
            except asyncio.CancelledError:  # a call that hangs while the server is stopped
                return Refused(503, "stopping").answer(problem=problem)

        return Route(path, answer, methods=methods or ("GET",))

    @staticmethod
    async def _no_route(_request: HttpRequest, error: Exception) -> Response:
        """No path, or another method than those it has."""
        assert isinstance(error, HTTPException)
        code = "method_not_allowed" if error.status_code == 405 else "no_such_path"
        refused = Refused(error.status_code, code, headers=dict(error.headers or {}))
        return refused.answer(problem=True)

    @staticmethod
    async def _broken(_request: HttpRequest, _error: Exception) -> Response:
        return Refused(500, "internal_error").answer(problem=True)

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
            if request.target == "infrastructure":
                return self._infrastructure.answered(request, *known)
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
                answer = _about(request.body, "declined", reason=rule.reason or "declined")
                known = self.store.answer(request)
                if known is None:
                    self.store.remember(request, 402, answer)
                    known = 402, answer
                return JSONResponse(known[1], known[0])
            case "refuse":
                raise Refused(422, rule.reason or "refused", rule.words)
            case "forbid":
                raise Refused(403, rule.reason or "forbidden", rule.words)
            case "busy":
                raise Refused(429, "busy", rule.words, retry_after=rule.seconds)
            case "maintenance":
                raise Refused(503, "maintenance", rule.words, retry_after=rule.seconds)
            case "in_progress":
                return self._infrastructure.begin(rule, request, do)
            case "error":
                raise Refused(500, "internal_error")
            case "hang_before":
                await asyncio.sleep(rule.seconds)
                raise Refused(503, "gave_up")
            case "hang_after":
                do()
                await asyncio.sleep(rule.seconds)
                raise Refused(503, "gave_up")
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
                raise Refused(503, "gave_up")
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

    def _was_asked(self, what: str) -> None:
        event = self._asked.pop(what, None)
        if event is not None:
            event.set()

    async def _book(self, request: HttpRequest) -> Response:
        return JSONResponse({"entries": self.store.book(*_page(request))})

    async def _resources(self, request: HttpRequest) -> Response:
        return JSONResponse({"entries": self.store.resources(*_page(request))})

    async def _change_faults(self, request: HttpRequest) -> Response:
        if request.method == "DELETE":
            self.faults.clear()
        else:
            try:
                self.faults.add(await request.json())
            except (TypeError, ValueError, RecursionError) as error:
                return JSONResponse({"code": "bad_rule", "message": str(error)}, 400)
        return JSONResponse({"rules": len(self.faults.rules)})

    async def _mails(self, _request: HttpRequest) -> Response:
        """The mails that are kept, newest first."""
        mailbox = self.mailbox
        if mailbox is None:
            return Refused(404, "no_mailbox").answer(problem=False)
        kept = await asyncio.to_thread(lambda: [shown(mail) for mail in mailbox.messages])
        return JSONResponse({"received": mailbox.received, "mails": kept[::-1]})

    async def _health(self, _request: HttpRequest) -> Response:
        return JSONResponse({"state": "up"})


def _about(body: dict[str, Any], state: str, **more: str) -> dict[str, Any]:
    """An answer of the gateway: to what, how much, and how it ended."""
    of = {name: body[name] for name in ("key", "amount", "currency")}
    return {**of, "state": state, **more}


async def _read(request: HttpRequest, fields: dict[str, type]) -> dict[str, Any]:
    body = await read_json(request)
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
        good = isinstance(value, int) and least <= value <= MOST
    if type(value) is not kind or not good:
        raise Refused(400, f"bad_{name}")


def _page(request: HttpRequest) -> tuple[int, int]:
    try:
        after = int(request.query_params.get("after", "0"))
        limit = int(request.query_params.get("limit", "1000"))
    except ValueError:
        raise Refused(400, "bad_page") from None
    return min(max(after, 0), MOST), min(max(limit, 1), 10_000)


class Running:
    """A simulator that serves from a thread until it is stopped.

    Args:
        port: 0 for any free one.
        store: SQLite file.
        rules: see :class:`simulator.faults.Rule`.
        token: the bearer token that the infrastructure asks for; None: it asks for none.
        mailbox: the mail server whose mails are shown; started and stopped by the caller.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        store: str = ":memory:",
        seed: int = 1,
        rules: list[dict[str, Any]] | None = None,
        token: str | None = None,
        mailbox: Mailbox | None = None,
    ) -> None:
        self.simulator = Simulator(Store(store), Faults(rules, seed), token, mailbox)
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
