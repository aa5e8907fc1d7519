"""An EC2 on a port of this machine: moto's server, and what of EC2 it lacks.

moto leaves out the slash at the end of the namespace of answers, and gives errors one; Libcloud
reads neither. It takes no notice of client tokens, starts machines at once, and lets everybody in.
"""

import os
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

# A size that there is not is refused, as EC2 does. Read when moto is imported.
os.environ["MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION"] = "true"

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

IMAGE = "ami-12c6146b"  # one of those that moto knows
KEY, SECRET = "AKIAAUTORENEWTEST000", "s3cret-of-the-provider-0123456789"

Answer = tuple[int, dict[str, str], bytes]
Fault = Callable[[dict[str, str], Callable[[], Answer]], Answer]
"""What is done instead: given the parameters, and the call that does what EC2 does."""


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        pass


class Dropped(Exception):
    """The connection is closed instead of an answer."""


class Ec2:
    """
    Attributes:
        url: where it is.
        requests: the parameters of those received.
        pending_seconds: for how long a machine that was begun is being made.
        heeds_tokens: two creations with one client token make one machine.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        self.over = threading.Event()
        self.pending_seconds = 0.0
        self.heeds_tokens = True
        self._faults: dict[str, Fault] = {}
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._tokens: dict[str, Answer] = {}
        self._made_at: dict[str, float] = {}
        self._making = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._serve, True, request_handler=_Quiet)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> "Ec2":
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def reset(self) -> None:
        self._faults.clear()
        self.requests.clear()
        self._tokens.clear()
        self.pending_seconds = 0.0
        self.heeds_tokens = True
        url = f"{self.url}/moto-api/reset"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST")):
            pass

    @contextmanager
    def fault(self, action: str, fault: Fault) -> Iterator[None]:
        """Have it done instead of an action; ``*``: of each."""
        self._faults[action] = fault
        try:
            yield
        finally:
            self._faults.pop(action, None)

    def actions(self) -> list[str]:
        return [request.get("Action", "") for request in self.requests]

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        action = asked.get("Action", "")
        if action:
            self.requests.append(asked)
        fault = self._faults.get(action) or (self._faults.get("*") if action else None)

        def real() -> Answer:
            return self._real(environ, asked)

        try:
            status, headers, body = fault(asked, real) if fault else real()
        except Dropped:
            environ["werkzeug.socket"].close()
            return []
        start_response(f"{status} .", list(headers.items()))
        return [body]

    def _real(self, environ: dict[str, Any], asked: dict[str, str]) -> Answer:
        who = re.search(r"Credential=(\w+)/", environ.get("HTTP_AUTHORIZATION", ""))
        if asked and (who is None or who[1] != KEY):
            return error(401, "AuthFailure", "AWS was not able to validate the access credentials")
        token = asked.get("ClientToken") if self.heeds_tokens else None
        if asked.get("Action") != "RunInstances" or token is None:
            return self._shown(self._ask_moto(environ, asked))
        with self._making:
            if token not in self._tokens:
                self._tokens[token] = self._ask_moto(environ, asked)
                if self._tokens[token][0] != 200:
                    return self._tokens.pop(token)
        return self._shown(self._tokens[token])

    def _ask_moto(self, environ: dict[str, Any], asked: dict[str, str]) -> Answer:
        said: list[Any] = []
        # Of its own, since moto changes it.
        parts = self._moto(
            dict(environ), lambda status, headers, *_: said.extend([status, headers])
        )
        body = b"".join(parts)
        body = re.sub(rb'(xmlns="http://ec2.amazonaws.com/doc/[0-9-]+)"', rb'\1/"', body)
        body = re.sub(rb"<Response xmlns=[^>]*>", b"<Response>", body)
        if asked.get("Action") == "RunInstances":
            for instance in re.findall(rb"<instanceId>(i-\w+)</instanceId>", body):
                self._made_at.setdefault(instance.decode(), time.monotonic())
        return int(said[0].split()[0]), {"Content-Type": "text/xml"}, body

    def _shown(self, answer: Answer) -> Answer:
        """An answer with machines that are being made still pending."""
        status, headers, body = answer
        if self.pending_seconds:
            since = time.monotonic() - self.pending_seconds
            new = {i.encode() for i, at in self._made_at.items() if at > since}
            items = re.split(rb"(?=<instanceId>i-)", body)
            for place, item in enumerate(items):
                # The state comes after the id of the machine it belongs to.
                if (found := re.match(rb"<instanceId>(i-\w+)<", item)) and found[1] in new:
                    pending = b"<code>0</code><name>pending</name>"
                    running = rb"<code>16</code>\s*<name>running</name>"
                    items[place] = re.sub(running, pending, item)
            body = b"".join(items)
        return status, headers | {"Content-Length": str(len(body))}, body


def error(status: int, code: str, words: str = "no", **headers: str) -> Answer:
    """An error as EC2 says it."""
    body = (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{words}</Message></Error></Errors>"
        "<RequestID>1</RequestID></Response>"
    ).encode()
    return status, {"Content-Type": "text/xml", "Content-Length": str(len(body)), **headers}, body


def says(answer: Answer) -> Fault:
    return lambda _asked, _real: answer


def answer_is_lost(_asked: dict[str, str], real: Callable[[], Answer]) -> Answer:
    """It is done, and nobody hears of it."""
    real()
    raise Dropped
