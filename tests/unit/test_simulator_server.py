"""The simulator over HTTP: each fault does what its name says, and the books are right."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3

from simulator.server import Running

Answered = tuple[int, Any] | None


class Client:
    """A client that asks once, with a timeout."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(retries=False)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        seconds: float = 5,
        headers: dict[str, str] | None = None,
    ) -> Answered:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            response = self._pool.request(
                method,
                self._url + path,
                body=content,
                headers=headers or ({"Content-Type": "application/json"} if content else {}),
                timeout=urllib3.Timeout(total=seconds),
            )
        except urllib3.exceptions.ReadTimeoutError:
            return None
        self.headers = response.headers
        answer = response.json()
        if response.headers["content-type"] == "application/problem+json":
            assert set(answer) == {"title", "status", "code", "detail"}
            assert answer["status"] == response.status
            answer = {"code": answer["code"]}
        return response.status, answer

    def charge(self, key: str = "k", *, seconds: float = 5, **changes: Any) -> Answered:
        facts = {"key": key, "amount": 1000, "currency": "EUR", "token": "t", "customer": "c-1"}
        return self.ask("POST", "/gateway/charges", facts | changes, seconds=seconds)

    def create(self, service: str = "s", *, seconds: float = 5, **changes: Any) -> Answered:
        facts = {"key": service, "generation": 1, "plan": "web-perso", "customer": "c-1"}
        path = f"/infrastructure/web/services/{service}/create"
        return self.ask("PUT", path, facts | changes, seconds=seconds)

    @property
    def book(self) -> list[dict[str, Any]]:
        answer = self.ask("GET", "/gateway/book")
        assert answer is not None
        return answer[1]["entries"]  # type: ignore[no-any-return]

    @property
    def resources(self) -> list[dict[str, Any]]:
        answer = self.ask("GET", "/infrastructure/resources")
        assert answer is not None
        return answer[1]["entries"]  # type: ignore[no-any-return]

    def close(self) -> None:
        self._pool.clear()


@pytest.fixture
def far_side() -> Iterator[Callable[..., Client]]:
    """Starts a simulator with rules; returns a client of it."""
    running: list[tuple[Running, Client]] = []

    def start(*rules: dict[str, Any]) -> Client:
        simulator = Running(rules=list(rules))
        client = Client(simulator.url)
        running.append((simulator, client))
        return client

    yield start
    for simulator, client in running:
        client.close()
        simulator.stop()
        simulator.simulator.store.close()


@pytest.fixture(scope="module")
def well_behaved() -> Iterator[Client]:
    """A simulator without faults, shared by tests that change nothing."""
    with Running() as simulator:
        client = Client(simulator.url)
        yield client
        client.close()
    simulator.simulator.store.close()


