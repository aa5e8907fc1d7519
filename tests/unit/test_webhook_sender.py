"""One request to an endpoint, over real connections."""

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from schemas.settings import Settings
from tests.support.receiver import Receiver, Request, make_certificate
from workers.events.sender import Letter, Sender, WebhookAnswer, WebhookState
from workers.events.signing import new_secret, signed

LOCAL = Settings(webhook_allowed_networks=["127.0.0.0/8", "::1/128"]).webhook_allowed_networks
SECRET = new_secret()


def sent(url: str, *, seconds: float = 5.0, allowed: Any = LOCAL, keys: Any = (SECRET,)) -> Any:
    async def run() -> WebhookAnswer:
        sender = Sender(seconds=seconds, allowed=allowed)
        try:
            return await sender.send(Letter("shop", url, "event-1", b'{"a": 1}', keys))
        finally:
            await sender.close()

    return asyncio.run(run())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    make_certificate(folder)
    return folder


def test_both_secrets_sign_while_one_replaces_the_other() -> None:
    # Given a secret that replaces another
    new = new_secret()
    with Receiver() as receiver:
        assert sent(receiver.url(), keys=(new, SECRET)).state is WebhookState.DELIVERED
    # Then a receiver may know either
    (request,) = receiver.requests
    for secret in (new, SECRET):
        assert Verifier(secret).verify(request.body, request.headers) == {"a": 1}
    # and no other.
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(new_secret()).verify(request.body, request.headers)


def test_signature_covers_id_time_and_body() -> None:
    headers = signed("event-1", int(time.time()), b"{}", [SECRET])
    assert Verifier(SECRET).verify(b"{}", headers) == {}
    for changed in (headers | {"webhook-id": "event-2"}, headers | {"webhook-timestamp": "1"}):
        with pytest.raises(Exception, match=r"signature|timestamp|too old"):
            Verifier(SECRET).verify(b"{}", changed)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, WebhookState.DELIVERED),
        (202, WebhookState.DELIVERED),
        (204, WebhookState.DELIVERED),
        (410, WebhookState.GONE),
        (301, WebhookState.REFUSED),
        (400, WebhookState.REFUSED),
        (404, WebhookState.REFUSED),
        (500, WebhookState.REFUSED),
    ],
)
def test_only_a_2xx_is_a_success(status: int, state: WebhookState) -> None:
    with Receiver(lambda _: (status, {})) as receiver:
        assert sent(receiver.url()).state is state
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with (
        Receiver() as elsewhere,
        Receiver(lambda _: (status, {"Location": elsewhere.url()})) as receiver,
    ):
        answer = sent(receiver.url())
    assert (answer.state, answer.code) == (WebhookState.REFUSED, f"HTTP {status}")
    assert elsewhere.requests == []


def test_an_endpoint_may_ask_not_to_be_called_for_a_while() -> None:
    with Receiver(lambda _: (503, {"Retry-After": "120"})) as receiver:
        assert sent(receiver.url()).retry_after == 120


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "0"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_fleets_own_host_is_not_connected_to(scheme: str, host: str) -> None:
    # Given something that listens there
    with Receiver() as receiver:
        answer = sent(f"{scheme}://{host}:{receiver.port}/", allowed=())
    # Then nothing reached it.
    assert answer.state is WebhookState.FORBIDDEN, answer
    assert receiver.requests == []


def test_a_name_is_resolved_once_and_what_it_gave_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a name that leads to the Internet first, and inside after that (DNS rebinding)
    asked = []

    def rebinding(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        address = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(
        "workers.events.addresses._is_of_the_internet", lambda a: str(a) != "127.0.0.1"
    )
    # When it is sent to
    answer = sent("https://rebinds.example/", allowed=(), seconds=0.3)
    # Then it was asked for once, and nobody was called inside.
    assert asked == ["rebinds.example"]
    assert answer.state is WebhookState.UNAVAILABLE


def test_a_certificate_that_nobody_trusts_is_refused(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver(certificate=certificate) as receiver:
        answer = sent(receiver.url("localhost"))
        assert (answer.state, answer.code) == (WebhookState.UNAVAILABLE, "certificate"), answer
        # With its authority it is not.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "ca.pem"))
        assert sent(receiver.url("localhost")).state is WebhookState.DELIVERED
    assert len(receiver.requests) == 1


class Misbehaving:
    """A server that answers with raw bytes, and goes on as a test says."""

    def __init__(self, parts: list[bytes], pause: float, times: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._said = parts, pause, times
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        parts, pause, times = self._said
        connection, _ = self._listener.accept()
        try:
            connection.recv(65536)
            connection.sendall(parts[0])
            for _ in range(times):
                connection.sendall(parts[1])
                time.sleep(pause)
        except OSError:
            pass
        finally:
            connection.close()
            self._listener.close()


def test_an_answer_that_drips_is_given_up_at_the_deadline() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    server = Misbehaving([head, b"x"], 0.02, 1000)
    started = time.monotonic()
    answer = sent(server.url, seconds=0.4)
    assert (answer.state, answer.code) == (WebhookState.UNAVAILABLE, "no_answer")
    assert time.monotonic() - started < 10  # and not 20


def test_headers_that_drip_are_given_up_at_the_deadline() -> None:
    server = Misbehaving([b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"], 0.02, 1000)
    assert sent(server.url, seconds=0.4).code == "no_answer"


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = Misbehaving([head, b"1000\r\n" + b"x" * 4096 + b"\r\n"], 0.0, 1_000_000)
    assert sent(server.url, seconds=5).state is WebhookState.DELIVERED


def test_what_is_no_http_is_no_success() -> None:
    server = Misbehaving([b"220 mail.example ESMTP\r\n", b""], 0.0, 1)
    assert sent(server.url, seconds=2).state is WebhookState.UNAVAILABLE


def test_nobody_listens() -> None:
    with Receiver() as receiver:
        url = receiver.url()
    assert sent(url).code == "cannot_connect"


def test_the_signature_is_of_the_moment_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Request] = []
    with Receiver() as receiver:
        sent(receiver.url())
        received += receiver.requests
    assert abs(int(received[0].headers["webhook-timestamp"]) - time.time()) < 5
