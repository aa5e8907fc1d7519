"""An HTTP server that a test scripts, for calls that go wrong."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[["FarSide", BaseHTTPRequestHandler], None]


class FarSide:
    """An HTTP server that runs one step of its script per request, the last one again and again.

    Attributes:
        requests: the requests received: method, path, headers, body.
    """

    def __init__(self, *script: Script) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.over = threading.Event()
        steps = list(script)
        far_side = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                far_side.requests.append(
                    (
                        self.command,
                        self.path,
                        {name.lower(): value for name, value in self.headers.items()},
                        json.loads(body) if body else None,
                    )
                )
                step = steps.pop(0) if len(steps) > 1 else steps[0]
                step(far_side, self)

            do_GET = do_POST = do_PUT = _answer  # noqa: N815 - named by the standard library

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> "FarSide":
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()


def answers(status: int, body: Any, **headers: str) -> Script:
    """A step that answers; ``body`` is sent as JSON unless it is bytes.

    Args:
        headers: by name, with ``_`` for ``-``; these and no others.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def step(_: FarSide, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response_only(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return step


def hangs(side: FarSide, _: BaseHTTPRequestHandler) -> None:
    """A step that reads the request and sends nothing until the test is over."""
    side.over.wait(30)


def drops(_: FarSide, handler: BaseHTTPRequestHandler) -> None:
    """A step that reads the request and closes the connection without an answer."""
    handler.close_connection = True
