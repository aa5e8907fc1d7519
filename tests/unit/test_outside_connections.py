"""What a far side says at the wrong time or in a strange form, and what is known to be sent."""

import asyncio
import gzip
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.far_side import FarSide, answers
from workers.events.sender import Letter, Sender, WebhookState
from workers.outside.http import Answer, CallFailed, HttpCalls, HttpSettings, InDoubt, NotSent

Serve = Callable[[socket.socket], None]


def said(body: bytes, status: int = 200, headers: bytes = b"") -> bytes:
    """An answer over HTTP."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)


@contextmanager
def far_side(*serve: Serve) -> Iterator[int]:
    """The port of one that serves its connections in these ways, the last one again and again."""
    listener = socket.create_server(("127.0.0.1", 0))
    ways = list(serve)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                way = ways.pop(0) if len(ways) > 1 else ways[0]
                threading.Thread(target=run, args=(way, connection), daemon=True).start()

    def run(way: Serve, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            way(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def answers_of(port: int, count: int, *, pause: float = 0.1, **settings: Any) -> list[Answer]:
    """Answers to calls that are made one after the other on one session."""
    wanted = {"url": f"http://127.0.0.1:{port}", "seconds": 2} | settings

    async def run() -> list[Answer]:
        calls = HttpCalls("tested", HttpSettings(**wanted))
        found = []
        try:
            for number in range(count):
                found.append(await calls.call("x", "PUT", f"/{number}", {"number": number}))
                await asyncio.sleep(pause)
        finally:
            await calls.close()
        return found

    return asyncio.run(run())


def fault_of(port: int, **settings: Any) -> CallFailed:
    with pytest.raises(CallFailed) as raised:
        answers_of(port, 1, **settings)
    return raised.value


def repeats_itself(connection: socket.socket) -> None:
    """Answers with the path that was asked for, and a moment later once more."""
    while request := connection.recv(65536):
        answer = said(b'{"for": "%b"}' % request.split(b" ")[1])
        connection.sendall(answer)
        time.sleep(0.02)
        connection.sendall(answer)


def test_second_answer_to_a_request_is_not_taken_for_that_of_the_next() -> None:
    with far_side(repeats_itself) as port:
        assert [one.body for one in answers_of(port, 3)] == [
            b'{"for": "/0"}', b'{"for": "/1"}', b'{"for": "/2"}',
        ]  # fmt: skip


def test_second_answer_of_an_endpoint_is_not_taken_for_that_of_the_next_event() -> None:
    def takes_one(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said(b""))
        time.sleep(0.02)
        connection.sendall(said(b""))
        connection.recv(65536)

    def refuses(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(said(b"", 500))

    async def run(port: int) -> list[WebhookState]:
        sender = Sender(seconds=2, allowed=[ip_network("127.0.0.0/8")])
        url = f"http://127.0.0.1:{port}/"
        states = []
        try:
            for event in ("a", "b"):
                letter = Letter("shop", url, event, b"{}", ["whsec_" + "a" * 32])
                states.append((await sender.send(letter)).state)
                await asyncio.sleep(0.1)
        finally:
            await sender.close()
        return states

    with far_side(takes_one, refuses) as port:
        assert asyncio.run(run(port)) == [WebhookState.DELIVERED, WebhookState.REFUSED]


def test_connections_that_are_clean_are_used_again() -> None:
    begun = []

    def counts(connection: socket.socket) -> None:
        begun.append(connection)
        while connection.recv(65536):
            connection.sendall(said(b"{}"))

    with far_side(counts) as port:
        answers_of(port, 5, pause=0.02)
    assert len(begun) == 1


def test_request_that_was_sent_is_in_doubt_though_the_far_side_is_gone_since() -> None:
    # Given a far side that answers once, takes one more request and is gone: aiohttp itself sends a
    # PUT again when its connection is lost, and that finds nobody.
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(said(b"{}"))
            connection.recv(65536)
            listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(InDoubt, match="cannot connect"):
        answers_of(port, 2, seconds=1)
    thread.join(5)


def test_handshake_that_never_ends_means_nothing_was_sent() -> None:
    with far_side(lambda connection: time.sleep(2)) as port:
        fault = fault_of(port, url=f"https://127.0.0.1:{port}", seconds=0.5)
    assert isinstance(fault, NotSent)
    assert fault.code == "cannot_connect"


def test_name_that_is_not_resolved_in_time_means_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(5) and [])
    threading.Timer(1.0, over.set).start()  # asyncio waits for the thread at its end
    started = time.monotonic()
    fault = fault_of(0, url="http://slow.example", seconds=0.5)
    assert isinstance(fault, NotSent)
    assert fault.code == "cannot_connect"
    assert time.monotonic() - started < 0.5 + 10


def sockets_to(port: int) -> int:
    """How many sockets some process holds that are connected to a port of this machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[9] != "0" for row in rows)


