"""What every driver must do when a call goes wrong. A part of :class:`DriverConformance`."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from schemas.books import BookUnavailable
from schemas.values import ResourceState
from workers.conformance.service import Service, whole
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import Driver, DriverState, Operation, OperationKind

CREATE = OperationKind.CREATE
DONE, IN_PROGRESS = DriverState.DONE, DriverState.IN_PROGRESS


@contextmanager
def _waiting(driver: Driver | None, what: str) -> Iterator[Waiting]:
    if driver is None:
        pytest.skip(f"no fixture `{what}`")
    with Waiting(driver) as waiting:
        yield waiting


class FaultConformance:
    """Faults are answers, never exceptions, and each has its kind.

    A fixture that gives None skips its test: give all that the far side can be brought to.
    """

    @pytest.fixture
    def facts(self) -> Callable[[], dict[str, Any]]:
        """Gives fields of the operations of one more service (``customer``, ``plan``,
        ``configuration``), for a far side where two services cannot share them."""
        return dict

    @pytest.fixture
    def unreachable(self) -> Driver | None:
        """A driver with the address of nothing: every call fails before anything is sent."""
        return None

    @pytest.fixture
    def unauthorized(self) -> Driver | None:
        """A driver whose credential the far side does not accept."""
        return None

    @pytest.fixture
    def deaf(self) -> Driver | None:
        """A driver to the same far side as ``driver``, which does what it is told; but none of its
        answers arrives. Its deadline should be short."""
        return None

    @pytest.fixture
    def busy(self) -> Driver | None:
        """A driver whose far side answers that it has too many calls, and when to come back."""
        return None

    @pytest.fixture
    def unacceptable(self) -> dict[str, Any] | None:
        """Fields of a create that the far side refuses: a quota, a wrong option; as
        ``{"plan": "sold-out"}``."""
        return None

    def test_what_cannot_be_reached_has_certainly_not_been_done(
        self, unreachable: Driver | None, facts: Callable[[], dict[str, Any]]
    ) -> None:
        with _waiting(unreachable, "unreachable") as driver:
            service = Service(driver, facts())
            create = service.operation(CREATE, 1)
            for answer in (driver.perform(create), driver.ask(create)):
                assert answer.state is DriverState.UNAVAILABLE
                assert answer.reason
            with pytest.raises(BookUnavailable):
                driver.resources(None)

    def test_wrong_credential_is_a_permanent_no(
        self, unauthorized: Driver | None, used: Waiting, service: Service
    ) -> None:
        create = service.operation(CREATE, 1)
        with _waiting(unauthorized, "unauthorized") as driver:
            for answer in (driver.perform(create), driver.ask(create)):
                assert answer.state is DriverState.PERMANENT
                assert answer.reason
            with pytest.raises(BookUnavailable):
                driver.resources(None)
        assert service.state is ResourceState.ABSENT

    def test_call_whose_answer_is_lost_is_unknown_and_can_be_asked_about(
        self, deaf: Driver | None, used: Waiting, service: Service
    ) -> None:
        create = service.operation(CREATE, 1)
        # Given a create that was done, and nobody heard of it
        with _waiting(deaf, "deaf") as driver:
            answer = driver.perform(create)
            assert answer.state is DriverState.UNKNOWN
            assert answer.reason
        # When it is asked about
        found = service.resource
        # Then it is there, and sent again under its key it is not done again.
        assert found.state is ResourceState.ACTIVE
        assert service.perform(create).resource == found
        assert len(_of(used, service)) == 1

    def test_far_side_with_too_many_calls_says_when_to_come_back(
        self, busy: Driver | None, facts: Callable[[], dict[str, Any]]
    ) -> None:
        with _waiting(busy, "busy") as driver:
            answer = driver.perform(Service(driver, facts()).operation(CREATE, 1))
            assert answer.state is DriverState.UNAVAILABLE
            assert answer.reason
            assert answer.retry_after
            assert answer.retry_after > 0

    def test_what_the_far_side_will_not_do_is_refused_with_its_code(
        self, unacceptable: dict[str, Any] | None, service: Service
    ) -> None:
        if unacceptable is None:
            pytest.skip("no fixture `unacceptable`")
        create = service.operation(CREATE, 1, **unacceptable)
        for _ in range(2):  # however often it is asked
            answer = service.perform(create)
            assert answer.state is DriverState.REFUSED
            assert answer.reason
        assert service.state is ResourceState.ABSENT

    @pytest.mark.parametrize("seconds", [0.0, 0.001, 0.003, 0.01, 0.03])
    def test_call_that_timed_out_can_be_asked_about_and_makes_one_resource(
        self, used: Waiting, service: Service, seconds: float
    ) -> None:
        # Given a create that was given up after some time, wherever it was by then
        create = service.operation(CREATE, 1)
        used.run(_given_up(used.port, create, seconds))
        # When it is asked about, the answer is known, or will be
        asked = used.ask(create)
        assert asked.state in (DONE, IN_PROGRESS)
        # Then sent again under its key it is done, once.
        answer = service.perform(create)
        assert answer.state is DONE
        assert answer.resource == service.resource
        assert service.state is ResourceState.ACTIVE
        assert len(_of(used, service)) == 1

    def test_many_creates_under_one_key_at_once_make_one_resource(
        self, used: Waiting, service: Service
    ) -> None:
        create = service.operation(CREATE, 1)

        async def at_once() -> list[Any]:
            return await asyncio.gather(*(used.port.perform(create) for _ in range(5)))

        for answer in used.run(at_once()):
            # Who comes second may be told that it is not known yet; nobody is told that it failed.
            assert answer.state in (DONE, IN_PROGRESS, DriverState.UNKNOWN, DriverState.UNAVAILABLE)
        assert service.perform(create).state is DONE
        assert len(_of(used, service)) == 1


async def _given_up(port: Any, operation: Operation, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await port.perform(operation)
    except TimeoutError:
        pass


def _of(driver: Waiting, service: Service) -> list[str]:
    return [e.resource_id for e in whole(driver) if e.service_id == str(service.id)]
