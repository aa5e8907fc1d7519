"""A proxy between a driver and its far side, which loses answers and holds requests back."""

import http.client
import threading
from collections.abc import Callable
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Fate(Enum):
    """What becomes of a request."""

    PASSES = auto()
    LOSES_ITS_ANSWER = auto()
    """It is done, and its answer never arrives."""
    IS_LATE = auto()
    """It stays on the way until :meth:`Between.deliver`, when nobody waits for it any more."""


class Between:
    """
    Args:
        url: of the far side.
        fate: of a request, by its method and path.

    Attributes:
        url: what a driver is told instead.
        requests: method and path of those that came.
    """

    def __init__(self, url: str, fate: Callable[[str, str], Fate]) -> None:
        target = urlsplit(url)
        self.requests: list[tuple[str, str]] = []
        self._released, self._over = threading.Event(), threading.Event()
        self._late: list[threading.Thread] = []
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                between.requests.append((self.command, self.path))
                becomes = fate(self.command, self.path)
                if becomes is Fate.IS_LATE:
                    between._late.append(threading.current_thread())
                    between._released.wait(30)
                status, content = self._pass_on(body)
                if becomes is Fate.PASSES:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                else:
                    if becomes is Fate.LOSES_ITS_ANSWER:
                        between._over.wait(30)
                    self.close_connection = True

            def _pass_on(self, body: bytes) -> tuple[int, bytes]:
                connection = http.client.HTTPConnection(target.hostname or "", target.port)
                try:
                    kept = {n: v for n, v in self.headers.items() if n.lower() != "host"}
                    connection.request(self.command, self.path, body or None, kept)
                    response = connection.getresponse()
                    return response.status, response.read()
                finally:
                    connection.close()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - its names

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{target.path}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def deliver(self) -> int:
        """Let what is late arrive; returns how many requests that were."""
        self._released.set()
        for thread in self._late:
            thread.join(10)
        return len(self._late)

    def __enter__(self) -> "Between":
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._over.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()