def eventually(happened: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_simulator_without_faults_does_what_it_is_asked(far_side: Callable[..., Client]) -> None:
    client = far_side()
    assert client.ask("GET", "/health") == (200, {"state": "up"})
    answer = client.charge("k")
    assert answer is not None
    assert (answer[0], answer[1]["state"]) == (201, "succeeded")
    created = client.create("s")
    assert created is not None
    assert (created[0], created[1]["state"]) == (200, "active")
    assert [entry["key"] for entry in client.book] == ["k"]
    assert [resource["service_id"] for resource in client.resources] == ["s"]


class TestMisbehaviour:
    def test_declined_charge_takes_nothing_and_stays_declined(
        self, far_side: Callable[..., Client]
    ) -> None:
        client = far_side({"fault": "decline", "target": "gateway", "reason": "stolen_card"})
        answer = {"key": "k", "amount": 1000, "currency": "EUR", "state": "declined"}
        declined = (402, answer | {"reason": "stolen_card"})
        assert client.charge() == declined
        assert client.ask("DELETE", "/faults") == (200, {"rules": 0})
        # Under this key it was declined for good; another key is another attempt.
        assert client.charge() == declined
        assert client.ask("GET", "/gateway/charges/k") == (200, declined[1])
        assert client.book == []
        other = client.charge("other")
        assert other is not None
        assert other[0] == 201

    def test_refused_operation_does_nothing_and_gives_its_reason(
        self, far_side: Callable[..., Client]
    ) -> None:
        client = far_side({"fault": "refuse", "target": "infrastructure"})
        assert client.create() == (422, {"code": "out_of_stock"})
        assert client.create() == (422, {"code": "out_of_stock"})
        assert client.resources == []

    def test_call_that_fails_with_an_error_does_nothing_the_first_time(
        self, far_side: Callable[..., Client]
    ) -> None:
        client = far_side({"fault": "error"})
        assert client.charge() == (500, {"code": "internal_error"})
        assert client.book == []
        again = client.charge()
        assert again is not None
        assert again[0] == 201
        assert len(client.book) == 1

    def test_call_that_hangs_before_acting_does_nothing(
        self, far_side: Callable[..., Client]
    ) -> None:
        client = far_side({"fault": "hang_before"})
        assert client.charge(seconds=0.1) is None
        assert client.create(seconds=0.1) is None
        assert (client.book, client.resources) == ([], [])
        assert client.ask("GET", "/gateway/charges/k") == (404, {"code": "not_found"})

    def test_call_that_hangs_after_acting_has_acted(self, far_side: Callable[..., Client]) -> None:
        client = far_side({"fault": "hang_after"})
        assert client.charge(seconds=0.3) is None
        assert client.create(seconds=0.3) is None
        assert eventually(lambda: (len(client.book), len(client.resources)) == (1, 1))
        found = client.ask("GET", "/gateway/charges/k")
        assert found is not None
        assert found[1]["state"] == "succeeded"
        # And done again under the same key, it is not done twice.
        client.charge()
        client.create()
        assert (len(client.book), len(client.resources)) == (1, 1)

    def test_late_call_acts_after_the_client_has_timed_out_and_asked(
        self, far_side: Callable[..., Client]
    ) -> None:
        client = far_side({"fault": "late"})
        # Given a charge and a create that time out, and nothing was done
        assert client.charge(seconds=0.3) is None
        assert client.create(seconds=0.3) is None
        assert (client.book, client.resources) == ([], [])
        # When the client asks, they are not found
        assert client.ask("GET", "/gateway/charges/k") == (404, {"code": "not_found"})
        asked = client.ask("GET", "/infrastructure/web/services/s")
        assert asked == (404, {"code": "not_found"})
        # Then they arrive after all, once.
        assert eventually(lambda: len(client.book) == 1 and len(client.resources) == 1)
        client.charge()
        assert len(client.book) == 1

    def test_slow_call_is_done_in_the_end(self, far_side: Callable[..., Client]) -> None:
        client = far_side({"fault": "slow", "seconds": 0.2})
        started = time.monotonic()
        answer = client.charge()
        assert time.monotonic() - started >= 0.2
        assert answer is not None
        assert answer[0] == 201
        assert len(client.book) == 1

    def test_duplicated_call_is_done_once(self, far_side: Callable[..., Client]) -> None:
        client = far_side({"fault": "duplicate"})
        answers = client.charge(), client.create()
        assert all(answer is not None and answer[0] in (200, 201) for answer in answers)
        assert (len(client.book), len(client.resources)) == (1, 1)

    def test_a_rule_for_one_customer_leaves_the_others_alone(
        self, far_side: Callable[..., Client]
    ) -> None:
        client = far_side({"fault": "error", "customer": "c-2"})
        answer = client.charge("a", customer="c-1")
        assert answer is not None
        assert answer[0] == 201
        assert client.charge("b", customer="c-2") == (500, {"code": "internal_error"})


def test_faults_can_be_added_while_it_runs(far_side: Callable[..., Client]) -> None:
    client = far_side()
    assert client.ask("POST", "/faults", {"fault": "error"}) == (200, {"rules": 1})
    assert client.charge() == (500, {"code": "internal_error"})
    wrong: list[Any] = [
        {"fault": "explode"}, [], 5, b"{", {"fault": "error", "rate": 2}, b"[" * 100_000,
        b'{"fault": "slow", "seconds": 1e999}',
    ]  # fmt: skip
    for bad in wrong:
        answer = client.ask("POST", "/faults", bad)
        assert answer is not None
        assert (answer[0], answer[1]["code"]) == (400, "bad_rule")


def test_another_body_under_a_known_key_is_refused(far_side: Callable[..., Client]) -> None:
    client = far_side()
    reused = (422, {"code": "key_reused"})
    client.charge(amount=1000)
    assert client.charge(amount=2000) == reused
    refund = {"key": "k", "charge_key": "k", "amount": 1, "currency": "EUR"}
    assert client.ask("POST", "/gateway/refunds", refund) == reused
    assert [entry["amount"] for entry in client.book] == [1000]
    client.create("s")
    assert client.create("other", key="s") == reused
    assert [resource["service_id"] for resource in client.resources] == ["s"]


def test_a_charge_is_not_found_among_refunds(far_side: Callable[..., Client]) -> None:
    client = far_side()
    client.charge("k")
    assert client.ask("GET", "/gateway/refunds/k") == (404, {"code": "not_found"})


def test_repeated_operation_is_stale_after_a_newer_generation(
    far_side: Callable[..., Client],
) -> None:
    client = far_side()
    create: dict[str, Any] = {"key": "k-1", "generation": 1}
    client.create("s", **create)
    client.create("s", key="k-2", generation=2)
    assert client.create("s", **create) == (409, {"code": "stale_generation"})


def test_imported_resource_is_adopted_once_however_often_it_is_sent(
    far_side: Callable[..., Client],
) -> None:
    client = far_side({"fault": "duplicate"})
    path = "/infrastructure/web/services/s"
    body = {"key": "k", "generation": 1, "plan": "p", "customer": "c", "resource_id": "old-7"}
    assert client.ask("GET", path) == (404, {"code": "not_found"})
    first = client.ask("PUT", f"{path}/suspend", body)
    assert client.ask("PUT", f"{path}/suspend", body) == first
    assert first is not None
    assert first[1]["resource_id"] == "old-7"
    assert client.ask("GET", path) == (200, first[1])
    assert [resource["resource_id"] for resource in client.resources] == ["old-7"]
    # Another name is another body, and the key was taken.
    other = client.ask("PUT", f"{path}/suspend", body | {"resource_id": "old-8"})
    assert other == (422, {"code": "key_reused"})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff", "not_json"),
        (b"[" * 100_000, "not_json"),
        ([], "not_an_object"),
        ({}, "bad_key"),
        ({"key": 5}, "bad_key"),
        ({"key": "\ud800"}, "bad_key"),
        ({"key": "k", "amount": "5"}, "bad_amount"),
        ({"key": "k", "amount": True}, "bad_amount"),
        ({"key": "k", "amount": 1.0}, "bad_amount"),
        ({"key": "k", "amount": 0}, "bad_amount"),
        ({"key": "k", "amount": -5}, "bad_amount"),
        ({"key": "k", "amount": 2**63}, "bad_amount"),
        ({"key": "k", "amount": 5}, "bad_currency"),
        ({"key": "k", "amount": 5, "currency": "EUR"}, "bad_token"),
    ],
)
def test_invalid_charge_is_refused(well_behaved: Client, body: Any, code: str) -> None:
    assert well_behaved.ask("POST", "/gateway/charges", body) == (400, {"code": code})
    assert well_behaved.book == []


