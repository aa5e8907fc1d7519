"""Bounds of a request's body: how long it may be, and how long it may take to arrive."""

import asyncio
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 20.0
"""How long a whole body may take to arrive."""


class BodyLimits:
    """Reads a body whole before the application sees the request.

    One that is longer than ``most`` bytes is answered with 413, one that does not arrive in
    ``seconds`` with 408; the connection is closed then.

    Args:
        answer: makes the body of such an answer from (status, code, message); returns it with its
            media type.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        most: int,
        seconds: float = BODY_SECONDS,
        answer: Callable[[int, str, str], tuple[bytes, str]] | None = None,
    ) -> None:
        self._app = app
        self._most = most
        self._seconds = seconds
        self._answer = answer or (lambda _status, _code, said: (said.encode(), "text/plain"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((v for n, v in scope["headers"] if n == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > self._most:
            await self._refuse(send, 413, "too_large", f"at most {self._most} bytes are accepted")
            return
        parts: list[bytes] = []
        length, ends = 0, time.monotonic() + self._seconds
        while True:
            try:
                async with asyncio.timeout(max(0.0, ends - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                said = f"the body did not arrive in {self._seconds:g} s"
                await self._refuse(send, 408, "too_slow", said)
                return
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > self._most:
                said = f"at most {self._most} bytes are accepted"
                await self._refuse(send, 413, "too_large", said)
                return
            if not message.get("more_body", False):
                break
        body: Message | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}

        async def receive_whole() -> Message:
            nonlocal body
            if body is not None:
                whole, body = body, None
                return whole
            return await receive()  # tells of a disconnection

        await self._app(scope, receive_whole, send)

    async def _refuse(self, send: Send, status: int, code: str, said: str) -> None:
        body, media_type = self._answer(status, code, said)
        headers = [
            (b"content-type", media_type.encode("latin-1")),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
