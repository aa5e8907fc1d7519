import uuid
from datetime import UTC, date, datetime
from itertools import product

import pytest

from schemas.catalogue.store import CatalogueCache
from schemas.clock import FixedClock
from schemas.values import Period, ResourceState, ServiceState
from workers.provisioning.converge import Call, ConvergeHandler, missing_operation
from workers.provisioning.drivers.instant import InstantDriver
from workers.provisioning.drivers.port import (
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)
from workers.runtime.runtime import RetryPolicy

ABSENT, ACTIVE, SUSPENDED = ResourceState.ABSENT, ResourceState.ACTIVE, ResourceState.SUSPENDED
EARLIER, LATER = date(2026, 3, 2), date(2026, 4, 2)

# What is desired, what is confirmed -> what is missing, when nothing is in doubt and paid up.
TABLE = {
    (ABSENT, ABSENT): None,
    (ABSENT, ACTIVE): OperationKind.TERMINATE,
    (ABSENT, SUSPENDED): OperationKind.TERMINATE,
    (ACTIVE, ABSENT): OperationKind.CREATE,
    (ACTIVE, ACTIVE): None,
    (ACTIVE, SUSPENDED): OperationKind.RESUME,
    (SUSPENDED, ABSENT): OperationKind.CREATE,  # and then it is suspended
    (SUSPENDED, ACTIVE): OperationKind.SUSPEND,
    (SUSPENDED, SUSPENDED): None,
}

# Paid until, confirmed until.
PAID_UP = [(EARLIER, EARLIER), (EARLIER, LATER), (None, EARLIER), (EARLIER, None), (None, None)]
BEHIND = (LATER, EARLIER)


def missing(
    desired: ResourceState,
    confirmed: ResourceState,
    until: tuple[date | None, date | None] = (EARLIER, EARLIER),
    *,
    in_doubt: OperationKind | None = None,
    may_exist: bool | None = None,
) -> OperationKind | None:
    return missing_operation(
        desired,
        confirmed,
        paid_until=until[0],
        confirmed_until=until[1],
        in_doubt=in_doubt,
        may_exist=confirmed is not ABSENT if may_exist is None else may_exist,
    )


def test_every_desired_state_has_an_action_for_every_confirmed_state() -> None:
    assert set(TABLE) == set(product(ResourceState, ResourceState))


@pytest.mark.parametrize(("desired", "confirmed"), TABLE)
@pytest.mark.parametrize("until", PAID_UP)
def test_missing_operation_is_chosen(
    desired: ResourceState, confirmed: ResourceState, until: tuple[date | None, date | None]
) -> None:
    assert missing(desired, confirmed, until) is TABLE[desired, confirmed]


@pytest.mark.parametrize(("desired", "confirmed"), TABLE)
def test_service_in_its_desired_state_and_paid_for_longer_is_extended(
    desired: ResourceState, confirmed: ResourceState
) -> None:
    alive = desired is confirmed and desired is not ABSENT
    expected = OperationKind.EXTEND if alive else TABLE[desired, confirmed]
    assert missing(desired, confirmed, BEHIND) is expected


@pytest.mark.parametrize("in_doubt", [None, *OperationKind])
@pytest.mark.parametrize("until", [*PAID_UP, BEHIND])
def test_resource_that_may_exist_and_should_not_is_terminated(
    until: tuple[date | None, date | None], in_doubt: OperationKind | None
) -> None:
    # A create was begun, whatever came of it.
    gone = missing(ABSENT, ABSENT, until, in_doubt=in_doubt, may_exist=True)
    assert gone is OperationKind.TERMINATE
    assert missing(ABSENT, ABSENT, until, in_doubt=in_doubt, may_exist=False) is None


@pytest.mark.parametrize("in_doubt", OperationKind)
@pytest.mark.parametrize("until", [*PAID_UP, BEHIND])
@pytest.mark.parametrize(
    ("desired", "confirmed"), [pair for pair in TABLE if pair[0] is not pair[1]]
)
def test_operation_in_doubt_does_not_change_the_choice_of_a_missing_one(
    desired: ResourceState,
    confirmed: ResourceState,
    until: tuple[date | None, date | None],
    in_doubt: OperationKind,
) -> None:
    assert missing(desired, confirmed, until, in_doubt=in_doubt) is TABLE[desired, confirmed]