def test_unknown_request_is_refused(far_side: Callable[..., Client]) -> None:
    client = far_side()
    body = {"key": "k", "generation": 1, "plan": "p", "customer": "c"}
    path = "/infrastructure/web/services/s/explode"
    assert client.ask("PUT", path, body) == (404, {"code": "no_such_operation"})
    path = "/infrastructure/web/services/s/create"
    assert client.ask("PUT", path, body | {"paid_until": 5}) == (400, {"code": "bad_paid_until"})
    bad_name = (400, {"code": "bad_resource_id"})
    assert client.ask("PUT", path, body | {"resource_id": 5}) == bad_name
    assert client.ask("PUT", path, body | {"resource_id": "\ud800"}) == bad_name
    assert client.ask("PUT", path, body | {"generation": -1}) == (400, {"code": "bad_generation"})
    assert client.ask("GET", "/gateway/book?after=x") == (400, {"code": "bad_page"})
    assert client.ask("GET", f"/gateway/book?after={10**30}") == (200, {"entries": []})


def test_the_books_can_be_read_page_by_page(far_side: Callable[..., Client]) -> None:
    client = far_side()
    for _ in range(5):
        client.charge(str(uuid.uuid4()))
    pages = [client.ask("GET", f"/gateway/book?after={after}&limit=3") for after in (0, 3)]
    numbers = [[e["number"] for e in page[1]["entries"]] for page in pages if page]
    assert numbers == [[1, 2, 3], [4, 5]]


def test_most_calls_wait_for_no_delayed_acknowledgement(well_behaved: Client) -> None:
    # Not 40 of them, as when one side waits for an acknowledgement the other delays (RFC 896).
    took = []
    for _ in range(60):
        started = time.monotonic()
        well_behaved.ask("GET", "/gateway/charges/none")
        took.append(time.monotonic() - started)
    assert min(took[30:]) < 0.03  # the first ones are acknowledged at once, whatever is set


def test_simulator_stops_while_calls_hang(far_side: Callable[..., Client]) -> None:
    simulator = Running(rules=[{"fault": "hang_before", "seconds": 60}])
    client = Client(simulator.url)
    assert client.charge(seconds=0.1) is None
    started = time.monotonic()
    simulator.stop()
    client.close()
    assert time.monotonic() - started < 20  # and not 60
