"""What every driver must do, over its port: a suite for authors of drivers.

::

    from workers.conformance import DriverConformance

    class TestMyDriver(DriverConformance):
        @pytest.fixture
        def driver(self) -> Driver:
            return MyDriver("mine", MyDriver.Settings(url=...))

Every test uses services of its own. Some far sides cannot do everything: what a driver lacks, its
author says in the attributes of the class, and the tests of that are skipped. What goes wrong is
tested through the fixtures of :class:`workers.conformance.driver_faults.FaultConformance`.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from schemas.values import ResourceState
from workers.conformance.driver_faults import FaultConformance
from workers.conformance.service import APRIL, MARCH, Service, whole
from workers.conformance.waiting import Waiting
from workers.outside.registry import lacks
from workers.provisioning.drivers.port import Driver, DriverState, OperationKind

__all__ = ["DriverConformance", "Service", "whole"]

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState
DONE, IN_PROGRESS = DriverState.DONE, DriverState.IN_PROGRESS
# What a customer is told of a resource is short.
MOST_DETAILS, LONGEST_DETAIL = 10, 200


class DriverConformance(FaultConformance):
    """Inherit it, and give it a fixture ``driver``."""

    slow = False
    """A create is begun and then asked about: its first answer is IN_PROGRESS."""

    patience = 10.0
    """Seconds within which everything that was begun has ended."""

    keeps_paid_until = True
    """The far side keeps until when a service is paid, and shows it. Without it a driver answers
    None, and to extend is done as soon as the resource exists."""

    keeps_keys = True
    """A key that was used is refused with ``key_reused`` for anything else. A driver without it
    makes "twice with one key" one resource by the service's id."""

    keeps_generations = True
    """The far side refuses an older generation than the last one it has seen. Where nothing there
    can hold one, a driver says that of what exists it has seen the generation that it is asked
    with: then only the deadline of a call keeps a late one from undoing a newer one."""

    keeps_the_gone = True
    """It refuses an older generation than that of a termination, too, when nothing is left."""

    takes_over = True
    """A resource that exists under a name of its own is bound to a service by its first
    operation. What exists is made by the fixture ``named``."""

    @pytest.fixture
    def driver(self) -> Driver:
        raise NotImplementedError("a conformance test needs a fixture `driver`")

    @pytest.fixture
    def named(self) -> Callable[[], str]:
        """Makes sure that one more resource exists which nobody created through us; gives the name
        that the far side has for it. By default a made-up name, for a far side that has them all.
        """
        return lambda: f"old-{uuid.uuid4().hex[:8]}"

    @pytest.fixture
    def used(self, driver: Driver) -> Iterator[Waiting]:
        with Waiting(driver) as waiting:
            yield waiting

    @pytest.fixture
    def new_service(
        self, used: Waiting, facts: Callable[[], dict[str, Any]]
    ) -> Callable[[], Service]:
        return lambda: Service(used, facts(), self.patience)

    @pytest.fixture
    def service(self, new_service: Callable[[], Service]) -> Service:
        return new_service()

    def _needs(self, what: str) -> None:
        if not getattr(self, what):
            pytest.skip(f"{what} is False")

    def test_it_has_every_method_of_a_driver(self, driver: Driver) -> None:
        assert lacks("drivers", driver) == []

    def test_creation_that_takes_long_is_begun_and_asked_about(
        self, used: Waiting, service: Service
    ) -> None:
        self._needs("slow")
        create = service.operation(CREATE, 1)
        # Given a creation that was begun
        first = used.perform(create)
        assert first.state is IN_PROGRESS
        assert first.retry_after is None or first.retry_after > 0
        # When it is asked about and sent again meanwhile, that begins no other
        assert used.ask(create).state in (IN_PROGRESS, DONE)
        assert used.perform(create).state in (IN_PROGRESS, DONE)
        # Then once it has ended it is there, once.
        assert service.state is ACTIVE
        answer = used.perform(create)
        assert (answer.state, answer.resource) == (DONE, service.resource)
        assert [e.service_id for e in whole(used)].count(str(service.id)) == 1

    def test_creation_that_takes_long_can_be_called_off(
        self, used: Waiting, service: Service
    ) -> None:
        self._needs("slow")
        assert used.perform(service.operation(CREATE, 1)).state is IN_PROGRESS
        assert service.does(TERMINATE, 2).state is DONE
        assert service.state is ABSENT
        assert str(service.id) not in [e.service_id for e in whole(used)]

    def test_customer_is_told_short_texts_about_a_resource(self, service: Service) -> None:
        resource = service.does(CREATE, 1).resource
        assert resource is not None
        assert len(resource.details) <= MOST_DETAILS
        for name, text in resource.details.items():
            assert name
            assert 0 < len(text) <= LONGEST_DETAIL
            assert text.isprintable()

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
        self._needs("keeps_paid_until")
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
        self, service: Service, kind: OperationKind
    ) -> None:
        if kind is not CREATE:
            service.does(CREATE, 1)
        operation = service.operation(kind, 2)
        first = service.perform(operation)
        before = service.resource
        # When it is sent again, the answer is the same and nothing has changed.
        assert service.perform(operation) == first
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
        self, service: Service, change: dict[str, Any]
    ) -> None:
        self._needs("keeps_keys")
        create = service.operation(CREATE, 1)
        service.perform(create)
        before = service.resource
        answer = service.perform(replace(create, **change))
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "key_reused")
        assert service.resource == before

    def test_a_key_belongs_to_its_operation(self, service: Service) -> None:
        self._needs("keeps_keys")
        create = service.operation(CREATE, 1)
        service.perform(create)
        answer = service.perform(replace(create, kind=SUSPEND))
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "key_reused")
        assert service.state is ACTIVE

    def test_a_key_belongs_to_its_service(self, new_service: Callable[[], Service]) -> None:
        self._needs("keeps_keys")
        service, other = new_service(), new_service()
        create = service.operation(CREATE, 1)
        service.perform(create)
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
        self._needs("keeps_generations")
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
        self._needs("keeps_the_gone")
        service.does(CREATE, 1)
        service.does(TERMINATE, 3)
        assert service.does(CREATE, 2).state is DriverState.STALE
        assert service.state is ABSENT

    def test_what_is_gone_tells_its_generation(self, service: Service) -> None:
        """Whoever has forgotten it, as a restored database has, is stale until it knows it."""
        self._needs("keeps_the_gone")
        service.does(CREATE, 1)
        service.does(TERMINATE, 3)
        assert service.resource.state is ABSENT
        assert service.resource.generation == 3

    def test_a_create_that_arrives_after_a_termination_of_nothing_is_stale(
        self, service: Service
    ) -> None:
        self._needs("keeps_the_gone")
        service.does(TERMINATE, 2)
        assert service.does(CREATE, 1).state is DriverState.STALE
        assert service.state is ABSENT

    def test_the_same_generation_is_not_stale(self, service: Service) -> None:
        service.does(CREATE, 2)
        assert service.does(SUSPEND, 2).state is DONE

    def test_repeated_old_operation_has_no_effect(self, service: Service) -> None:
        self._needs("keeps_generations")
        # Given a suspend, and a resume that came after it
        service.does(CREATE, 1)
        suspend = service.operation(SUSPEND, 2)
        service.perform(suspend)
        service.does(RESUME, 3)
        # When the suspend is delivered once more
        answer = service.perform(suspend)
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
        self, service: Service, named: Callable[[], str], kind: OperationKind, state: ResourceState
    ) -> None:
        self._needs("takes_over")
        # Given a resource that the far side knows by its own name only
        assert service.state is ABSENT
        # When something is done to it by that name
        answer = service.does(kind, 1, resource_id=named(), paid_until=APRIL)
        # Then it is done, and asked for by its service it is there.
        assert answer.state is DONE
        assert answer.resource is not None
        assert answer.resource.state is service.state is state
        assert answer.resource.resource_id == service.resource.resource_id
        if self.keeps_paid_until:
            assert service.resource.paid_until == (None if state is ABSENT else APRIL)

    def test_adopted_service_is_like_any_other(
        self, service: Service, named: Callable[[], str]
    ) -> None:
        self._needs("takes_over")
        adopted = service.does(SUSPEND, 1, resource_id=named()).resource
        assert adopted is not None
        assert adopted.resource_id
        # Whether its name is still said, or not.
        for generation, changes in enumerate(({}, {"resource_id": adopted.resource_id}), 2):
            assert service.does(RESUME, generation, **changes).state is DONE
            assert service.resource.resource_id == adopted.resource_id
        if self.keeps_generations:
            late = service.does(SUSPEND, 1, resource_id=adopted.resource_id)
            assert late.state is DriverState.STALE
        assert service.does(TERMINATE, 4).state is DONE
        assert service.state is ABSENT

    @pytest.mark.parametrize("kind", [SUSPEND, RESUME, EXTEND])
    def test_imported_service_that_was_terminated_is_not_adopted_again(
        self, service: Service, named: Callable[[], str], kind: OperationKind
    ) -> None:
        self._needs("takes_over")
        name = named()
        service.does(TERMINATE, 1, resource_id=name)
        assert service.does(kind, 2, resource_id=name).state is DriverState.REFUSED
        assert service.state is ABSENT

    def test_repeated_adoption_gives_the_same_answer(
        self, service: Service, named: Callable[[], str]
    ) -> None:
        self._needs("takes_over")
        operation = service.operation(EXTEND, 1, resource_id=named())
        first = service.perform(operation)
        assert service.perform(operation) == first
        assert first.resource == service.resource

    def test_services_do_not_touch_each_other(self, new_service: Callable[[], Service]) -> None:
        one, other = new_service(), new_service()
        one.does(CREATE, 1)
        other.does(CREATE, 1)
        one.does(TERMINATE, 2)
        assert (one.state, other.state) == (ABSENT, ACTIVE)

    def test_what_exists_is_listed_once_with_its_service_and_its_state(
        self, used: Waiting, new_service: Callable[[], Service]
    ) -> None:
        one, other, gone = new_service(), new_service(), new_service()
        for service in (one, other, gone):
            service.does(CREATE, 1)
        other.does(SUSPEND, 2)
        gone.does(TERMINATE, 2)

        listed = whole(used)

        ours = {str(service.id) for service in (one, other, gone)}
        found = sorted((e.service_id, e.state) for e in listed if e.service_id in ours)
        assert found == sorted([(str(one.id), ACTIVE), (str(other.id), SUSPENDED)])

    def test_a_page_of_what_exists_follows_the_one_before(
        self, used: Waiting, new_service: Callable[[], Service]
    ) -> None:
        for _ in range(3):
            new_service().does(CREATE, 1)
        listed = whole(used)
        assert len({entry.cursor for entry in listed}) == len(listed)
        for place, entry in enumerate(listed):
            rest = used.resources(entry.cursor)
            assert list(rest) == listed[place + 1 :][: len(rest)]
            assert bool(rest) is (place + 1 < len(listed))