def test_far_side_that_never_reads_holds_neither_the_call_nor_a_socket() -> None:
    over = threading.Event()

    async def run(port: int) -> None:
        calls = HttpCalls("tested", HttpSettings(url=f"http://127.0.0.1:{port}", seconds=0.5))
        started = time.monotonic()
        with pytest.raises(CallFailed):
            await calls.call("x", "PUT", "/", {"text": "x" * 8_000_000})
        assert time.monotonic() - started < 0.5 + 10
        await asyncio.sleep(0.05)
        assert sockets_to(port) == 0
        await calls.close()

    with far_side(lambda connection: over.wait(20) and None) as port:
        try:
            asyncio.run(run(port))
        finally:
            over.set()


def test_compressed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 200_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with FarSide(answers(200, bomb, Content_Encoding="gzip")) as side:
        assert fault_of(int(side.url.rpartition(":")[2]), seconds=0.3).code == "not_json"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"state": "declined", "state": "succeeded"}', "state is given more than once"),
        (b'{"of": {"key": 1, "key": 2}}', "of.key is given more than once"),
        (b'{"amount": NaN}', "not JSON"),
        (b'{"amount": -Infinity}', "not JSON"),
        (b'{"amount": ' + b"9" * 900_000 + b"}", "number out of range"),
        (b"[" * 400_000, "recursion limit"),
        ('{"amount": 1}'.encode("utf-16"), "not JSON"),
        (b'{"words": "\xff"}', "not JSON"),
        (b"", "not JSON"),
    ],
    ids=["field twice", "inner field twice", "NaN", "infinite", "digits", "deep", "UTF-16",
         "not UTF-8", "empty"],
)  # fmt: skip
def test_answer_whose_meaning_is_not_clear_is_in_doubt(body: bytes, words: str) -> None:
    with FarSide(answers(200, body)) as side:
        fault = fault_of(int(side.url.rpartition(":")[2]), seconds=0.5)
    assert isinstance(fault, InDoubt)
    assert fault.code == "not_json"
    assert words in str(fault)


def test_byte_order_mark_before_an_answer_is_left_out() -> None:
    with FarSide(answers(200, b'\xef\xbb\xbf{"state": "done"}')) as side:
        (answer,) = answers_of(int(side.url.rpartition(":")[2]), 1)
    assert answer.body == b'{"state": "done"}'


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n{}",
        b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        b"HTTP/1.1 200 X\r\nContent-Length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{}",
        b"{}\r\n\r\n",
    ],
    ids=["upgrade", "two framings", "two lengths", "negative length", "cut off", "HTTP/0.9"],
)
def test_answer_whose_end_is_not_clear_is_in_doubt(answer: bytes) -> None:
    def says(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with far_side(says) as port:
        assert isinstance(fault_of(port, seconds=0.5), InDoubt)


def test_far_side_that_speaks_first_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    connect = aiohttp.TCPConnector.connect

    async def connect_and_wait(*args: Any, **options: Any) -> Any:
        connection = await connect(*args, **options)
        await asyncio.sleep(0.05)
        return connection

    def speaks(connection: socket.socket) -> None:
        connection.sendall(said(b'{"state": "done"}'))
        asked.append(connection.recv(65536))

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect_and_wait)
    with far_side(speaks) as port:
        fault = fault_of(port, seconds=0.5)
    assert isinstance(fault, NotSent)
    assert set(asked) == {b""}
