"""Every driver of ours passes the conformance suite; what only the one over HTTP does."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import pytest
from prometheus_client import REGISTRY

from autorenew.local.ports import free_port
from schemas.books import BookUnavailable, ResourceEntry
from schemas.values import ResourceState
from simulator.server import Running
from tests.support.far_side import FarSide, answers, drops, hangs
from tests.support.proxy import Proxy, loses_the_answer
from workers.conformance import DriverConformance
from workers.conformance.drivers import Service
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.http import HttpDriver
from workers.provisioning.drivers.instant import InstantDriver
from workers.provisioning.drivers.port import (
    Driver,
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
)

CREATE, SUSPEND = OperationKind.CREATE, OperationKind.SUSPEND
ABSENT = ResourceState.ABSENT


REFUSED = {"fault": "refuse", "configuration": {"domain": "sold-out.*"}}


@pytest.fixture(scope="module")
def simulator() -> Iterator[Running]:
    with Running(rules=[REFUSED], token="good") as running:
        yield running
    running.simulator.store.close()


@pytest.fixture(scope="module")
def slow_simulator() -> Iterator[Running]:
    slow = {"fault": "in_progress", "operation": "create", "seconds": 0.15}
    with Running(rules=[REFUSED, slow], token="good") as running:
        yield running
    running.simulator.store.close()


class TestInstantDriver(DriverConformance):
    @pytest.fixture
    def driver(self) -> Driver:
        return InstantDriver()


class SlowDriver(InstantDriver):
    """What it creates is there after a while."""

    def __init__(self) -> None:
        super().__init__()
        self._ready: dict[uuid.UUID, float] = {}

    async def perform(self, operation: Operation) -> DriverAnswer:
        answer = await super().perform(operation)
        if operation.kind is CREATE and answer.state is DriverState.DONE:
            self._ready.setdefault(operation.service_id, time.monotonic() + 0.05)
        elif answer.state is DriverState.DONE:
            self._ready[operation.service_id] = 0.0
        return self._unless_in_progress(operation, answer)

    async def ask(self, operation: Operation) -> DriverAnswer:
        return self._unless_in_progress(operation, await super().ask(operation))

    def _unless_in_progress(self, operation: Operation, answer: DriverAnswer) -> DriverAnswer:
        ready = self._ready.get(operation.service_id, 0.0)
        if answer.state is DriverState.DONE and time.monotonic() < ready:
            return DriverAnswer(DriverState.IN_PROGRESS, reason="installing", retry_after=0.02)
        return answer


class TestSlowDriver(DriverConformance):
    slow = True

    @pytest.fixture
    def driver(self) -> Driver:
        return SlowDriver()


def http_driver(simulator: Running, token: str = "good", seconds: float = 5) -> Driver:
    url = f"{simulator.url}/infrastructure/web"
    return HttpDriver("web", HttpDriver.Settings(url=url, token=token, seconds=seconds))


class TestHttpDriver(DriverConformance):
    @pytest.fixture
    def driver(self, simulator: Running) -> Driver:
        return http_driver(simulator)

    @pytest.fixture
    def unreachable(self) -> Driver:
        url = f"http://127.0.0.1:{free_port()}"
        return HttpDriver("web", HttpDriver.Settings(url=url, seconds=0.3))

    @pytest.fixture
    def unauthorized(self, simulator: Running) -> Driver:
        return http_driver(simulator, token="wrong")

    @pytest.fixture
    def deaf(self, simulator: Running) -> Iterator[Driver]:
        port = int(simulator.url.rpartition(":")[2])
        with Proxy(port, repeat(loses_the_answer)) as proxy:
            url = f"http://127.0.0.1:{proxy.port}/infrastructure/web"
            yield HttpDriver("web", HttpDriver.Settings(url=url, token="good", seconds=0.5))

    @pytest.fixture
    def busy(self) -> Iterator[Driver]:
        rules = [{"fault": "busy", "seconds": 7}]
        with Running(rules=rules) as simulator:
            yield http_driver(simulator)
        simulator.simulator.store.close()

    @pytest.fixture
    def unacceptable(self) -> dict[str, Any]:
        return {"configuration": {"domain": "sold-out.example"}}


class TestSlowHttpDriver(TestHttpDriver):
    slow = True

    @pytest.fixture
    def simulator(self, slow_simulator: Running) -> Running:
        return slow_simulator


@contextmanager
def asking(url: str, name: str = "web", **settings: Any) -> Iterator[Waiting]:
    driver = HttpDriver(name, HttpDriver.Settings(url=url, **settings))
    with Waiting(driver) as waiting:
        yield waiting


def ask(driver: Waiting) -> list[DriverAnswer]:
    """An operation and a question."""
    create = Service(driver).operation(CREATE, 1)
    return [driver.perform(create), driver.ask(create)]


GOOD = {"resource_id": "web-1", "state": "active", "generation": 1, "paid_until": "2026-03-02"}


class TestOverHttp:
    def test_gateway_that_hangs_is_unknown_within_the_deadline(self) -> None:
        with FarSide(hangs) as far_side:
            started = time.monotonic()
            with asking(far_side.url, seconds=0.3) as driver:
                answer = Service(driver).does(CREATE, 1)
            assert answer.state is DriverState.UNKNOWN
            assert answer.reason
            assert time.monotonic() - started < 10

    def test_unreachable_gateway_has_certainly_not_charged(self) -> None:
        with asking(f"http://127.0.0.1:{free_port()}", seconds=0.2) as driver:
            assert {answer.state for answer in ask(driver)} == {DriverState.UNAVAILABLE}

    @pytest.mark.parametrize(
        "step",
        [
            pytest.param(drops, id="dropped"),
            pytest.param(answers(500, GOOD), id="500"),
            pytest.param(answers(503, b"busy"), id="503"),
            pytest.param(answers(200, b"<html>"), id="not JSON"),
            pytest.param(answers(200, []), id="not an object"),
            pytest.param(answers(200, {}), id="nothing in it"),
            pytest.param(answers(200, GOOD | {"state": "melting"}), id="an unknown state"),
            pytest.param(answers(200, GOOD | {"state": None}), id="no state"),
            pytest.param(answers(200, GOOD | {"generation": "x"}), id="a bad generation"),
            pytest.param(answers(200, GOOD | {"generation": None}), id="no generation"),
            pytest.param(answers(200, GOOD | {"paid_until": "soon"}), id="a bad date"),
            pytest.param(answers(200, GOOD | {"paid_until": "2026"}), id="half a date"),
            pytest.param(answers(200, GOOD | {"generation": -1}), id="a negative generation"),
            pytest.param(answers(302, GOOD), id="a redirect"),
            pytest.param(answers(404, b"<html>"), id="a page not found"),
        ],
    )
    def test_malformed_answer_is_unknown(self, step: Any) -> None:
        with FarSide(step) as far_side, asking(far_side.url, "web", seconds=0.05) as driver:
            assert {answer.state for answer in ask(driver)} == {DriverState.UNKNOWN}

    @pytest.mark.parametrize("kind", list(OperationKind))
    @pytest.mark.parametrize("code", ["not_found", "no_such_plan"])
    def test_not_found_is_valid_only_as_the_answer_to_a_query(
        self, kind: OperationKind, code: str
    ) -> None:
        with (
            FarSide(answers(404, {"code": code})) as far_side,
            asking(far_side.url, seconds=1) as driver,
        ):
            answer = Service(driver).does(kind, 1)
            assert answer.state is DriverState.UNKNOWN

    def test_missing_page_says_nothing_about_a_service(self) -> None:
        with (
            FarSide(answers(404, {"code": "no_such_route"})) as far_side,
            asking(far_side.url, seconds=1) as driver,
        ):
            answer = driver.ask(Service(driver).operation(CREATE, 1))
            assert answer.state is DriverState.UNKNOWN

    @pytest.mark.parametrize("body", [{"code": "no_entry"}, b"<html>", b"", []])
    @pytest.mark.parametrize(
        ("status", "state"),
        [
            (401, DriverState.PERMANENT),
            (403, DriverState.PERMANENT),
            (425, DriverState.UNAVAILABLE),
            (429, DriverState.UNAVAILABLE),
        ],
    )
    def test_rejected_call_has_certainly_done_nothing(
        self, status: int, state: DriverState, body: Any
    ) -> None:
        code = "no_entry" if isinstance(body, dict) else f"HTTP {status}"
        with (
            FarSide(answers(status, body)) as far_side,
            asking(far_side.url, "web", seconds=1) as driver,
        ):
            assert {(a.state, a.reason) for a in ask(driver)} == {(state, code)}
            assert len(far_side.requests) == 2

    @pytest.mark.parametrize(
        ("status", "code"),
        [(404, "no_such_path"), (404, "no_such_operation"), (405, "method_not_allowed")],
    )
    def test_url_of_another_api_is_a_permanent_no(self, status: int, code: str) -> None:
        with (
            FarSide(answers(status, {"code": code})) as far_side,
            asking(far_side.url, seconds=1) as driver,
        ):
            assert {(a.state, a.reason) for a in ask(driver)} == {(DriverState.PERMANENT, code)}

    @pytest.mark.parametrize("body", [{"code": "installing", "detail": "Disk 2 of 3"}, {}, b""])
    def test_what_was_begun_is_in_progress_and_says_when_to_ask(self, body: Any) -> None:
        with (
            FarSide(answers(202, body, Retry_After="7")) as far_side,
            asking(far_side.url, seconds=1) as driver,
        ):
            said = ("installing", "Disk 2 of 3") if body else ("in_progress", None)
            for answer in ask(driver):
                assert answer.state is DriverState.IN_PROGRESS
                assert (answer.reason, answer.words, answer.retry_after) == (*said, 7.0)

    @pytest.mark.parametrize(
        ("status", "state"), [(429, DriverState.UNAVAILABLE), (503, DriverState.UNKNOWN)]
    )
    def test_far_side_that_says_when_to_come_back_is_not_called_again(
        self, status: int, state: DriverState
    ) -> None:
        date = {"Date": "Sun, 29 Nov 2026 12:00:00 GMT"}
        for wish in ("90", "Sun, 29 Nov 2026 12:01:30 GMT"):
            with (
                FarSide(answers(status, b"<html>", Retry_After=wish, **date)) as far_side,
                asking(far_side.url, seconds=1) as driver,
            ):
                assert {(a.state, a.retry_after) for a in ask(driver)} == {(state, 90.0)}
                assert len(far_side.requests) == 2

    @pytest.mark.parametrize("status", [200, 422, 500])
    def test_other_answers_say_nothing_about_when_to_come_back(self, status: int) -> None:
        with (
            FarSide(answers(status, GOOD, Retry_After="90")) as far_side,
            asking(far_side.url, seconds=0.2) as driver,
        ):
            assert {answer.retry_after for answer in ask(driver)} == {None}

    def test_customer_is_told_of_a_resource_but_no_secret(self) -> None:
        details = {"address": "web-1.example.net", "password": "hunter2", "x": 5}
        with (
            FarSide(answers(200, GOOD | {"details": details})) as far_side,
            asking(far_side.url, seconds=1) as driver,
        ):
            for answer in ask(driver):
                assert answer.resource is not None
                assert answer.resource.details == {"address": "web-1.example.net"}

    @pytest.mark.parametrize("details", ["text", 5, [], None, {"a": {}}])
    def test_details_that_are_none_spoil_no_answer(self, details: Any) -> None:
        with (
            FarSide(answers(200, GOOD | {"details": details})) as far_side,
            asking(far_side.url, seconds=1) as driver,
        ):
            for answer in ask(driver):
                assert answer.resource is not None
                assert (answer.state, answer.resource.details) == (DriverState.DONE, {})

    @pytest.mark.parametrize("status", [405, 408])
    def test_http_405_and_408_leave_the_operation_unknown(self, status: int) -> None:
        with FarSide(answers(status, {})) as far_side, asking(far_side.url, seconds=1) as driver:
            answer = Service(driver).does(CREATE, 1)
            assert answer.state is DriverState.UNKNOWN

    def test_calls_are_counted_by_outcome(self) -> None:
        def counted(outcome: str) -> float:
            labels = {"target": "driver:counted", "operation": "create", "outcome": outcome}
            return REGISTRY.get_sample_value("autorenew_calls_total", labels) or 0.0

        stale = answers(409, {"code": "stale_generation"})
        steps = {
            DriverState.DONE: answers(200, GOOD),
            DriverState.IN_PROGRESS: answers(202, {}),
            DriverState.REFUSED: answers(422, {}),
            DriverState.PERMANENT: answers(401, {}),
            DriverState.STALE: stale,
            DriverState.UNKNOWN: answers(404, {}),
            DriverState.UNAVAILABLE: answers(429, {}),
        }
        with (
            FarSide(*steps.values()) as far_side,
            asking(far_side.url, "counted", seconds=1) as driver,
        ):
            for state in steps:
                answer = driver.perform(Service(driver).operation(CREATE, 1))
                assert answer.state is state
        assert {state: counted(state) for state in DriverState} == dict.fromkeys(steps, 1)

    @pytest.mark.parametrize("status", [400, 409, 422])
    def test_definite_refusal_keeps_its_code(self, status: int) -> None:
        with (
            FarSide(answers(status, {"code": "out_of_stock"})) as far_side,
            asking(far_side.url, seconds=1) as driver,
        ):
            answer = Service(driver).does(CREATE, 1)
            assert (answer.state, answer.reason) == (DriverState.REFUSED, "out_of_stock")
            assert answer.words is None

    @pytest.mark.parametrize(
        ("problem", "words"),
        [
            ({"detail": "None left in Roubaix.", "title": "Conflict"}, "None left in Roubaix."),
            ({"title": "Conflict"}, "Conflict"),
            ({"detail": "two\nlines\x00"}, "twolines"),
            ({"detail": "x" * 5000}, "x" * 500),
        ],
    )
    def test_refusal_says_why_in_words(self, problem: dict[str, str], words: str) -> None:
        with (
            FarSide(answers(422, {"code": "y" * 500} | problem)) as far_side,
            asking(far_side.url, seconds=1) as driver,
        ):
            answer = Service(driver).does(CREATE, 1)
            assert (answer.reason, answer.words) == ("y" * 100, words)

    def test_service_unknown_to_the_infrastructure_is_absent(self) -> None:
        with (
            FarSide(answers(404, {"code": "not_found"})) as far_side,
            asking(far_side.url, seconds=1) as driver,
        ):
            assert Service(driver).state is ABSENT

    def test_call_names_the_imported_resource_where_there_is_one(self) -> None:
        with FarSide(answers(200, GOOD)) as far_side, asking(far_side.url, seconds=1) as driver:
            service = Service(driver)
            service.does(SUSPEND, 1, resource_id="old-7")
            service.does(SUSPEND, 1)
            bodies = [body for *_, body in far_side.requests]
            assert bodies[0]["resource_id"] == "old-7"
            assert "resource_id" not in bodies[1]

    def test_a_call_says_what_the_infrastructure_needs_to_know(self) -> None:
        with (
            FarSide(answers(200, GOOD)) as far_side,
            asking(far_side.url, seconds=1, token="secret") as driver,
        ):
            service = Service(driver)
            service.does(SUSPEND, 4, key="key-1")
            method, path, headers, body = far_side.requests[0]
            assert (method, path) == ("PUT", f"/services/{service.id}/suspend")
            assert headers["authorization"] == "Bearer secret"
            assert body == {
                "key": "key-1",
                "generation": 4,
                "customer": "c-1",
                "plan": "web-perso",
                "configuration": {"domain": "example.com"},
                "paid_until": "2026-03-02",
            }

    @pytest.mark.parametrize(
        "step",
        [
            pytest.param(drops, id="dropped"),
            pytest.param(answers(500, {"entries": []}), id="500"),
            pytest.param(answers(404, {"code": "not_found"}), id="404"),
            pytest.param(answers(200, b"<html>"), id="not JSON"),
            pytest.param(answers(200, {}), id="no entries"),
            pytest.param(answers(200, {"entries": [{"number": 1}]}), id="half an entry"),
        ],
    )
    def test_a_list_that_cannot_be_read_is_never_taken_for_an_empty_one(self, step: Any) -> None:
        with (
            FarSide(step) as far_side,
            asking(far_side.url, seconds=0.05) as driver,
            pytest.raises(BookUnavailable) as caught,
        ):
            driver.resources(None)
        assert str(caught.value)

    def test_what_the_far_side_made_outside_our_services_is_listed_by_its_own_name(self) -> None:
        entry = {"number": 7, "resource_id": "old-7", "state": "active"}
        with (
            FarSide(answers(200, {"entries": [entry]})) as far_side,
            asking(far_side.url) as driver,
        ):
            (listed,) = driver.resources("3")
            assert far_side.requests[0][1].startswith("/resources?after=3")
        assert listed == ResourceEntry("7", "old-7", None, ResourceState.ACTIVE)
