"""A connection whose requests' heads are bounded: how long they are, and how long they may take.

uvicorn bounds neither where httptools parses: a client that never ends its head would hold its
connection, and memory, for ever.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 20.0
"""From the opening of a connection, or from the first byte of a later head, to its end."""

Answer = Callable[[int, str, str], tuple[bytes, str]]
"""(status, code, message) -> the body of an answer, and its media type."""

_LINES = {
    400: b"HTTP/1.1 400 Bad Request",
    408: b"HTTP/1.1 408 Request Timeout",
    431: b"HTTP/1.1 431 Request Header Fields Too Large",
}


def in_plain_text(_status: int, _code: str, said: str) -> tuple[bytes, str]:
    return said.encode(), "text/plain; charset=utf-8"


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose head is too long (431), too slow (408) or no HTTP (400).

    No application sees these: ``answer`` makes the body of what is answered.
    """

    most = MOST_HEAD_BYTES
    seconds = HEAD_SECONDS
    answer: Answer = staticmethod(in_plain_text)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._slow: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._start_timer()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.most:
            self._refuse(431, "too_large", f"the head may have {self.most} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._start_timer()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True  # what comes next is another head, or nothing

    def _start_timer(self) -> None:
        if self._slow is None:
            self._slow = self.loop.call_later(self.seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _too_slow(self) -> None:
        self._slow = None
        self._refuse(408, "too_slow", f"the head did not arrive in {self.seconds:g} s")

    def send_400_response(self, msg: str) -> None:
        """uvicorn's hook for what its parser does not take."""
        self._refuse(400, "malformed", "this is no HTTP request")

    def _refuse(self, status: int, code: str, said: str) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        body, media_type = type(self).answer(status, code, said)
        head = b"%s\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (
            _LINES[status],
            media_type.encode(),
            len(body),
        )
        self.transport.write(head + body)
        self.transport.close()


def bounded(answer: Answer) -> type[BoundedProtocol]:
    """A protocol whose answers to what is no request are made so."""
    return type("Bounded", (BoundedProtocol,), {"answer": staticmethod(answer)})
