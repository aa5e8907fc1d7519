import uuid
from datetime import UTC, date, datetime
from itertools import product

import pytest

from schemas.catalogue.store import CatalogueCache
from schemas.clock import FixedClock
from schemas.values import Period, ResourceState, ServiceState
from workers.outside.calls import run_now
from workers.provisioning.converge import ConvergeHandler
from workers.provisioning.drivers.instant import InstantDriver
from workers.provisioning.drivers.port import (
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)
from workers.provisioning.operations import Call, checked, missing_operation, overtaken
from workers.runtime.retries import RetryPolicy

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
    """Keeps what it was asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[OperationKind] = []

    async def perform(self, operation: Operation) -> DriverAnswer:
        self.done.append(operation.kind)
        return await super().perform(operation)


class Silent(Recording):
    """Does not answer questions."""

    async def ask(self, operation: Operation) -> DriverAnswer:
        return DriverAnswer(DriverState.UNKNOWN, reason="HTTP 503")


class Mistaken(Recording):
    """Says it is done, and shows something else."""

    def __init__(self, shows: Resource) -> None:
        super().__init__()
        self._shows = shows

    async def perform(self, operation: Operation) -> DriverAnswer:
        return DriverAnswer(DriverState.DONE, self._shows)


class Rude(Recording):
    """Of another package: says more than can be kept."""

    async def perform(self, operation: Operation) -> DriverAnswer:
        reason, words = "\x00\x1b[31m" + "x" * 200, "y\x00" * 5000
        return DriverAnswer(DriverState.REFUSED, reason=reason, words=words)

    async def ask(self, operation: Operation) -> DriverAnswer:
        return await self.perform(operation)


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
        answer = run_now(self.handler(driver).call(call(create, desired=ACTIVE, ask_first=False)))
        assert answer.state is DriverState.DONE
        assert driver.done == [OperationKind.CREATE]

    def test_operation_that_turns_out_done_is_not_repeated(self, driver: Recording) -> None:
        # Given a create whose answer was lost
        create = operation(OperationKind.CREATE)
        run_now(driver.perform(create))
        # When it is taken up again
        answer = run_now(self.handler(driver).call(call(create, desired=ACTIVE, ask_first=True)))
        # Then the far side is asked, and that is that.
        assert answer.state is DriverState.DONE
        assert answer.resource is not None
        assert answer.resource.state is ACTIVE
        assert driver.done == [OperationKind.CREATE]

    def test_operation_that_was_not_done_is_repeated_under_the_same_key(
        self, driver: Recording
    ) -> None:
        create = operation(OperationKind.CREATE)
        answer = run_now(self.handler(driver).call(call(create, desired=ACTIVE, ask_first=True)))
        assert answer.state is DriverState.DONE
        assert driver.done == [OperationKind.CREATE]

    def test_state_of_an_older_generation_proves_nothing(self, driver: Recording) -> None:
        run_now(driver.perform(operation(OperationKind.CREATE, key="key-1", generation=1)))
        resume = operation(OperationKind.RESUME)
        run_now(self.handler(driver).call(call(resume, desired=ACTIVE, ask_first=True)))
        assert driver.done == [OperationKind.CREATE, OperationKind.RESUME]

    def test_operation_is_not_tried_when_the_query_fails(self) -> None:
        driver = Silent()
        create = operation(OperationKind.CREATE)
        answer = run_now(self.handler(driver).call(call(create, desired=ACTIVE, ask_first=True)))
        assert (answer.state, answer.reason) == (DriverState.UNKNOWN, "HTTP 503")
        assert driver.done == []

    def test_a_newer_generation_at_the_far_side_wins(self, driver: Recording) -> None:
        # Given a resume that overtook a suspend still under way
        run_now(driver.perform(operation(OperationKind.CREATE, key="key-1", generation=1)))
        run_now(driver.perform(operation(OperationKind.RESUME, key="key-3", generation=3)))
        # When the suspend arrives at last
        suspend = operation(OperationKind.SUSPEND)
        answer = run_now(
            self.handler(driver).call(call(suspend, desired=SUSPENDED, ask_first=False))
        )
        # Then it is stale, and the service runs.
        assert answer.state is DriverState.STALE
        assert run_now(driver.ask(suspend)).resource == Resource(str(SERVICE), ACTIVE, 3, LATER)

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
        answer = run_now(handler.call(call(operation(kind), desired=desired, ask_first=False)))
        assert (answer.state, answer.reason) == (DriverState.UNKNOWN, "answer_contradicts_request")

    def test_an_answer_of_a_generation_far_ahead_is_not_believed(self) -> None:
        shows = Resource("web-1", ACTIVE, 2147483646, LATER)
        handler = self.handler(Mistaken(shows))
        create = call(operation(OperationKind.CREATE), desired=ACTIVE, ask_first=False)
        answer = run_now(handler.call(create))
        assert (answer.state, answer.reason) == (DriverState.UNKNOWN, "generation_out_of_bounds")

    @pytest.mark.parametrize("asked_first", [False, True])
    def test_code_and_words_of_any_driver_are_printable_and_short(self, asked_first: bool) -> None:
        handler = self.handler(Rude())
        create = call(operation(OperationKind.CREATE), desired=ACTIVE, ask_first=asked_first)
        answer = run_now(handler.call(create))
        assert answer.state is DriverState.REFUSED
        assert answer.reason == "[31m" + "x" * 96
        assert answer.words == "y" * 500


STALE = DriverAnswer(DriverState.STALE, reason="stale_generation")
SUSPENDING = call(operation(OperationKind.SUSPEND), desired=SUSPENDED, ask_first=False)


def seen(generation: int) -> DriverAnswer:
    return DriverAnswer(DriverState.DONE, Resource("web-1", ACTIVE, generation, LATER))


class TestStaleAnswers:
    def test_a_generation_that_we_forgot_is_shown_so_that_it_can_be_overtaken(self) -> None:
        answer = overtaken(SUSPENDING, STALE, seen(7))
        assert answer.state is DriverState.STALE
        assert answer.resource is not None
        assert answer.resource.generation == 7

    def test_a_stale_answer_without_a_newer_generation_is_only_stale(self) -> None:
        assert overtaken(SUSPENDING, STALE, seen(2)) == STALE
        silent = DriverAnswer(DriverState.UNKNOWN, reason="HTTP 503")
        assert overtaken(SUSPENDING, STALE, silent) == STALE

    @pytest.mark.parametrize("generation", [2 + 1001, 2147483646, 2**62])
    def test_a_generation_that_nobody_can_have_asked_for_pins_no_service(
        self, generation: int
    ) -> None:
        answer = overtaken(SUSPENDING, STALE, seen(generation))
        assert (answer.state, answer.resource) == (DriverState.UNKNOWN, None)
        assert answer.reason == "generation_out_of_bounds"

    def test_what_is_not_done_is_left_as_it_was_said(self) -> None:
        refused = DriverAnswer(DriverState.REFUSED, reason="out_of_stock")
        assert checked(SUSPENDING, refused) == refused
