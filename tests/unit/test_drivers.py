"""What every driver must do: one suite, for the one in memory and the one over HTTP."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from prometheus_client import REGISTRY

from autorenew.local.ports import free_port
from schemas.values import ResourceState
from simulator.server import Running
from tests.support.far_side import FarSide, answers, drops, hangs
from workers.provisioning.drivers.http import HttpDriver
from workers.provisioning.drivers.instant import InstantDriver
from workers.provisioning.drivers.port import (
    Driver,
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
    perform,
)

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState
DONE = DriverState.DONE
MARCH, APRIL = date(2026, 3, 2), date(2026, 4, 2)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture(params=["instant", "http"])
def driver(request: pytest.FixtureRequest, simulator: Running) -> Driver:
    if request.param == "instant":
        return InstantDriver()
    return HttpDriver("web", f"{simulator.url}/infrastructure/web", seconds=5)


class Service:
    """One service as its driver sees it; every operation has a key of its own."""

    def __init__(self, driver: Driver) -> None:
        self.id = uuid.uuid4()
        self._driver = driver

    def does(self, kind: OperationKind, generation: int, **changes: Any) -> DriverAnswer:
        return perform(self._driver, self.operation(kind, generation, **changes))

    def operation(self, kind: OperationKind, generation: int, **changes: Any) -> Operation:
        facts: dict[str, Any] = {
            "key": str(uuid.uuid4()),
            "customer": "c-1",
            "plan": "web-perso",
            "configuration": {"domain": "example.com"},
            "paid_until": MARCH,
        }
        return Operation(kind=kind, generation=generation, service_id=self.id, **(facts | changes))

    @property
    def state(self) -> ResourceState:
        return self.resource.state

    @property
    def resource(self) -> Resource:
        answer = self._driver.get(self.id)
        assert answer.state is DONE
        assert answer.resource is not None
        return answer.resource


@pytest.fixture
def service(driver: Driver) -> Service:
    return Service(driver)


def taken_over() -> str:
    """A name that a far side has for something that nobody created there through us."""
    return f"old-{uuid.uuid4().hex[:8]}"


class TestEveryDriver:
    def test_driver_says_whether_it_answers_at_once(self, driver: Driver) -> None:
        assert driver.immediate is isinstance(driver, InstantDriver)

    def test_service_that_was_never_created_is_absent(self, service: Service) -> None:
        assert service.state is ABSENT
        assert service.resource.resource_id is None

    def test_service_is_created_suspended_resumed_extended_and_terminated(
        self, service: Service
    ) -> None:
        steps = [
            (CREATE, ACTIVE),
            (SUSPEND, SUSPENDED),
            (RESUME, ACTIVE),
            (EXTEND, ACTIVE),
            (TERMINATE, ABSENT),
        ]
        for generation, (kind, state) in enumerate(steps, 1):
            answer = service.does(kind, generation)
            assert answer.state is DONE
            assert answer.resource is not None
            assert answer.resource.state is state
            assert answer.resource.generation == generation
            assert service.state is state

    def test_a_resource_has_an_id_that_stays(self, service: Service) -> None:
        created = service.does(CREATE, 1).resource
        assert created is not None
        assert created.resource_id
        for generation, kind in enumerate((SUSPEND, RESUME, EXTEND), 2):
            service.does(kind, generation)
            assert service.resource.resource_id == created.resource_id

    def test_resource_shows_until_when_it_is_paid(self, service: Service) -> None:
        service.does(CREATE, 1)
        assert service.resource.paid_until == MARCH
        service.does(EXTEND, 1, paid_until=APRIL)
        assert service.resource.paid_until == APRIL

    def test_suspended_service_stays_suspended_when_it_is_extended(self, service: Service) -> None:
        service.does(CREATE, 1)
        service.does(SUSPEND, 2)
        answer = service.does(EXTEND, 2, paid_until=APRIL)
        assert answer.state is DONE
        assert service.state is SUSPENDED

    @pytest.mark.parametrize("kind", [CREATE, SUSPEND, RESUME, EXTEND, TERMINATE])
    def test_repeated_operation_gives_the_same_answer(
        self, driver: Driver, service: Service, kind: OperationKind
    ) -> None:
        if kind is not CREATE:
            service.does(CREATE, 1)
        operation = service.operation(kind, 2)
        first = perform(driver, operation)
        before = service.resource
        # When it is sent again, the answer is the same and nothing has changed.
        assert perform(driver, operation) == first
        assert service.resource == before

    @pytest.mark.parametrize(
        "change",
        [
            {"paid_until": APRIL}, {"customer": "c-2"}, {"plan": "web-pro"}, {"configuration": {}},
            {"generation": 2},
        ],
        ids=str,
    )  # fmt: skip
    def test_another_body_under_a_known_key_is_refused_and_changes_nothing(
        self, driver: Driver, service: Service, change: dict[str, Any]
    ) -> None:
        create = service.operation(CREATE, 1)
        perform(driver, create)
        before = service.resource
        answer = perform(driver, replace(create, **change))
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "key_reused")
        assert service.resource == before

    def test_a_key_belongs_to_its_operation(self, driver: Driver, service: Service) -> None:
        create = service.operation(CREATE, 1)
        perform(driver, create)
        answer = perform(driver, replace(create, kind=SUSPEND))
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "key_reused")
        assert service.state is ACTIVE

    def test_a_key_belongs_to_its_service(self, driver: Driver, service: Service) -> None:
        create = service.operation(CREATE, 1)
        perform(driver, create)
        other = Service(driver)
        answer = other.does(CREATE, 1, key=create.key)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "key_reused")
        assert other.state is ABSENT

    def test_creating_an_existing_service_is_done_and_makes_no_second_resource(
        self, service: Service
    ) -> None:
        first = service.does(CREATE, 1).resource
        answer = service.does(CREATE, 2)
        assert first is not None
        assert answer.state is DONE
        assert answer.resource is not None
        assert answer.resource.resource_id == first.resource_id

    def test_terminating_an_absent_service_is_done(self, service: Service) -> None:
        answer = service.does(TERMINATE, 1)
        assert answer.state is DONE
        assert answer.resource is not None
        assert answer.resource.state is ABSENT

    def test_terminating_twice_is_done(self, service: Service) -> None:
        service.does(CREATE, 1)
        assert service.does(TERMINATE, 2).state is DONE
        assert service.does(TERMINATE, 3).state is DONE
        assert service.state is ABSENT

    @pytest.mark.parametrize("kind", [SUSPEND, RESUME, EXTEND])
    def test_absent_service_cannot_be_changed(self, service: Service, kind: OperationKind) -> None:
        answer = service.does(kind, 1)
        assert answer.state is DriverState.REFUSED
        assert answer.reason
        assert service.state is ABSENT

    @pytest.mark.parametrize(
        ("state", "kind"),
        [
            (SUSPENDED, CREATE),
            (ACTIVE, SUSPEND),
            (SUSPENDED, RESUME),
            (ACTIVE, EXTEND),
            (ACTIVE, TERMINATE),
        ],
    )
    def test_a_stale_generation_is_refused_and_changes_nothing(
        self, service: Service, kind: OperationKind, state: ResourceState
    ) -> None:
        # Given a resource that has seen generation 5
        service.does(CREATE, 3)
        service.does(RESUME if state is ACTIVE else SUSPEND, 5)
        before = service.resource
        # When an operation of an older one arrives late
        answer = service.does(kind, 4, paid_until=APRIL)
        # Then
        assert answer.state is DriverState.STALE
        assert service.resource == before
        assert service.state is state

    def test_a_create_that_arrives_after_the_termination_is_stale(self, service: Service) -> None:
        service.does(CREATE, 1)
        service.does(TERMINATE, 3)
        assert service.does(CREATE, 2).state is DriverState.STALE
        assert service.state is ABSENT

    def test_a_create_that_arrives_after_a_termination_of_nothing_is_stale(
        self, service: Service
    ) -> None:
        service.does(TERMINATE, 2)
        assert service.does(CREATE, 1).state is DriverState.STALE
        assert service.state is ABSENT

    def test_the_same_generation_is_not_stale(self, service: Service) -> None:
        service.does(CREATE, 2)
        assert service.does(SUSPEND, 2).state is DONE

    def test_repeated_old_operation_has_no_effect(self, driver: Driver, service: Service) -> None:
        # Given a suspend, and a resume that came after it
        service.does(CREATE, 1)
        suspend = service.operation(SUSPEND, 2)
        perform(driver, suspend)
        service.does(RESUME, 3)
        # When the suspend is delivered once more
        answer = perform(driver, suspend)
        # Then it is stale, although it was done once, and the service runs.
        assert answer.state is DriverState.STALE
        assert service.state is ACTIVE

    def test_terminated_service_can_be_created_anew(self, service: Service) -> None:
        service.does(CREATE, 1)
        service.does(TERMINATE, 2)
        assert service.does(CREATE, 3).state is DONE
        assert service.state is ACTIVE

    @pytest.mark.parametrize(
        ("kind", "state"),
        [(SUSPEND, SUSPENDED), (RESUME, ACTIVE), (EXTEND, ACTIVE), (TERMINATE, ABSENT)],
    )
    def test_imported_service_is_adopted_by_its_first_operation(
        self, service: Service, kind: OperationKind, state: ResourceState
    ) -> None:
        # Given a resource that the far side knows by its own name only
        assert service.state is ABSENT
        # When something is done to it by that name
        answer = service.does(kind, 1, resource_id=taken_over(), paid_until=APRIL)
        # Then it is done, and asked for by its service it is there.
        assert answer.state is DONE
        assert answer.resource is not None
        assert answer.resource.state is service.state is state
        assert answer.resource.resource_id == service.resource.resource_id
        assert service.resource.paid_until == (None if state is ABSENT else APRIL)

    def test_adopted_service_is_like_any_other(self, service: Service) -> None:
        adopted = service.does(SUSPEND, 1, resource_id=taken_over()).resource
        assert adopted is not None
        assert adopted.resource_id
        # Whether its name is still said, or not.
        for generation, changes in enumerate(({}, {"resource_id": adopted.resource_id}), 2):
            assert service.does(RESUME, generation, **changes).state is DONE
            assert service.resource.resource_id == adopted.resource_id
        assert service.does(SUSPEND, 1, resource_id=adopted.resource_id).state is DriverState.STALE
        assert service.does(TERMINATE, 4).state is DONE
        assert service.state is ABSENT

    @pytest.mark.parametrize("kind", [SUSPEND, RESUME, EXTEND])
    def test_imported_service_that_was_terminated_is_not_adopted_again(
        self, service: Service, kind: OperationKind
    ) -> None:
        name = taken_over()
        service.does(TERMINATE, 1, resource_id=name)
        assert service.does(kind, 2, resource_id=name).state is DriverState.REFUSED
        assert service.state is ABSENT

    def test_repeated_adoption_gives_the_same_answer(
        self, driver: Driver, service: Service
    ) -> None:
        operation = service.operation(EXTEND, 1, resource_id=taken_over())
        first = perform(driver, operation)
        assert perform(driver, operation) == first
        assert first.resource == service.resource

    def test_services_do_not_touch_each_other(self, driver: Driver) -> None:
        one, other = Service(driver), Service(driver)
        one.does(CREATE, 1)
        other.does(CREATE, 1)
        one.does(TERMINATE, 2)
        assert (one.state, other.state) == (ABSENT, ACTIVE)


def ask(driver: Driver) -> list[DriverAnswer]:
    """An operation and a question."""
    service = Service(driver)
    return [service.does(CREATE, 1), driver.get(service.id)]


GOOD = {"resource_id": "web-1", "state": "active", "generation": 1, "paid_until": "2026-03-02"}


class TestOverHttp:
    def test_infrastructure_that_hangs_is_unknown_within_the_deadline(self) -> None:
        with FarSide(hangs) as far_side:
            driver = HttpDriver("web", far_side.url, seconds=0.3)
            started = time.monotonic()
            answer = Service(driver).does(CREATE, 1)
            assert answer.state is DriverState.UNKNOWN
            assert answer.reason
            assert time.monotonic() - started < 1

    def test_unreachable_infrastructure_has_certainly_done_nothing(self) -> None:
        driver = HttpDriver("web", f"http://127.0.0.1:{free_port()}", seconds=0.2)
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
            pytest.param(answers(200, GOOD | {"paid_until": 5}), id="a date that is a number"),
            pytest.param(answers(302, GOOD), id="a redirect"),
            pytest.param(answers(404, b"<html>"), id="a page not found"),
        ],
    )
    def test_malformed_answer_is_unknown(self, step: Any) -> None:
        with FarSide(step) as far_side:
            driver = HttpDriver("web", far_side.url, seconds=0.05)
            assert {answer.state for answer in ask(driver)} == {DriverState.UNKNOWN}

    @pytest.mark.parametrize("kind", list(OperationKind))
    @pytest.mark.parametrize("code", ["not_found", "no_such_plan"])
    def test_not_found_is_valid_only_as_the_answer_to_a_query(
        self, kind: OperationKind, code: str
    ) -> None:
        with FarSide(answers(404, {"code": code})) as far_side:
            answer = Service(HttpDriver("web", far_side.url, seconds=1)).does(kind, 1)
            assert answer.state is DriverState.UNKNOWN

    def test_missing_page_says_nothing_about_a_service(self) -> None:
        with FarSide(answers(404, {"code": "no_such_route"})) as far_side:
            answer = HttpDriver("web", far_side.url, seconds=1).get(uuid.uuid4())
            assert answer.state is DriverState.UNKNOWN

    @pytest.mark.parametrize("status", [401, 403, 425, 429])
    def test_rejected_call_has_certainly_done_nothing(self, status: int) -> None:
        with FarSide(answers(status, {"code": "no_entry"})) as far_side:
            driver = HttpDriver("web", far_side.url, seconds=1)
            assert {answer.state for answer in ask(driver)} == {DriverState.UNAVAILABLE}

    @pytest.mark.parametrize("status", [405, 408])
    def test_http_405_and_408_leave_the_operation_unknown(self, status: int) -> None:
        with FarSide(answers(status, {})) as far_side:
            answer = Service(HttpDriver("web", far_side.url, seconds=1)).does(CREATE, 1)
            assert answer.state is DriverState.UNKNOWN

    def test_calls_are_counted_by_outcome(self) -> None:
        def counted(outcome: str) -> float:
            labels = {"target": "driver:counted", "operation": "create", "outcome": outcome}
            return REGISTRY.get_sample_value("autorenew_calls_total", labels) or 0.0

        stale = answers(409, {"code": "stale_generation"})
        steps = answers(200, GOOD), stale, answers(422, {}), answers(404, {}), answers(429, {})
        with FarSide(*steps) as far_side:
            driver = HttpDriver("counted", far_side.url, seconds=1)
            for _ in steps:
                Service(driver).does(CREATE, 1)
        assert [counted(state) for state in DriverState] == [1] * len(steps)

    @pytest.mark.parametrize("status", [400, 409, 422])
    def test_definite_refusal_keeps_its_code(self, status: int) -> None:
        with FarSide(answers(status, {"code": "out_of_stock"})) as far_side:
            answer = Service(HttpDriver("web", far_side.url, seconds=1)).does(CREATE, 1)
            assert (answer.state, answer.reason) == (DriverState.REFUSED, "out_of_stock")

    def test_service_unknown_to_the_infrastructure_is_absent(self) -> None:
        with FarSide(answers(404, {"code": "not_found"})) as far_side:
            assert Service(HttpDriver("web", far_side.url, seconds=1)).state is ABSENT

    def test_call_names_the_imported_resource_where_there_is_one(self) -> None:
        with FarSide(answers(200, GOOD)) as far_side:
            service = Service(HttpDriver("web", far_side.url, seconds=1))
            service.does(SUSPEND, 1, resource_id="old-7")
            service.does(SUSPEND, 1)
            bodies = [body for *_, body in far_side.requests]
            assert bodies[0]["resource_id"] == "old-7"
            assert "resource_id" not in bodies[1]

    def test_a_call_says_what_the_infrastructure_needs_to_know(self) -> None:
        with FarSide(answers(200, GOOD)) as far_side:
            service = Service(HttpDriver("web", far_side.url, seconds=1, token="secret"))
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
