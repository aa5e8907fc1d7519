import asyncio
import resource
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from prometheus_client import REGISTRY

from autorenew.local.ports import free_port
from tests.support.far_side import FarSide, answers, drops, hangs
from workers.outside.http import Answer, HttpCalls, HttpSettings, InDoubt, NotSent


class Calls:
    """Calls that are waited for, one by one."""

    def __init__(self, url: str, target: str = "tested", **settings: Any) -> None:
        self._calls = HttpCalls(target, HttpSettings(url=url, **({"seconds": 5} | settings)))

    def call(self, operation: str, method: str, path: str, body: Any = None) -> Answer:
        return self.together(1, operation, method, path, body)[0]

    def together(self, count: int, *call: Any) -> list[Answer]:
        async def run() -> list[Answer]:
            try:
                return await asyncio.gather(*(self._calls.call(*call) for _ in range(count)))
            finally:
                await self._calls.close()

        return asyncio.run(run())


def calls(url: str, **settings: Any) -> Calls:
    return Calls(url, **settings)


def test_an_answer_is_its_status_and_its_body() -> None:
    with FarSide(answers(201, {"state": "done"})) as far_side:
        answer = calls(far_side.url).call("create", "POST", "/things", {"key": "k"})
        assert answer == Answer(201, b'{"state": "done"}')
        method, path, headers, body = far_side.requests[0]
        assert (method, path, body) == ("POST", "/things", {"key": "k"})
        assert headers["content-type"] == "application/json"
        assert "authorization" not in headers


def test_get_request_has_no_body() -> None:
    with FarSide(answers(200, {})) as far_side:
        calls(far_side.url).call("find", "GET", "/things/k")
        assert far_side.requests[0][3] is None


def test_request_carries_the_token() -> None:
    with FarSide(answers(200, {})) as far_side:
        calls(far_side.url, token="secret").call("find", "GET", "/")
        assert far_side.requests[0][2]["authorization"] == "Bearer secret"


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429])
def test_client_error_is_an_answer_and_is_not_retried(status: int) -> None:
    with FarSide(answers(status, {"code": "no"})) as far_side:
        assert calls(far_side.url).call("create", "PUT", "/") == Answer(status, b'{"code": "no"}')
        assert len(far_side.requests) == 1


@pytest.mark.parametrize("status", [202, 401, 403, 425, 429])
def test_some_answers_need_no_body(status: int) -> None:
    with FarSide(answers(status, b"<html>", Retry_After="7")) as far_side:
        later = 7.0 if status in (202, 429) else None
        answer = calls(far_side.url).call("create", "PUT", "/")
        assert answer == Answer(status, b"null", later)
        assert len(far_side.requests) == 1


def test_far_side_that_asks_not_to_be_called_is_not_called_again() -> None:
    # Given a fault that is tried again, and then one that asks for a pause
    fault, pause = answers(502, b""), answers(503, b"<html>", Retry_After="30")
    with (
        FarSide(fault, pause, answers(200, {})) as far_side,
        pytest.raises(InDoubt, match="HTTP 503") as caught,
    ):
        calls(far_side.url).call("create", "PUT", "/")
    assert caught.value.retry_after == 30.0
    assert len(far_side.requests) == 2


@pytest.mark.parametrize(
    "fault", [drops, answers(500, {}), answers(502, b"<html>"), answers(200, b"not JSON")]
)
def test_short_fault_is_retried(fault: object) -> None:
    with FarSide(fault, fault, answers(200, {"state": "done"})) as far_side:  # type: ignore[arg-type]
        assert calls(far_side.url).call("create", "PUT", "/").body == b'{"state": "done"}'
        assert len(far_side.requests) == 3


@pytest.mark.parametrize(
    "fault", [drops, answers(500, {}), answers(503, b""), answers(200, b"not JSON")]
)
def test_lasting_fault_leaves_the_call_in_doubt(fault: object) -> None:
    with FarSide(fault) as far_side:  # type: ignore[arg-type]
        with pytest.raises(InDoubt):
            calls(far_side.url, seconds=0.3).call("create", "PUT", "/")
        # A PUT whose connection was dropped is sent once more by the client itself.
        assert 2 <= len(far_side.requests) <= 10


def test_unreachable_server_means_nothing_was_sent() -> None:
    with pytest.raises(NotSent, match="cannot connect"):
        calls(f"http://127.0.0.1:{free_port()}", seconds=0.3).call("create", "PUT", "/")


