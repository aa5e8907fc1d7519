"""What every process over HTTP shares, over real connections."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from producers.web import health
from producers.web.bounded import BoundedProtocol
from producers.web.headers import PAGE_POLICY, SecurityHeaders
from producers.web.limits import BodyLimits
from producers.web.serving import WebServer
from schemas.errors import ConfigurationError

MOST = 1000
down: list[str] = []
slow = threading.Event()


def check_database() -> None:
    if down:
        raise OSError(down[0])


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())), headers={"Cache-Control": "private"})


def wait(_request: Request) -> Response:
    slow.wait(30)
    return PlainTextResponse("finished")


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    routes = [
        Route("/echo", echo, methods=["POST"]),
        Route("/wait", wait),
        *health.routes({"database": check_database}),
    ]
    app = SecurityHeaders(
        BodyLimits(Starlette(routes=routes), most=MOST, seconds=0.3), policy=PAGE_POLICY
    )
    with WebServer(app, host="127.0.0.1", port=0, name="test", grace=5) as running:
        yield running


def ask(server: WebServer, method: str, path: str, body: bytes | None = None) -> tuple:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    return answer.status, {n.lower(): v for n, v in answer.getheaders()}, said


def raw(server: WebServer, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plug:
        plug.sendall(data)
        said = b""
        while part := plug.recv(65536):
            said += part
        return said


def test_every_answer_has_the_security_headers(server: WebServer) -> None:
    for path, status in (("/healthz", 200), ("/nothing", 404)):
        got, headers, _ = ask(server, "GET", path)
        assert got == status
        assert headers["content-security-policy"] == PAGE_POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_header_of_the_application_stays(server: WebServer) -> None:
    assert ask(server, "POST", "/echo", b"1")[1]["cache-control"] == "private"


@pytest.mark.parametrize(("length", "status"), [(0, 200), (MOST, 200), (MOST + 1, 413)])
def test_length_of_a_body_is_limited(server: WebServer, length: int, status: int) -> None:
    assert ask(server, "POST", "/echo", b"x" * length)[0] == status


def test_length_of_a_body_in_chunks_is_limited(server: WebServer) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    said = raw(server, head + b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


def test_body_that_trickles_is_given_up(server: WebServer) -> None:
    started = time.monotonic()
    said = raw(server, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert 0.2 < time.monotonic() - started < 20


def test_length_that_is_no_number_is_refused(server: WebServer) -> None:
    for length in (b"-1", b"1e3", "²".encode()):
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: " + length
        said = raw(server, head + b"\r\n\r\n")
        assert said.split(b" ")[1] in (b"400", b"413")


def test_readiness_names_what_is_missing(server: WebServer) -> None:
    assert ask(server, "GET", "/readyz")[0] == 200
    down.append("password=secret")
    try:
        status, headers, said = ask(server, "GET", "/readyz")
    finally:
        down.clear()
    assert status == 503
    assert headers["retry-after"] == "5"
    assert json.loads(said) == {"status": "unavailable", "missing": ["database"]}
    assert ask(server, "GET", "/healthz")[0] == 200


def test_port_that_is_taken_is_a_clear_error(server: WebServer) -> None:
    with pytest.raises(ConfigurationError, match=rf"cannot serve on 127\.0\.0\.1:{server.port}: "):
        WebServer(Starlette(), host="127.0.0.1", port=server.port, name="second")


def test_stop_lets_an_answer_finish() -> None:
    slow.clear()
    app = Starlette(routes=[Route("/wait", wait)])
    answers: list[int] = []
    with WebServer(app, host="127.0.0.1", port=0, name="test", grace=5) as running:
        asker = threading.Thread(target=lambda: answers.append(ask(running, "GET", "/wait")[0]))
        asker.start()
        time.sleep(0.2)
        running.stop()
        slow.set()
        asker.join(30)
    assert answers == [200]


def test_what_is_no_request_is_answered_as_the_server_is_told() -> None:
    def answer(status: int, code: str, said: str) -> tuple[bytes, str]:
        return json.dumps([status, code, said]).encode(), "application/json"

    app = Starlette(routes=[Route("/wait", wait)])
    with WebServer(app, host="127.0.0.1", port=0, name="test", answer=answer) as running:
        for sent in (
            b"nonsense\r\n\r\n",
            b"GET /wait HTTP/9.9\r\n\r\n",
            b"GET /wait HTTP/1.1\r\nHo st: x\r\n\r\n",
            b"GET /wait HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        ):
            head, _, said = raw(running, sent).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n"), sent
            assert b"content-type: application/json" in head
            assert f"content-length: {len(said)}".encode() in head
            assert json.loads(said) == [400, "malformed", "this is no HTTP request"]


class TestHead:
    """Of a request, before its body."""

    def test_that_never_ends_is_cut_off(
        self, server: WebServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(BoundedProtocol, "seconds", 0.3)
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"):
            began = time.monotonic()
            assert raw(server, sent).startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - began < 20

    def test_that_never_ends_is_cut_off_on_a_connection_that_was_used(
        self, server: WebServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(BoundedProtocol, "seconds", 0.3)
        whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        said = raw(server, whole + whole + b"GET /heal")
        assert said.count(b"HTTP/1.1 200 ") == 2
        assert b"HTTP/1.1 408 " in said

    def test_that_is_too_long_is_refused(self, server: WebServer) -> None:
        endless = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 1000) for n in range(20_000))
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=30) as plug,
            pytest.raises(OSError, match=r"reset|pipe"),
        ):
            plug.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + endless)

    def test_of_a_slow_answer_is_not_cut_off(
        self, server: WebServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(BoundedProtocol, "seconds", 0.2)
        slow.clear()
        threading.Timer(0.6, slow.set).start()
        assert ask(server, "GET", "/wait")[2] == b"finished"
