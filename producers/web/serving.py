"""Serve an ASGI application until stopped, and let what runs finish."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from producers.web.bounded import Answer, bounded, in_plain_text
from producers.web.metrics import RequestMetrics
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

GRACE_SECONDS = 20
"""How long answers that are under way may take once a stop is asked for."""
_BACKLOG = 2048
_START_SECONDS = 10.0


def listen(host: str, port: int) -> socket.socket:
    """A socket on which connections are accepted from now on.

    Args:
        port: 0 for any free one.

    Raises:
        ConfigurationError: the address is in use or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is named: 2 ms an answer instead of 42.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        listening.close()
        raise ConfigurationError(f"cannot serve on {host}:{port}: {error}") from None
    return listening


def url_of(host: str, listening: socket.socket) -> str:
    """Where a socket of :func:`listen` is reached."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


class WebServer:
    """One HTTP server in this process; the port is bound when it is made. Requests are counted.

    Args:
        port: 0 for any free one; :attr:`port` tells which.
        grace: seconds that answers under way may take after :meth:`stop`.
        listening: accept from this socket, which other processes have, too; None: from a new one.
        beat: called once a second by the thread that answers, and first when it begins to.
        answer: makes the body of an answer to what is no request, as for :class:`BoundedProtocol`.

    Raises:
        ConfigurationError: the address is in use or may not be used.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        name: str,
        grace: int = GRACE_SECONDS,
        listening: socket.socket | None = None,
        beat: Callable[[], None] | None = None,
        answer: Answer = in_plain_text,
    ) -> None:
        self._name = name
        self._socket = listen(host, port) if listening is None else listening
        self.port = int(self._socket.getsockname()[1])
        self.url = url_of(host, self._socket)

        async def notify() -> None:
            if beat is not None:
                beat()

        self._server = uvicorn.Server(
            uvicorn.Config(
                RequestMetrics(app, name),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                http=bounded(answer),
                backlog=_BACKLOG,
                callback_notify=notify,
                timeout_notify=0,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=grace,
            )
        )
        self._grace = grace
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> "WebServer":
        """Serve from a thread of its own: uvicorn takes over the signals of a main thread.

        Raises:
            RuntimeError: the application did not start.
        """
        self._thread.start()
        end = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if time.monotonic() > end or not self._thread.is_alive():
                self.stop()
                raise RuntimeError(f"{self._name} did not start; see its log")
            time.sleep(0.005)
        log.info("%s on %s", self._name, self.url)
        return self

    def run(self) -> None:
        """Serve until :meth:`stop`; then finish what is under way."""
        self.start()
        self.wait()

    def wait(self) -> None:
        """Until it was stopped, and what was under way is finished."""
        while self._thread.is_alive():
            self._thread.join(0.2)  # a join without an end would be deaf to signals

    def stop(self) -> None:
        """Take no more requests; from any thread, or from a signal handler."""
        self._server.should_exit = True

    def close(self) -> None:
        """Stop, and wait until answers under way are given, or their time is over."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(self._grace + _START_SECONDS)
        self._socket.close()

    def _serve(self) -> None:
        self._server.run([self._socket])

    def __enter__(self) -> "WebServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