@pytest.mark.parametrize("in_doubt", [OperationKind.SUSPEND, OperationKind.RESUME])
@pytest.mark.parametrize("until", [*PAID_UP, BEHIND])
@pytest.mark.parametrize(
    ("state", "again"), [(ACTIVE, OperationKind.RESUME), (SUSPENDED, OperationKind.SUSPEND)]
)
def test_operation_that_one_in_doubt_may_undo_is_repeated(
    state: ResourceState,
    again: OperationKind,
    until: tuple[date | None, date | None],
    in_doubt: OperationKind,
) -> None:
    # Active confirmed, a suspend of generation 2 unknown, and generation 3 wants active again.
    assert missing(state, state, until, in_doubt=in_doubt) is again


@pytest.mark.parametrize(
    "in_doubt", [OperationKind.CREATE, OperationKind.EXTEND, OperationKind.TERMINATE]
)
@pytest.mark.parametrize("state", [ACTIVE, SUSPENDED])
def test_other_doubt_adds_no_operation_to_a_service_in_its_desired_state(
    state: ResourceState, in_doubt: OperationKind
) -> None:
    assert missing(state, state, in_doubt=in_doubt) is None
    assert missing(state, state, BEHIND, in_doubt=in_doubt) is OperationKind.EXTEND


@pytest.mark.parametrize(("desired", "confirmed"), TABLE)
@pytest.mark.parametrize("until", [EARLIER, LATER])
def test_one_operation_after_another_leads_to_the_desired_state(
    desired: ResourceState, confirmed: ResourceState, until: date
) -> None:
    # Given an infrastructure that does what it is told
    becomes = {
        OperationKind.CREATE: ACTIVE,
        OperationKind.RESUME: ACTIVE,
        OperationKind.SUSPEND: SUSPENDED,
        OperationKind.TERMINATE: ABSENT,
    }
    confirmed_until = EARLIER
    # When what is missing is done, at most three times
    for _ in range(3):
        kind = missing(desired, confirmed, (until, confirmed_until))
        if kind is None:
            break
        confirmed = becomes.get(kind, confirmed)
        confirmed_until = until
    # Then nothing is missing any more.
    assert confirmed is desired
    assert missing(desired, confirmed, (until, confirmed_until)) is None


SERVICE = uuid.UUID(int=1)


def operation(kind: OperationKind, *, key: str = "key-2", generation: int = 2) -> Operation:
    return Operation(kind, key, generation, SERVICE, "c-1", "web-perso", {}, LATER)


def call(operation: Operation, *, desired: ResourceState, ask_first: bool) -> Call:
    return Call(
        operation=operation,
        driver="web",
        subsidiary="IE",
        order_id=uuid.UUID(int=2),
        state=ServiceState.DELIVERING,
        period=Period(1),
        paid_periods=1,
        desired=desired,
        ask_first=ask_first,
    )


