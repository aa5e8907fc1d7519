"""The simulated infrastructure: it takes its time, turns away, and is strict."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from simulator.requests import MOST_BODY_BYTES
from simulator.server import Running
from tests.unit.test_simulator_server import Client, eventually

CREATE = {"key": "k", "generation": 1, "plan": "web-perso", "customer": "c-1"}
WEB = "/infrastructure/web"
PATH = f"{WEB}/services/s"
TERMINATE = CREATE | {"key": "t", "generation": 2}


@pytest.fixture
def far_side() -> Iterator[Callable[..., Client]]:
    """Starts a simulator with rules; returns a client of it."""
    running: list[tuple[Running, Client]] = []

    def start(*rules: dict[str, Any], token: str | None = None) -> Client:
        simulator = Running(rules=list(rules), token=token)
        client = Client(simulator.url)
        running.append((simulator, client))
        return client

    yield start
    for simulator, client in running:
        client.close()
        simulator.stop()
        simulator.simulator.store.close()


def status(answer: Any) -> int:
    assert answer is not None
    return int(answer[0])


def code(answer: Any) -> str:
    assert answer is not None
    return str(answer[1]["code"])


class TestWhatTakesLong:
    def test_creation_is_begun_once_and_asked_about_until_it_is_there(
        self, far_side: Callable[..., Client]
    ) -> None:
        client = far_side({"fault": "in_progress", "operation": "create", "seconds": 0.3})
        # Given a creation that was begun
        progress = (202, {"code": "in_progress", "detail": "It is being set up."})
        assert client.ask("PUT", f"{PATH}/create", CREATE) == progress
        assert client.headers["retry-after"] == "1"
        # When it is asked about, or begun again, it is still in progress
        assert client.ask("GET", PATH) == progress
        assert client.ask("PUT", f"{PATH}/create", CREATE) == progress
        # Then in the end it is there, once.
        assert eventually(lambda: status(client.ask("GET", PATH)) == 200)
        assert status(client.ask("PUT", f"{PATH}/create", CREATE)) == 200
        assert len(client.resources) == 1

    def test_creation_that_fails_in_the_end_leaves_nothing_and_says_why(
        self, far_side: Callable[..., Client]
    ) -> None:
        rule = {"fault": "in_progress", "seconds": 0.2, "reason": "quota_exceeded"}
        client = far_side(rule)
        assert status(client.ask("PUT", f"{PATH}/create", CREATE)) == 202
        assert status(client.ask("GET", PATH)) == 202
        assert eventually(lambda: status(client.ask("GET", PATH)) == 404)
        refused = client.ask("PUT", f"{PATH}/create", CREATE)
        assert refused == (422, {"code": "quota_exceeded"})
        assert client.resources == []

    def test_terminating_calls_off_what_is_in_progress(
        self, far_side: Callable[..., Client]
    ) -> None:
        client = far_side({"fault": "in_progress", "operation": "create", "seconds": 30})
        assert status(client.ask("PUT", f"{PATH}/create", CREATE)) == 202
        gone = client.ask("PUT", f"{PATH}/terminate", TERMINATE)
        assert gone == (200, {"state": "absent", "generation": 2})
        assert client.ask("GET", PATH) == (200, {"state": "absent", "generation": 2})
        stale = client.ask("PUT", f"{PATH}/create", CREATE)
        assert stale == (409, {"code": "stale_generation"})

    def test_termination_can_take_long_too(self, far_side: Callable[..., Client]) -> None:
        client = far_side({"fault": "in_progress", "operation": "terminate", "seconds": 0.2})
        assert status(client.ask("PUT", f"{PATH}/create", CREATE)) == 200
        assert status(client.ask("PUT", f"{PATH}/terminate", TERMINATE)) == 202
        assert status(client.ask("GET", PATH)) == 202
        assert eventually(lambda: client.ask("GET", PATH)[1].get("state") == "absent")

    def test_stale_request_begins_nothing(self, far_side: Callable[..., Client]) -> None:
        client = far_side({"fault": "in_progress", "customer": "slow", "seconds": 30})
        client.ask("PUT", f"{PATH}/create", CREATE | {"generation": 5})
        late = CREATE | {"key": "late", "customer": "slow"}
        assert code(client.ask("PUT", f"{PATH}/create", late)) == "stale_generation"
        assert status(client.ask("GET", PATH)) == 200


class TestTurnedAway:
    @pytest.mark.parametrize(
        ("fault", "answer"), [("busy", (429, "busy")), ("maintenance", (503, "maintenance"))]
    )
    def test_it_says_when_to_come_back_and_does_nothing(
        self, far_side: Callable[..., Client], fault: str, answer: tuple[int, str]
    ) -> None:
        client = far_side({"fault": fault, "seconds": 6.2})
        for ask in (client.create, client.charge):
            said = ask()
            assert (status(said), code(said)) == answer
            assert client.headers["retry-after"] == "7"
        assert (client.resources, client.book) == ([], [])
        assert status(client.create()) == 200

    def test_refusal_by_configuration_says_why(self, far_side: Callable[..., Client]) -> None:
        rule = {"fault": "refuse", "configuration": {"domain": "*.invalid"}}
        client = far_side(rule | {"reason": "bad_configuration", "words": "No such domain."})
        for domain, answer in (("a.invalid", 422), ("a.example", 200)):
            said = client.create(domain, configuration={"domain": domain})
            assert status(said) == answer
        assert [resource["service_id"] for resource in client.resources] == ["a.example"]

    def test_forbidden_operation_does_nothing(self, far_side: Callable[..., Client]) -> None:
        client = far_side({"fault": "forbid"})
        assert client.create() == (403, {"code": "forbidden"})
        assert client.resources == []

    @pytest.mark.parametrize(
        "header", ["", "Bearer", "Bearer wrong", "Basic right", "right", "Bearer r\u00efght"]
    )
    def test_without_its_token_it_answers_nothing(
        self, far_side: Callable[..., Client], header: str
    ) -> None:
        client = far_side(token="right")
        headers = {"Content-Type": "application/json", "Authorization": header}
        for method, path, body in (
            ("PUT", f"{PATH}/create", CREATE),
            ("GET", PATH, None),
            ("GET", f"{WEB}/resources", None),
        ):
            assert client.ask(method, path, body, headers=headers) == (
                401, {"code": "unauthorized"},
            )  # fmt: skip
            assert client.headers["www-authenticate"] == "Bearer"
        assert client.resources == []

    def test_with_its_token_it_answers(self, far_side: Callable[..., Client]) -> None:
        client = far_side(token="right")
        headers = {"Content-Type": "application/json", "Authorization": "bearer right"}
        assert status(client.ask("PUT", f"{PATH}/create", CREATE, headers=headers)) == 200


class TestStrictness:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", "not_json"),
            (b"{", "not_json"),
            (b"\xff", "not_json"),
            (b"[" * 100_000, "not_json"),
            (json.dumps(CREATE).encode().replace(b'"c-1"', b"NaN"), "not_json"),
            ([], "not_an_object"),
            (None, "not_json"),
            ({}, "bad_key"),
            (CREATE | {"key": ""}, "bad_key"),
            (CREATE | {"key": 5}, "bad_key"),
            (CREATE | {"key": "x" * 501}, "bad_key"),
            (CREATE | {"key": "\ud800"}, "bad_key"),
            (CREATE | {"generation": "1"}, "bad_generation"),
            (CREATE | {"generation": True}, "bad_generation"),
            (CREATE | {"generation": 1.5}, "bad_generation"),
            (CREATE | {"generation": -1}, "bad_generation"),
            (CREATE | {"generation": 2**63}, "bad_generation"),
            (CREATE | {"customer": None}, "bad_customer"),
            (CREATE | {"plan": ["p"]}, "bad_plan"),
            (CREATE | {"configuration": []}, "bad_configuration"),
            (CREATE | {"configuration": None}, "bad_configuration"),
            (CREATE | {"paid_until": None}, "bad_paid_until"),
            (CREATE | {"paid_until": "2026-02-30"}, "bad_paid_until"),
            (CREATE | {"paid_until": "20260302"}, "bad_paid_until"),
            (CREATE | {"resource_id": ""}, "bad_resource_id"),
            (CREATE | {"colour": "red"}, "unknown_field"),
            (CREATE | {"\ud800": 1}, "unknown_field"),
        ],
    )
    def test_body_that_differs_from_the_document_is_refused(
        self, far_side: Callable[..., Client], body: Any, code: str
    ) -> None:
        client = far_side()
        headers = {"Content-Type": "application/json"}
        answer = client.ask("PUT", f"{PATH}/create", body, headers=headers)
        assert answer == (400, {"code": code})
        assert client.resources == []

    def test_body_that_is_too_large_is_refused(self, far_side: Callable[..., Client]) -> None:
        client = far_side()
        for size, said in ((MOST_BODY_BYTES - 300, 200), (MOST_BODY_BYTES, 413)):
            body = CREATE | {"key": str(size), "configuration": {"text": "x" * size}}
            assert status(client.ask("PUT", f"{PATH}/create", body)) == said

    @pytest.mark.parametrize("media_type", ["", "text/plain", "application/xml", "json"])
    def test_body_that_is_said_to_be_something_else_is_refused(
        self, far_side: Callable[..., Client], media_type: str
    ) -> None:
        client = far_side()
        answer = client.ask(
            "PUT", f"{PATH}/create", CREATE, headers={"Content-Type": media_type, "X-A": "b"}
        )
        assert answer == (415, {"code": "not_json"})

    def test_charset_may_be_said(self, far_side: Callable[..., Client]) -> None:
        headers = {"Content-Type": "Application/JSON; charset=utf-8"}
        assert status(far_side().ask("PUT", f"{PATH}/create", CREATE, headers=headers)) == 200

    def test_whole_number_may_have_a_point(self, far_side: Callable[..., Client]) -> None:
        # JSON Schema calls 1.0 an integer; it is the same one.
        client = far_side()
        first = client.ask("PUT", f"{PATH}/create", CREATE | {"generation": 1.0})
        assert first is not None
        assert json.dumps(first[1]["generation"]) == "1"
        assert client.ask("PUT", f"{PATH}/create", CREATE) == first

    @pytest.mark.parametrize(
        ("method", "path", "answer"),
        [
            ("GET", f"{WEB}/services/-", (400, "bad_service_id")),
            ("GET", f"{WEB}/services/{'x' * 101}", (400, "bad_service_id")),
            ("GET", f"{WEB}/services/a%20b", (400, "bad_service_id")),
            ("GET", "/infrastructure/%2e/resources", (400, "bad_driver")),
            ("GET", f"{WEB}/resources?limit=0", (400, "bad_page")),
            ("GET", f"{WEB}/resources?limit=10001", (400, "bad_page")),
            ("GET", f"{WEB}/resources?after=x", (400, "bad_page")),
            ("GET", f"{WEB}/resources?after=-1", (400, "bad_page")),
            ("GET", f"{WEB}/resources?after={'9' * 19}", (400, "bad_page")),
            ("GET", f"{WEB}/services", (404, "no_such_path")),
            ("GET", f"{WEB}/services/a%2Fb/c", (404, "no_such_path")),
            ("GET", f"{WEB}/resources/", (404, "no_such_path")),
            ("GET", "/", (404, "no_such_path")),
            ("POST", f"{WEB}/resources", (405, "method_not_allowed")),
            ("DELETE", PATH, (405, "method_not_allowed")),
            ("GET", f"{PATH}/create", (405, "method_not_allowed")),
        ],
    )
    def test_path_that_differs_from_the_document_is_refused(
        self, far_side: Callable[..., Client], method: str, path: str, answer: tuple[int, str]
    ) -> None:
        client = far_side()
        said = client.ask(method, path)
        assert (status(said), code(said)) == answer

    def test_customer_is_told_its_address(self, far_side: Callable[..., Client]) -> None:
        client = far_side()
        created = client.ask("PUT", f"{PATH}/create", CREATE | {"paid_until": "2026-03-02"})
        assert created == (
            200,
            {
                "resource_id": "web-1",
                "state": "active",
                "generation": 1,
                "paid_until": "2026-03-02",
                "details": {"address": "web-1.example.net"},
            },
        )
