"""The Python client over HTTP, against the API and a fleet that delivers."""

import asyncio
import itertools
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producers import AsyncClient, Client
from producers.client import Done, Placed, errors
from tests.support import api, given
from tests.support.given import line
from tests.support.life import Life

HOW_TO = Path(__file__).parents[3] / "docs/how-to/use-the-python-client.md"
TERMS = '{"contract": "terms", "version": 2}'
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def key(client_of: Callable[..., api.Client]) -> str:
    found = client_of().key
    assert found is not None
    return found


@pytest.fixture
def client(server: Any, key: str) -> Iterator[Client]:
    with Client(server.url, key=key, timeout=20) as client:
        yield client


def order(*lines: Any, **changes: Any) -> Any:
    number = next(_numbers)
    return given.order(f"py-{number}", *lines, customer=f"py-customer-{number}", **changes)


def test_order_is_placed_once_and_refusals_are_errors_of_their_code(client: Client) -> None:
    document = order()

    placed = client.place(document)

    assert (placed.key, placed.repeated) == (document["key"], False)
    assert client.place(document) == Placed(placed.key, placed.order_id, repeated=True)
    with pytest.raises(errors.KeyReused):
        client.place(document | {"lines": [line("server")]})
    with pytest.raises(errors.PlanUnknown) as unsold:
        client.place(order(line("no-such-plan")))
    assert (unsold.value.status, unsold.value.codes) == (422, ["plan_unknown"])
    assert unsold.value.problems[0].path == "lines.0.plan"
    with pytest.raises(errors.VersionUnknown):
        client.place(order() | {"version": 2})


def test_batch_has_an_answer_for_each_order(client: Client) -> None:
    documents = [order(), order(line("no-such-plan")), order()]

    first, second, third = client.place_many(documents)

    assert isinstance(first, Placed)
    assert isinstance(second, errors.PlanUnknown)
    assert isinstance(third, Placed)
    assert [first.key, second.key, third.key] == [d["key"] for d in documents]


def test_service_is_stopped_resumed_and_read(client: Client, world: Life) -> None:
    document = order()
    customer = document["customer"]["id"]
    client.place(document)
    world.fleet.wait_until_idle(30)

    assert client.order(document["key"], wait=1).state == "delivered"
    (service,) = client.services(customer=customer)
    assert client.stop(customer, service.id) == Done(changed=True)
    assert client.stop(customer, service.id) == Done(changed=False)
    assert client.resume(customer, service.id).changed
    assert client.mode(customer, service.id, "manual").changed
    assert client.service(service.id).mode == "manual"
    assert client.quote(service.id).total.currency == "EUR"
    assert client.change_customer(customer, email="new@example.com").changed
    assert client.customer(customer).email == "new@example.com"
    assert client.payment_method(customer, "tok-2", expires="2031-01").changed
    assert not client.accept(customer, [{"contract": "terms", "version": 2}]).changed
    assert client.renew(customer, service.id, "2020-01-01") == Done(changed=False)
    with pytest.raises(errors.ExpiryUnknown):
        client.renew(customer, service.id, "2099-01-01")
    (invoice,) = client.invoices(customer)
    assert client.invoice(invoice.number).total == invoice.total
    assert [one.service for one in client.upcoming(customer)] == [service.id]
    assert "site" in {plan.code for plan in client.catalogue(subsidiary="FR").plans}
    with pytest.raises(errors.NotFound):
        client.customer("nobody/../x")


def test_pages_are_read_to_the_end(client: Client, world: Life) -> None:
    document = order(line(quantity=3))
    client.place(document)
    world.fleet.wait_until_idle(30)

    found = list(client.services(customer=document["customer"]["id"], limit=1))

    assert len({service.id for service in found}) == 3


def test_wrong_key_is_its_error(server: Any) -> None:
    with Client(server.url, key="ark_nobody") as client, pytest.raises(errors.KeyUnknown):
        client.catalogue()
    with Client(server.url) as client, pytest.raises(errors.KeyMissing):
        client.catalogue()


