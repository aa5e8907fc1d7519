"""What every driver must do, over its port: a suite for authors of drivers.

::

    from workers.conformance import DriverConformance

    class TestMyDriver(DriverConformance):
        @pytest.fixture
        def driver(self) -> Driver:
            return MyDriver("mine", MyDriver.Settings(url=...))

Every test uses services of its own.
"""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from schemas.books import ResourceEntry
from schemas.values import ResourceState, ServiceId
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import (
    Driver,
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState
DONE = DriverState.DONE
MARCH, APRIL = date(2026, 3, 2), date(2026, 4, 2)


class Service:
    """One service as its driver sees it; every operation has a key of its own."""

    def __init__(self, driver: Waiting) -> None:
        self.id = ServiceId(uuid.uuid4())
        self._driver = driver

    def does(self, kind: OperationKind, generation: int, **changes: Any) -> DriverAnswer:
        answer: DriverAnswer = self._driver.perform(self.operation(kind, generation, **changes))
        return answer

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
        answer = self._driver.ask(self.operation(CREATE, 1))
        assert answer.state is DONE
        assert answer.resource is not None
        resource: Resource = answer.resource
        return resource


def taken_over() -> str:
    """A name that a far side has for something that nobody created there through us."""
    return f"old-{uuid.uuid4().hex[:8]}"


def whole(driver: Waiting) -> list[ResourceEntry]:
    """What exists, page by page."""
    entries: list[ResourceEntry] = []
    while page := driver.resources(entries[-1].cursor if entries else None):
        entries += page
    return entries


class DriverConformance:
    """Inherit it, and give it a fixture ``driver``."""

    @pytest.fixture
    def driver(self) -> Driver:
        raise NotImplementedError("a conformance test needs a fixture `driver`")

    @pytest.fixture
    def used(self, driver: Driver) -> Iterator[Waiting]:
        with Waiting(driver) as waiting:
            yield waiting

    @pytest.fixture
    def service(self, used: Waiting) -> Service:
        return Service(used)

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
        self, used: Waiting, service: Service, kind: OperationKind
    ) -> None:
        if kind is not CREATE:
            service.does(CREATE, 1)
        operation = service.operation(kind, 2)
        first = used.perform(operation)
        before = service.resource
        # When it is sent again, the answer is the same and nothing has changed.
        assert used.perform(operation) == first
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
        self, used: Waiting, service: Service, change: dict[str, Any]
    ) -> None:
        create = service.operation(CREATE, 1)
        used.perform(create)
        before = service.resource
        answer = used.perform(replace(create, **change))
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "key_reused")
        assert service.resource == before

    def test_a_key_belongs_to_its_operation(self, used: Waiting, service: Service) -> None:
        create = service.operation(CREATE, 1)
        used.perform(create)
        answer = used.perform(replace(create, kind=SUSPEND))
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "key_reused")
        assert service.state is ACTIVE

    def test_a_key_belongs_to_its_service(self, used: Waiting, service: Service) -> None:
        create = service.operation(CREATE, 1)
        used.perform(create)
        other = Service(used)
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

    def test_repeated_old_operation_has_no_effect(self, used: Waiting, service: Service) -> None:
        # Given a suspend, and a resume that came after it
        service.does(CREATE, 1)
        suspend = service.operation(SUSPEND, 2)
        used.perform(suspend)
        service.does(RESUME, 3)
        # When the suspend is delivered once more
        answer = used.perform(suspend)
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

    def test_repeated_adoption_gives_the_same_answer(self, used: Waiting, service: Service) -> None:
        operation = service.operation(EXTEND, 1, resource_id=taken_over())
        first = used.perform(operation)
        assert used.perform(operation) == first
        assert first.resource == service.resource

    def test_services_do_not_touch_each_other(self, used: Waiting) -> None:
        one, other = Service(used), Service(used)
        one.does(CREATE, 1)
        other.does(CREATE, 1)
        one.does(TERMINATE, 2)
        assert (one.state, other.state) == (ABSENT, ACTIVE)

    def test_what_exists_is_listed_once_with_its_service_and_its_state(self, used: Waiting) -> None:
        one, other, gone = Service(used), Service(used), Service(used)
        for service in (one, other, gone):
            service.does(CREATE, 1)
        other.does(SUSPEND, 2)
        gone.does(TERMINATE, 2)

        listed = whole(used)

        ours = {str(service.id) for service in (one, other, gone)}
        found = sorted((e.service_id, e.state) for e in listed if e.service_id in ours)
        assert found == sorted([(str(one.id), ACTIVE), (str(other.id), SUSPENDED)])

    def test_a_page_of_what_exists_follows_the_one_before(self, used: Waiting) -> None:
        for _ in range(3):
            Service(used).does(CREATE, 1)
        listed = whole(used)
        assert len({entry.cursor for entry in listed}) == len(listed)
        for place, entry in enumerate(listed):
            rest = used.resources(entry.cursor)
            assert list(rest) == listed[place + 1 :][: len(rest)]
            assert bool(rest) is (place + 1 < len(listed))
