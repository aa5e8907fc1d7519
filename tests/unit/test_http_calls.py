import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

import pytest
from prometheus_client import REGISTRY

from autorenew.local.ports import free_port
from tests.support.far_side import FarSide, answers, drops, hangs
from workers.outside.http import Answer, HttpCalls, InDoubt, NotSent


def calls(url: str, *, seconds: float = 5, token: str | None = None) -> HttpCalls:
    return HttpCalls("tested", url, token=token, seconds=seconds)


def test_answer_has_a_status_and_a_json_object() -> None:
    with FarSide(answers(201, {"state": "done"})) as far_side:
        answer = calls(far_side.url).call("create", "POST", "/things", {"key": "k"})
        assert answer == Answer(201, {"state": "done"})
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
        assert calls(far_side.url).call("create", "PUT", "/") == Answer(status, {"code": "no"})
        assert len(far_side.requests) == 1


def test_answer_that_is_not_an_object_is_empty() -> None:
    with FarSide(answers(200, ["x"])) as far_side:
        assert calls(far_side.url).call("find", "GET", "/") == Answer(200, {})


@pytest.mark.parametrize(
    "fault", [drops, answers(500, {}), answers(502, b"<html>"), answers(200, b"not JSON")]
)
def test_short_fault_is_retried(fault: object) -> None:
    with FarSide(fault, fault, answers(200, {"state": "done"})) as far_side:  # type: ignore[arg-type]
        assert calls(far_side.url).call("create", "PUT", "/").body == {"state": "done"}
        assert len(far_side.requests) == 3


@pytest.mark.parametrize(
    "fault", [drops, answers(500, {}), answers(503, b""), answers(200, b"not JSON")]
)
def test_lasting_fault_leaves_the_call_in_doubt(fault: object) -> None:
    with FarSide(fault) as far_side:  # type: ignore[arg-type]
        with pytest.raises(InDoubt):
            calls(far_side.url, seconds=0.3).call("create", "PUT", "/")
        assert 2 <= len(far_side.requests) <= 5


def test_unreachable_host_means_nothing_was_sent() -> None:
    with pytest.raises(NotSent, match="refused"):
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
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
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
        assert answer.body == {"state": "done"}
        assert len(far_side.requests) == 2


def test_the_deadline_holds_for_a_far_side_that_trickles() -> None:
    # Given an answer that comes byte by byte, each well within any timeout
    def trickles(side: FarSide, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "400")
        handler.end_headers()
        with suppress(OSError):  # the client has left
            while not side.over.wait(0.05):
                handler.wfile.write(b" ")
                handler.wfile.flush()

    with FarSide(trickles) as far_side:
        started = time.monotonic()
        with pytest.raises(InDoubt):
            calls(far_side.url, seconds=0.5).call("create", "PUT", "/")
        assert time.monotonic() - started < 0.5 + 0.4


def test_endless_answer_is_given_up() -> None:
    endless = answers(200, b'"' + b"x" * 2_000_000 + b'"')
    with FarSide(endless) as far_side, pytest.raises(InDoubt, match="does not end"):
        calls(far_side.url, seconds=0.5).call("create", "PUT", "/")


def test_answer_is_printable_and_bounded() -> None:
    said = {"reason": "a\x00b\nc" + "d" * 1000, "generation": 2}
    with FarSide(answers(200, said)) as far_side:
        body = calls(far_side.url).call("find", "GET", "/").body
    assert body["reason"].startswith("abcd")
    assert len(body["reason"]) == 500
    assert body["generation"] == 2


def test_how_long_a_call_took_is_measured_however_it_ended() -> None:
    labels = {"target": "measured", "operation": "create"}
    away = HttpCalls("measured", f"http://127.0.0.1:{free_port()}", token=None, seconds=0.1)
    with FarSide(answers(200, {})) as far_side:
        HttpCalls("measured", far_side.url, token=None, seconds=1).call("create", "PUT", "/")
    with pytest.raises(NotSent):
        away.call("create", "PUT", "/")
    assert REGISTRY.get_sample_value("autorenew_call_seconds_count", labels) == 2


def test_how_a_call_ended_is_counted_in_the_words_of_its_port() -> None:
    labels = {"target": "tested", "operation": "create", "outcome": "done"}
    client = calls("http://127.0.0.1:1")
    client.count("create", "done")
    client.count("create", "done")
    assert REGISTRY.get_sample_value("autorenew_calls_total", labels) == 2


def test_threads_share_it_safely() -> None:
    with FarSide(answers(200, {"state": "done"})) as far_side:
        client = calls(far_side.url)
        got: list[Answer] = []
        threads = [
            threading.Thread(target=lambda: got.append(client.call("find", "GET", "/")))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert got == [Answer(200, {"state": "done"})] * 20