@contextmanager
def once_and_never_again(reply: bytes) -> Iterator[str]:
    """Takes one request, replies, and is gone."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        listener.close()
        with connection:
            connection.recv(65536)
            connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join(5)


def test_one_try_that_may_have_been_acted_on_leaves_the_whole_call_in_doubt() -> None:
    # Given a far side that fails once and then is not there any more
    with (
        once_and_never_again(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") as url,
        # Then it is not said that nothing was sent.
        pytest.raises(InDoubt),
    ):
        calls(url, seconds=0.5).call("create", "PUT", "/", {"key": "k"})


def test_the_deadline_holds_for_a_far_side_that_hangs() -> None:
    with FarSide(hangs) as far_side:
        started = time.monotonic()
        with pytest.raises(InDoubt):
            calls(far_side.url, seconds=0.5).call("create", "PUT", "/")
        took = time.monotonic() - started
        assert 0.25 < took < 0.5 + 0.4  # a busy machine may be late itself


def test_hanging_try_leaves_time_for_another() -> None:
    with FarSide(hangs, answers(200, {"state": "done"})) as far_side:
        answer = calls(far_side.url, seconds=0.5).call("create", "PUT", "/")
        assert answer.body == b'{"state": "done"}'
        assert len(far_side.requests) == 2


# What a far side says before it goes on for ever, and what it then says every now and then: each
# byte well within any timeout that is for a packet.
TRICKLES = {
    "the bytes of a header line": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "header lines": (b"HTTP/1.1 200 OK\r\n", b"X-Slow: x\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nX-Slow: x\r\n\r\n"),
    "the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n", b" "),
    "a body without a length": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" "),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a chunk's size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "a chunk's extension": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"x",
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        b"X-Slow: x\r\n",
    ),
    "the status line": (b"HTTP/1.1 200 ", b"O"),
}  # fmt: skip


@contextmanager
def raw(beginning: bytes, again: bytes, *, every: float) -> Iterator[str]:
    """Says something to each connection, and then the same again and again."""
    over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            with suppress(OSError):  # the client has left
                self.request.sendall(beginning)
                while not over.wait(every):
                    self.request.sendall(again)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:  # else it would speak for as long as the process lives
            over.set()
            server.shutdown()
            thread.join(5)


@pytest.mark.parametrize("what", TRICKLES)
def test_one_deadline_holds_for_whatever_a_far_side_trickles(what: str) -> None:
    with raw(*TRICKLES[what], every=0.05) as url:
        started = time.monotonic()
        with pytest.raises(InDoubt):
            calls(url, seconds=0.5).call("create", "PUT", "/")
        assert time.monotonic() - started < 0.5 + 10


@pytest.mark.parametrize("what", TRICKLES)
def test_a_far_side_that_pours_forth_for_ever_neither_holds_a_call_nor_fills_memory(
    what: str,
) -> None:
    beginning, again = TRICKLES[what]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with raw(beginning, again * 5000, every=0.0) as url:
        started = time.monotonic()
        with pytest.raises(InDoubt):
            calls(url, seconds=0.5).call("create", "PUT", "/")
        assert time.monotonic() - started < 0.5 + 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_calls_that_trickle_leave_the_others_their_time() -> None:
    with raw(*TRICKLES["header lines"], every=0.02) as slow:
        stuck = HttpCalls("stuck", HttpSettings(url=slow, seconds=30))
        with FarSide(answers(200, {})) as quick:
            other = HttpCalls("other", HttpSettings(url=quick.url, seconds=30))

            async def run() -> float:
                waiting = [asyncio.create_task(stuck.call("x", "GET", "/")) for _ in range(50)]
                await asyncio.sleep(0.1)
                started = time.monotonic()
                await other.call("x", "GET", "/")
                took = time.monotonic() - started
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                await stuck.close()
                await other.close()
                return took

            assert asyncio.run(run()) < 10  # and not 30


def test_endless_answer_is_given_up() -> None:
    endless = answers(200, b'"' + b"x" * 2_000_000 + b'"')
    with FarSide(endless) as far_side, pytest.raises(InDoubt, match="does not end"):
        calls(far_side.url, seconds=0.5).call("create", "PUT", "/")


def test_how_long_a_call_took_is_measured_however_it_ended() -> None:
    labels = {"target": "measured", "operation": "create"}
    with FarSide(answers(200, {})) as far_side:
        Calls(far_side.url, "measured").call("create", "PUT", "/")
    away = Calls(f"http://127.0.0.1:{free_port()}", "measured", seconds=0.1)
    with pytest.raises(NotSent):
        away.call("create", "PUT", "/")
    assert REGISTRY.get_sample_value("autorenew_call_seconds_count", labels) == 2


def test_how_a_call_ended_is_counted_in_the_words_of_its_port() -> None:
    labels = {"target": "tested", "operation": "create", "outcome": "done"}
    client = HttpCalls("tested", HttpSettings(url="http://127.0.0.1:1"))
    before = REGISTRY.get_sample_value("autorenew_calls_total", labels) or 0.0
    client.count("create", "done")
    client.count("create", "done")
    assert REGISTRY.get_sample_value("autorenew_calls_total", labels) == before + 2


def test_many_calls_are_under_way_at_once() -> None:
    together = threading.Barrier(40)

    def waits_for_the_others(side: FarSide, handler: BaseHTTPRequestHandler) -> None:
        together.wait(20)
        answers(200, {})(side, handler)

    with FarSide(waits_for_the_others) as far_side:
        assert len(calls(far_side.url, seconds=30).together(40, "find", "GET", "/")) == 40


def test_no_more_connections_are_opened_than_a_far_side_allows() -> None:
    most, now, lock = 0, 0, threading.Lock()

    def counts(side: FarSide, handler: BaseHTTPRequestHandler) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        side.over.wait(0.02)
        with lock:
            now -= 1
        answers(200, {})(side, handler)

    with FarSide(counts) as far_side:
        calls(far_side.url, connections=3).together(30, "find", "GET", "/")
    assert most <= 3


def test_a_redirect_is_not_followed() -> None:
    with FarSide(answers(302, {})) as far_side:
        assert calls(far_side.url).call("find", "GET", "/").status == 302
        assert len(far_side.requests) == 1


@pytest.mark.parametrize("url", ["ftp://example.com", "http://", "example.com", "http:///path"])
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        HttpSettings(url=url)