class Recording(InstantDriver):
    """A driver that records its operations."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[OperationKind] = []

    def _become(self, operation: Operation, state: ResourceState | None) -> DriverAnswer:
        self.done.append(operation.kind)
        return super()._become(operation, state)


class Silent(Recording):
    """A driver that does not answer queries."""

    def get(self, service_id: uuid.UUID) -> DriverAnswer:
        return DriverAnswer(DriverState.UNKNOWN, reason="HTTP 503")


class Mistaken(Recording):
    """A driver that reports success and shows another state."""

    def __init__(self, shows: Resource) -> None:
        super().__init__()
        self._shows = shows

    def _become(self, operation: Operation, state: ResourceState | None) -> DriverAnswer:
        return DriverAnswer(DriverState.DONE, self._shows)


class TestCall:
    @pytest.fixture
    def driver(self) -> Recording:
        return Recording()

    def handler(self, driver: InstantDriver) -> ConvergeHandler:
        return ConvergeHandler(
            {"web": driver},
            CatalogueCache(),
            FixedClock(datetime(2026, 3, 2, tzinfo=UTC)),
            policy=RetryPolicy(1, 60, 3),
        )

    def test_first_try_is_made_without_a_query(self, driver: Recording) -> None:
        create = operation(OperationKind.CREATE)
        answer = self.handler(driver).call(call(create, desired=ACTIVE, ask_first=False))
        assert answer.state is DriverState.DONE
        assert driver.done == [OperationKind.CREATE]

    def test_operation_that_turns_out_done_is_not_repeated(self, driver: Recording) -> None:
        # Given a create whose answer was lost
        create = operation(OperationKind.CREATE)
        driver.create(create)
        # When it is taken up again
        answer = self.handler(driver).call(call(create, desired=ACTIVE, ask_first=True))
        # Then the far side is asked, and that is that.
        assert answer.state is DriverState.DONE
        assert answer.resource is not None
        assert answer.resource.state is ACTIVE
        assert driver.done == [OperationKind.CREATE]

    def test_operation_that_was_not_done_is_repeated_under_the_same_key(
        self, driver: Recording
    ) -> None:
        create = operation(OperationKind.CREATE)
        answer = self.handler(driver).call(call(create, desired=ACTIVE, ask_first=True))
        assert answer.state is DriverState.DONE
        assert driver.done == [OperationKind.CREATE]

    def test_state_of_an_older_generation_proves_nothing(self, driver: Recording) -> None:
        driver.create(operation(OperationKind.CREATE, key="key-1", generation=1))
        resume = operation(OperationKind.RESUME)
        self.handler(driver).call(call(resume, desired=ACTIVE, ask_first=True))
        assert driver.done == [OperationKind.CREATE, OperationKind.RESUME]

    def test_operation_is_not_tried_when_the_query_fails(self) -> None:
        driver = Silent()
        create = operation(OperationKind.CREATE)
        answer = self.handler(driver).call(call(create, desired=ACTIVE, ask_first=True))
        assert (answer.state, answer.reason) == (DriverState.UNKNOWN, "HTTP 503")
        assert driver.done == []

    def test_a_newer_generation_at_the_far_side_wins(self, driver: Recording) -> None:
        # Given a resume that overtook a suspend still under way
        driver.create(operation(OperationKind.CREATE, key="key-1", generation=1))
        driver.resume(operation(OperationKind.RESUME, key="key-3", generation=3))
        # When the suspend arrives at last
        suspend = operation(OperationKind.SUSPEND)
        answer = self.handler(driver).call(call(suspend, desired=SUSPENDED, ask_first=False))
        # Then it is stale, and the service runs.
        assert answer.state is DriverState.STALE
        assert driver.get(SERVICE).resource == Resource(str(SERVICE), ACTIVE, 3, LATER)

    @pytest.mark.parametrize(
        ("kind", "desired", "shows"),
        [
            (OperationKind.CREATE, ACTIVE, Resource(None, ABSENT, 2)),
            (OperationKind.CREATE, ACTIVE, Resource("web-1", SUSPENDED, 2)),
            (OperationKind.CREATE, ACTIVE, Resource("web-1", ACTIVE, 1)),
            (OperationKind.CREATE, ACTIVE, Resource("web-1", ACTIVE, 2, EARLIER)),
            (OperationKind.SUSPEND, SUSPENDED, Resource("web-1", ACTIVE, 2)),
            (OperationKind.RESUME, ACTIVE, Resource("web-1", SUSPENDED, 2)),
            (OperationKind.EXTEND, ACTIVE, Resource("web-1", ACTIVE, 2, EARLIER)),
            (OperationKind.TERMINATE, ABSENT, Resource("web-1", ACTIVE, 2)),
        ],
        ids=str,
    )
    def test_answer_that_shows_another_state_is_not_believed(
        self, kind: OperationKind, desired: ResourceState, shows: Resource
    ) -> None:
        handler = self.handler(Mistaken(shows))
        answer = handler.call(call(operation(kind), desired=desired, ask_first=False))
        assert (answer.state, answer.reason) == (DriverState.UNKNOWN, "answer_contradicts_request")
