"""The event loop of calls: windows, lanes, groups of answers, and how it ends."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from producers.ledger import Claim, ClaimedTask, Outcome
from producers.relay.windows import most_claimed
from tests.support.given import wait_until
from workers.outside import calls as outside
from workers.outside.calls import Answered, Calls, run_now


class Held:
    """A heartbeat whose leases are held until a test says otherwise."""

    def __init__(self) -> None:
        self.lost: set[uuid.UUID] = set()
        self.dropped: list[uuid.UUID] = []

    def is_held(self, claim: Claim) -> bool:
        return claim.token not in self.lost

    def drop(self, claim: Claim) -> None:
        self.dropped.append(claim.token)


class Handler:
    """Calls that wait until they are let go, or answer at once."""

    name = "step"
    immediate = False

    def __init__(self, *, waits: bool = True, at_once: int | None = None) -> None:
        self.waits = waits
        self.at_once = at_once
        self.under_way = 0
        self.most = 0
        self.closed = False
        self.go = threading.Event()

    def health(self, call: Any, answer: Any) -> None:
        return None

    async def call(self, call: Any) -> Any:
        if isinstance(call, BaseException):
            raise call
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        while self.waits and not self.go.is_set():
            await asyncio.sleep(0.005)
        self.under_way -= 1
        return f"answer to {call}"

    def begin(self, *_: Any) -> tuple[list[Any], Outcome]:
        raise NotImplementedError

    def record(self, *_: Any) -> Outcome:
        raise NotImplementedError

    async def close(self) -> None:
        self.closed = True


class World:
    def __init__(self, at_once: int) -> None:
        self.recorded: list[Answered] = []
        self.groups: list[int] = []
        self.held = Held()
        self.broken = threading.Event()
        self.calls = Calls(
            self._record,
            self.held,  # type: ignore[arg-type]
            at_once=at_once,
            broken=self.broken.set,
        )

    def _record(self, _handler: Any, answered: Sequence[Answered]) -> None:
        self.groups.append(len(answered))
        self.recorded += answered

    def start(self, handler: Handler, lane: str, count: int, calls: Any = None) -> Claim:
        """Reserve room and make calls; fails where there is none."""
        assert self.calls.reserve(lane, count, handler.at_once)
        tasks = tuple(ClaimedTask(uuid.uuid4(), 1, 0, 0.0) for _ in range(count))
        claim = Claim("step", "web", uuid.uuid4(), tasks)
        made = calls or list(range(count))
        begun = [(task.subject, call) for task, call in zip(tasks, made, strict=True)]
        self.calls.start(lane, handler, claim, begun)  # type: ignore[arg-type]
        return claim


@pytest.fixture
def world() -> Iterator[Callable[[int], World]]:
    worlds: list[World] = []

    def make(at_once: int) -> World:
        worlds.append(World(at_once))
        return worlds[-1]

    yield make
    for one in worlds:
        one.calls.close(5)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "PATIENCE_SECONDS", 0.05)


def test_many_calls_are_under_way_at_once_and_no_more_than_allowed(
    world: Callable[[int], World],
) -> None:
    calls, handler = world(20), Handler()
    calls.start(handler, "driver:a", 30)
    wait_until(lambda: handler.under_way == 20, "the window is full")
    handler.go.set()
    wait_until(lambda: len(calls.recorded) == 30, "all are recorded")
    assert handler.most == 20


def test_answers_that_arrive_together_are_recorded_together(world: Callable[[int], World]) -> None:
    calls, handler = world(100), Handler()
    for _ in range(10):
        calls.start(handler, "driver:a", 5)
    wait_until(lambda: handler.under_way == 50, "all are under way")
    handler.go.set()
    wait_until(lambda: len(calls.recorded) == 50, "all are recorded")
    assert len(calls.groups) < 10
    assert sorted(a.answer for a in calls.recorded)[0] == "answer to 0"


def test_lane_whose_far_side_hangs_leaves_the_others_their_room(
    world: Callable[[int], World], impatient: None
) -> None:
    calls, hangs, quick = world(4), Handler(), Handler(waits=False)
    calls.start(hangs, "driver:stuck", most_claimed(4))
    assert not calls.calls.reserve("driver:stuck", 1)
    calls.start(quick, "driver:b", 4)
    wait_until(lambda: len(calls.recorded) == 4, "the other lane's calls are recorded")
    hangs.go.set()


def test_room_comes_back_when_answers_are_recorded(world: Callable[[int], World]) -> None:
    calls, handler = world(4), Handler()
    calls.start(handler, "driver:a", most_claimed(4))
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(calls.calls.reserve("driver:a", 4)))
    waiting.start()
    wait_until(lambda: handler.under_way == 4, "the window is full")
    handler.go.set()
    waiting.join(10)
    assert found == [True]
    calls.calls.give_back("driver:a", 4)


def test_more_than_a_lane_holds_finds_room_once_it_is_empty(
    world: Callable[[int], World], impatient: None
) -> None:
    calls, handler = world(4), Handler(waits=False)
    calls.start(handler, "driver:a", 40)
    wait_until(lambda: len(calls.recorded) == 40, "all are recorded")
    assert handler.most <= 4


def test_more_than_a_lane_holds_finds_room_while_smaller_ones_keep_coming(
    world: Callable[[int], World],
) -> None:
    calls, handler = world(8), Handler()  # a relay's largest message has 4
    for _ in range(most_claimed(8) // 2):
        calls.start(handler, "driver:a", 2)
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(calls.calls.reserve("driver:a", 40)))
    waiting.start()
    # When a few of them end, and the lane is never empty
    calls.calls.give_back("driver:a", 4)
    waiting.join(10)

    # Then it is begun, once: nothing else is until it is done.
    assert found == [True]
    assert not calls.calls.reserve("driver:a", 1)
    calls.calls.give_back("driver:a", 40)
    calls.calls.give_back("driver:a", -4)
    handler.go.set()


def test_message_that_waits_for_room_is_not_overtaken_by_a_smaller_one(
    world: Callable[[int], World],
) -> None:
    calls, handler = world(8), Handler()
    for _ in range(most_claimed(8) // 2):
        calls.start(handler, "driver:a", 2)
    lane, found = calls.calls._lanes["driver:a"], []
    waiting = []
    for wanted in (2, 1):
        thread = threading.Thread(
            target=lambda n=wanted: found.append(n) if calls.calls.reserve("driver:a", n) else None
        )
        thread.start()
        waiting.append(thread)
        wait_until(lambda: len(lane.waiting) == len(waiting), "it waits")
    calls.calls.give_back("driver:a", 1)  # enough for the second
    assert not found
    waiting[1].join(0.1)
    assert not found
    calls.calls.give_back("driver:a", 1)
    waiting[0].join(10)
    assert found == [2]
    calls.calls.give_back("driver:a", 1)
    waiting[1].join(10)
    assert found == [2, 1]
    handler.go.set()


def test_room_that_is_not_needed_is_given_back(
    world: Callable[[int], World], impatient: None
) -> None:
    calls = world(4)
    most = most_claimed(4)
    assert calls.calls.reserve("driver:a", most)
    assert not calls.calls.reserve("driver:a", 1)
    calls.calls.give_back("driver:a", most)
    assert calls.calls.reserve("driver:a", most)
    calls.calls.give_back("driver:a", most)


def test_defect_in_one_call_harms_no_other(world: Callable[[int], World]) -> None:
    calls, handler = world(10), Handler(waits=False)
    calls.start(handler, "driver:a", 3, calls=[1, KeyError("defect"), 3])
    wait_until(lambda: len(calls.recorded) == 3, "all are recorded")
    errors = [type(a.error) for a in calls.recorded if a.error is not None]
    assert errors == [KeyError]


def test_call_whose_lease_has_ended_is_not_made(world: Callable[[int], World]) -> None:
    calls, handler = world(1), Handler()
    calls.start(handler, "driver:a", 1)
    claim = calls.start(handler, "driver:a", 1)
    wait_until(lambda: handler.under_way == 1, "the first is under way")
    calls.held.lost.add(claim.token)
    handler.go.set()
    wait_until(lambda: len(calls.recorded) == 2, "both came to an end")
    (lost,) = [a for a in calls.recorded if a.error is not None]
    assert lost.batch.claim == claim
    assert handler.most == 1


def test_calls_beyond_what_a_handler_can_make_wait_before_their_lease_is_checked(
    world: Callable[[int], World],
) -> None:
    calls, handler = world(100), Handler(at_once=2)
    calls.start(handler, "mail", 2)
    claim = calls.start(handler, "mail", 1)
    wait_until(lambda: handler.under_way == 2, "all that the handler can make are under way")

    # When the lease of the third ends while it waits
    calls.held.lost.add(claim.token)
    handler.go.set()

    wait_until(lambda: len(calls.recorded) == 3, "all came to an end")
    assert [a.batch.claim for a in calls.recorded if a.error is not None] == [claim]
    assert handler.most == 2


def test_lane_claims_little_more_than_its_handler_can_call_at_once(
    world: Callable[[int], World], impatient: None
) -> None:
    calls, handler = world(100), Handler(at_once=2)
    calls.start(handler, "mail", most_claimed(2))
    assert not calls.calls.reserve("mail", 1, handler.at_once)
    handler.go.set()


def test_lease_is_let_go_when_the_last_of_a_claim_is_recorded(
    world: Callable[[int], World],
) -> None:
    calls, handler = world(10), Handler(waits=False)
    claim = calls.start(handler, "driver:a", 5)
    wait_until(lambda: calls.held.dropped == [claim.token], "the lease is let go")
    assert len(calls.recorded) == 5


def test_closing_waits_for_what_is_under_way_and_lets_connections_go() -> None:
    calls, handler = World(10), Handler()
    calls.start(handler, "driver:a", 5)
    wait_until(lambda: handler.under_way == 5, "all are under way")
    threading.Timer(0.2, handler.go.set).start()
    assert calls.calls.close(10)
    assert len(calls.recorded) == 5
    assert handler.closed


def test_closing_ends_when_its_time_is_up() -> None:
    calls, handler = World(10), Handler()
    calls.start(handler, "driver:a", 5)
    started = time.monotonic()
    assert not calls.calls.close(0.2)
    assert time.monotonic() - started < 5
    assert calls.recorded == []


class Exits(Handler):
    """Its calls exit in a task of their own, which ends the loop."""

    def health(self, call: Any, answer: Any) -> None:
        return None

    async def call(self, call: Any) -> Any:
        async def leave() -> None:
            raise SystemExit("from a port")

        await asyncio.create_task(leave())


def test_leases_of_what_was_under_way_run_out_when_the_loop_is_ended_by_a_call(
    world: Callable[[int], World],
) -> None:
    calls, handler, exits = world(10), Handler(), Exits()
    claim = calls.start(handler, "driver:a", 2)
    wait_until(lambda: handler.under_way == 2, "two calls are under way")

    ended = calls.start(exits, "driver:b", 1)

    tokens = {claim.token, ended.token}
    wait_until(lambda: set(calls.held.dropped) == tokens, "their leases are let go")
    assert calls.broken.is_set()
    assert not calls.calls.reserve("driver:c", 1)
    assert not calls.calls.close(10)
    assert calls.recorded == []


def test_lease_of_what_is_begun_after_the_loop_was_ended_runs_out(
    world: Callable[[int], World],
) -> None:
    calls, handler = world(10), Handler()
    assert calls.calls.reserve("driver:a", 1)  # before, and begun after it
    ended = calls.start(Exits(), "driver:b", 1)
    wait_until(lambda: calls.held.dropped == [ended.token], "the loop has ended")
    claim = Claim("step", "web", uuid.uuid4(), ())

    calls.calls.start("driver:a", handler, claim, [])  # type: ignore[arg-type]

    assert calls.held.dropped == [ended.token, claim.token]


def test_closing_ends_when_a_call_ends_the_loop_meanwhile() -> None:
    calls, handler = World(10), Handler()
    calls.start(handler, "driver:a", 1)
    wait_until(lambda: handler.under_way == 1, "one is under way")

    async def leave() -> None:
        await asyncio.sleep(0.1)
        raise SystemExit("from a port")

    class ExitsLater(Handler):
        def health(self, call: Any, answer: Any) -> None:
            return None

        async def call(self, call: Any) -> Any:
            await asyncio.create_task(leave())

    calls.start(ExitsLater(), "driver:b", 1)
    started = time.monotonic()
    assert not calls.calls.close(60)
    assert time.monotonic() - started < 30


def test_nothing_is_taken_once_it_stops() -> None:
    calls = World(10)
    calls.calls.stop()
    assert not calls.calls.reserve("driver:a", 1)
    assert calls.calls.close(1)


def test_call_that_waits_for_nothing_is_answered_without_a_loop() -> None:
    assert run_now(Handler(waits=False).call(7)) == "answer to 7"


def test_call_that_waits_is_not_one_that_answers_at_once() -> None:
    class Later:
        def __await__(self) -> Iterator[None]:
            yield

    async def wait() -> None:
        await Later()

    with pytest.raises(RuntimeError, match="waits for something"):
        run_now(wait())


def test_a_port_that_cancels_itself_blocks_neither_its_task_nor_its_lane(
    world: Callable[[int], World],
) -> None:
    calls, handler = world(2), Handler(waits=False)
    claim = calls.start(handler, "driver:a", 2, [asyncio.CancelledError(), "fine"])
    wait_until(lambda: len(calls.recorded) == 2, "both ended")
    errors = [one.error for one in calls.recorded if one.error]
    assert [str(error) for error in errors] == ["CancelledError from a call: "]
    wait_until(lambda: calls.held.dropped == [claim.token], "its lease is not renewed any more")
    assert calls.calls.reserve("driver:a", 3)
    calls.calls.give_back("driver:a", 3)