def test_event_loop_asks_too(server: Any, key: str) -> None:
    async def run() -> None:
        async with AsyncClient(server.url, key=key) as client:
            placed = await asyncio.gather(*(client.place(order()) for _ in range(10)))
            assert len({one.order_id for one in placed}) == 10
            with pytest.raises(errors.PlanUnknown):
                await client.place(order(line("no-such-plan")))
            answers = await client.place_many([order(), order(line("no-such-plan"))])
            assert [type(answer) for answer in answers] == [Placed, errors.PlanUnknown]
            assert (await client.order(placed[0].key)).key == placed[0].key
            assert [one async for one in client.services(customer="nobody")] == []

    asyncio.run(run())


def test_examples_of_the_how_to_do_what_they_say(
    server: Any, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", HOW_TO.read_text(), re.M | re.S)
    assert len(blocks) == 4
    names: dict[str, Any] = {"URL": server.url, "KEY": key}
    ours = {'"web-perso"': '"site"', '{"contract": "web", "version": 3}': TERMS}
    for block in blocks:  # about the sample catalogue: said in the words of the tests' own one
        for theirs, said in ours.items():
            block = block.replace(theirs, said)
        exec(compile(block, str(HOW_TO), "exec"), names)

    printed = capsys.readouterr().out
    assert "[('plan_unknown', 'lines.0.plan')]" in printed
    assert printed.count("Placed(") == 2


class Faulty:
    """A server that answers each request with the next of some raw answers; None: it hangs up."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while self._answers:
            connection, _ = self._socket.accept()
            with connection:
                self.requests.append(connection.recv(65536))
                answer = self._answers.pop(0)
                if answer is not None:
                    connection.sendall(answer)
        self._socket.close()


def raw(status: str, body: bytes = b"{}", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


BUSY = raw("429 Busy", b"{}", "Retry-After: 0")
AWAY = raw("503 Away", b"{}", "Retry-After: 0")
TAKEN = raw("202 Accepted", b'{"key": "k", "order": "o", "state": "accepted"}')
DONE = raw("200 OK", b'{"changed": true}')


def name_of(request: bytes) -> str:
    return next(
        line.partition(":")[2].strip()
        for line in request.decode("latin-1").split("\r\n")
        if line.lower().startswith("idempotency-key:")
    )


def test_order_is_tried_again_after_503_and_after_a_lost_answer() -> None:
    server = Faulty(AWAY, None, TAKEN)
    with Client(server.url) as client:
        assert client.place({"key": "k"}) == Placed("k", "o")
    assert len(server.requests) == 3


def test_command_is_tried_again_under_the_same_name() -> None:
    server = Faulty(AWAY, None, DONE)
    with Client(server.url) as client:
        assert client.stop("c", "s").changed
    assert len({name_of(request) for request in server.requests}) == 1


def test_change_without_a_name_is_not_tried_again_when_its_answer_is_lost() -> None:
    for lost in (AWAY, None):
        server = Faulty(BUSY, lost, DONE)
        with Client(server.url) as client, pytest.raises(errors.Uncertain):
            client.change_customer("c", name="X")
        assert len(server.requests) == 2


def test_attempts_end() -> None:
    for answer, kind in ((AWAY, errors.Uncertain), (BUSY, errors.Overloaded)):
        server = Faulty(answer, answer, answer)
        with Client(server.url, attempts=2) as client, pytest.raises(kind):
            client.place({"key": "k"})
        assert len(server.requests) == 2


def test_event_loop_tries_again_as_well() -> None:
    server = Faulty(AWAY, None, TAKEN)

    async def run() -> None:
        async with AsyncClient(server.url) as client:
            assert await client.place({"key": "k"}) == Placed("k", "o")

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        raw("302 Found", b"", "Location: http://127.0.0.1:1/"),
        raw("404 Not Found", b"<html>"),
        raw("200 OK", b"<html>"),
        raw("422 No", b"[]", "Content-Type: application/problem+json"),
    ],
)
def test_answer_of_somebody_else_is_an_error_of_the_client(answer: bytes) -> None:
    server = Faulty(answer)
    with Client(server.url, attempts=1) as client, pytest.raises(errors.ClientError):
        client.place({"key": "k"})


def test_server_that_is_away_is_unreachable() -> None:
    with Client("http://127.0.0.1:1", attempts=1) as client, pytest.raises(errors.Unreachable):
        client.place({"key": "k"})
