"""Who asks, and how often."""

import asyncio
from typing import Any

import pytest

from producers.web import addresses
from producers.web.addresses import AddressLimits, Buckets, client_of, network

PROXIES = [network("10.0.0.0/8"), network("fd00::/8")]


def scope(peer: str | None, *forwarded: str, path: str = "/") -> Any:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    client = (peer, 5000) if peer is not None else None
    return {"type": "http", "client": client, "headers": headers, "path": path}


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),  # not a proxy of ours
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.7, 203.0.113.9"], "203.0.113.9"),  # the first one is claimed
        ("10.0.0.1", ["198.51.100.7", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:5123"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::7]:5123"], "2001:db8::/64"),
        ("fd00::1", ["2001:db8:0:0:1:2:3:4"], "2001:db8::/64"),
        ("2001:db8:0:1::1", [], "2001:db8:0:1::/64"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["é, \x00"], "10.0.0.1"),
        (None, ["203.0.113.9"], ""),
    ],
)
def test_client_is_whom_our_own_proxies_saw(
    peer: str | None, forwarded: list[str], client: str
) -> None:
    assert client_of(scope(peer, *forwarded), PROXIES) == client


def test_nothing_that_a_client_writes_counts_without_a_proxy_of_ours() -> None:
    assert client_of(scope("10.0.0.1", "203.0.113.9"), []) == "10.0.0.1"


def test_a_bucket_holds_the_requests_of_a_minute_and_fills_again() -> None:
    now = 0.0
    buckets = Buckets(6, lambda: now)
    assert [buckets.wait("a") for _ in range(7)] == [0.0] * 6 + [10.0]
    assert buckets.wait("b") == 0.0
    now = 9.0
    assert buckets.wait("a") == pytest.approx(1.0)
    now = 10.0
    assert buckets.wait("a") == 0.0
    now = 1000.0
    assert [buckets.wait("a") for _ in range(7)].count(0.0) == 6


def test_of_too_many_clients_the_one_that_was_quiet_for_longest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(addresses, "MOST_REMEMBERED", 2)
    buckets = Buckets(1, lambda: 0.0)
    for client in ("a", "b", "a", "c"):
        buckets.wait(client)
    assert buckets.wait("a") > 0
    assert buckets.wait("b") == 0.0


def test_too_many_requests_are_answered_with_429_and_when_to_come_again() -> None:
    asked: list[str] = []
    answers: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        asked.append(scope["path"])

    async def send(message: Any) -> None:
        answers.append(message)

    async def receive() -> Any:
        raise AssertionError

    async def ask(path: str) -> None:
        await limits(scope("192.0.2.1", path=path), receive, send)

    limits = AddressLimits(app, per_minute=2)
    for path in ("/a", "/b", "/c", "/healthz", "/readyz"):
        asyncio.run(ask(path))
    assert asked == ["/a", "/b", "/healthz", "/readyz"]
    assert answers[0]["status"] == 429
    assert 29 <= int(dict(answers[0]["headers"])[b"retry-after"]) <= 30
