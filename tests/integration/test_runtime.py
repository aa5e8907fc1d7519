"""The handler protocol: what becomes of a batch when a subject, database or far side fails."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from producers import ledger
from producers.ledger import MAX_STARTS, Claim, Outcome, Place, Retry, dispatching
from schemas.clock import SystemClock
from schemas.errors import DataError
from schemas.settings import Settings
from tests.conftest import Database
from tests.support.given import wait_until
from workers.outside.health import Health
from workers.runtime.heartbeat import Heartbeat
from workers.runtime.retries import RetryPolicy
from workers.runtime.runtime import Runtime

HERE = Place("web", "driver:web")
POLICY = RetryPolicy(base=0.001, cap=0.001, attempts=3)


class Inside:
    """A step inside the database: writes each subject's name into a table."""

    name = "step"

    def __init__(self, run: Callable[[Connection, Claim], None]) -> None:
        self._run = run

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        self._run(tx, claim)
        write(tx, claim.subjects)
        return Outcome(done=claim.subjects)


class Outside:
    """A step with the outside world: calls a function for each subject."""

    name = "step"
    immediate = False

    def __init__(self, call: Callable[[uuid.UUID], str], at_once: int | None = None) -> None:
        self._call = call
        self.at_once = at_once

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, Any]], Outcome]:
        return [(subject, subject) for subject in claim.subjects], Outcome()

    def health(self, call: Any, answer: Any) -> None:
        return None

    async def call(self, call: uuid.UUID) -> str:
        return await asyncio.to_thread(self._call, call)

    async def close(self) -> None:
        pass

    def record(
        self, tx: Connection, claim: Claim, answers: Sequence[tuple[uuid.UUID, uuid.UUID, str]]
    ) -> Outcome:
        tasks = {task.subject: task for task in claim.tasks}
        outcome = Outcome()
        for subject, _, answer in answers:
            if answer == "done":
                outcome.done.append(subject)
            else:
                decision = POLICY.decide(tasks[subject], answer, "")
                kind = outcome.retries if isinstance(decision, Retry) else outcome.failures
                kind.append(decision)  # type: ignore[arg-type]
        write(tx, outcome.done)
        return outcome


def write(tx: Connection, subjects: Sequence[uuid.UUID]) -> None:
    tx.execute(text("INSERT INTO done SELECT unnest(CAST(:ids AS uuid[]))"), {"ids": subjects})


class World:
    """A ledger with subjects, and runtimes that share it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.run("CREATE TABLE done (id uuid)")  # no key: doing a thing twice would show

    def runtime(self, **settings: Any) -> Runtime:
        return Runtime(self.database.owner, Settings(**settings), SystemClock())

    def enqueue(self, count: int) -> list[uuid.UUID]:
        subjects = sorted(uuid.uuid4() for _ in range(count))
        with self.database.owner.begin() as tx:
            ledger.enqueue(tx, "step", [(subject, HERE) for subject in subjects])
        return subjects

    def messages(self) -> list[list[str]]:
        self.database.run("UPDATE tasks SET run_at = now() WHERE NOT batched AND state = 'ready'")
        with self.database.owner.begin() as tx:
            found = dispatching.dispatch(tx, batch=lambda _: 100, cap=1000, rescue_seconds=30)
        return [[str(message.batch)] for message in found]

    def deliver(self, handler: Any, runtime: Runtime) -> None:
        """Hand over what is ready, and wait until it is done."""
        for message in self.messages():
            runtime.handle(handler, "web", message)
        runtime.close()

    def done(self) -> list[uuid.UUID]:
        return sorted(row.id for row in self.database.all("SELECT id FROM done"))

    def tasks(self) -> list[tuple[str, str | None, int]]:
        rows = self.database.all("SELECT state, reason, attempts FROM tasks ORDER BY subject")
        return [tuple(row) for row in rows]


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def sql_error(state: str) -> Callable[[Connection, Claim], None]:
    """A handler that meets this error of PostgreSQL, as PostgreSQL raises it."""

    def run(tx: Connection, _claim: Claim) -> None:
        tx.exec_driver_sql(
            f"DO $$ BEGIN RAISE EXCEPTION 'simulated' USING ERRCODE = '{state}'; END $$"
        )

    return run


@pytest.mark.parametrize("kind", ["ours", "of PostgreSQL"])
def test_one_bad_subject_of_a_batch_fails_alone(world: World, kind: str) -> None:
    subjects = world.enqueue(37)
    bad = subjects[20]

    def run(tx: Connection, claim: Claim) -> None:
        if bad in claim.subjects and kind == "ours":
            raise DataError("this one", code="out_of_order")
        tx.execute(
            text("SELECT 1 / CASE WHEN CAST(:bad AS uuid) = ANY(:ids) THEN 0 ELSE 1 END"),
            {"bad": bad, "ids": claim.subjects},
        )

    world.deliver(Inside(run), world.runtime())

    assert world.done() == [subject for subject in subjects if subject != bad]
    reason = "out_of_order" if kind == "ours" else "data"
    assert world.tasks() == [("failed", reason, 1)]
    assert world.database.value("SELECT subject FROM tasks") == bad


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("53100", id="disk full"),
        pytest.param("53200", id="out of memory"),
        pytest.param("40P01", id="deadlock"),
        pytest.param("40001", id="serialization failure"),
        pytest.param("57P01", id="administrator's shutdown"),
        pytest.param("08006", id="connection failure"),
    ],
)
def test_database_trouble_fails_no_task_and_counts_no_attempt(world: World, state: str) -> None:
    subjects = world.enqueue(5)

    for _ in range(MAX_STARTS + 1 if state == "53100" else 1):
        world.deliver(Inside(sql_error(state)), world.runtime())

    assert world.tasks() == [("ready", "interrupted", 0)] * 5
    world.deliver(Inside(lambda *_: None), world.runtime())
    assert world.done() == subjects


def test_a_lost_connection_puts_the_batch_back(world: World) -> None:
    subjects = world.enqueue(3)

    def run(tx: Connection, _claim: Claim) -> None:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    world.deliver(Inside(run), world.runtime())

    assert world.tasks() == [("ready", "interrupted", 0)] * 3
    world.deliver(Inside(lambda *_: None), world.runtime())
    assert world.done() == subjects


def counted(outcome: str) -> float:
    labels = {"queue": "web", "task": "step", "outcome": outcome}
    return REGISTRY.get_sample_value("autorenew_tasks_total", labels) or 0.0


@pytest.mark.parametrize("kind", ["in Python", "in SQL"])
def test_defect_is_tried_alone_and_then_fails_its_subject(world: World, kind: str) -> None:
    subjects = world.enqueue(4)
    bad = subjects[2]

    def run(tx: Connection, claim: Claim) -> None:
        if bad in claim.subjects and kind == "in SQL":
            tx.execute(text("SELECT no_such_column FROM tasks"))
        if bad in claim.subjects:
            raise KeyError("nobody foresaw this")

    before = {outcome: counted(outcome) for outcome in ("defect", "failed", "put_back")}
    for _ in range(MAX_STARTS):
        world.deliver(Inside(run), world.runtime())

    assert world.done() == [subject for subject in subjects if subject != bad]
    assert [(state, reason) for state, reason, _ in world.tasks()] == [("failed", "defect")]
    # Those beside it were put back with it once.
    assert counted("defect") - before["defect"] == len(subjects) + MAX_STARTS - 1
    assert counted("failed") - before["failed"] == 1
    assert counted("put_back") == before["put_back"]


@pytest.mark.parametrize("junk", [None, 7, "text", [None], ["not a uuid"], [[]], {"a": 1}])
def test_a_message_that_names_no_subjects_does_nothing(world: World, junk: Any) -> None:
    world.enqueue(1)
    world.messages()

    world.runtime().handle(Inside(lambda *_: None), "web", junk)

    assert world.done() == []


def test_a_message_that_comes_twice_is_worked_on_once(world: World) -> None:
    subjects = world.enqueue(10)
    (message,) = world.messages()
    runtime = world.runtime()
    threads = [
        threading.Thread(target=runtime.handle, args=(Inside(lambda *_: None), "web", message))
        for _ in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert world.done() == subjects


def test_no_transaction_is_open_while_the_outside_world_is_called(world: World) -> None:
    world.enqueue(1)
    seen: list[int] = []

    def call(_subject: uuid.UUID) -> str:
        query = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'"""
        seen.append(world.database.value(query))
        return "done"

    world.deliver(Outside(call), world.runtime())

    assert seen == [0]


def test_a_quick_answer_does_not_wait_for_a_slow_one(world: World) -> None:
    subjects = world.enqueue(2)
    release = threading.Event()

    def call(subject: uuid.UUID) -> str:
        if subject == subjects[0]:
            release.wait(10)
        return "done"

    work = threading.Thread(target=world.deliver, args=(Outside(call), world.runtime()))
    work.start()
    wait_until(lambda: world.done() == [subjects[1]], "the quick one is recorded")
    release.set()
    work.join()

    assert world.done() == subjects


class Busy(Outside):
    """Its far side asks for an hour; what it says cannot be recorded."""

    def health(self, call: Any, answer: Any) -> Health:  # type: ignore[override]
        return Health(False, "HTTP 429", retry_after=3600.0)

    def record(self, tx: Connection, claim: Claim, answers: Any) -> Outcome:
        raise RuntimeError("a defect of ours")


def test_lane_opens_for_the_whole_fleet_also_if_the_answer_cannot_be_recorded(world: World) -> None:
    world.enqueue(1)
    world.deliver(Busy(lambda _: "busy"), world.runtime())
    assert [row.lane for row in world.database.all("SELECT lane FROM lane_breakers")] == [HERE.lane]


class Failing(Outside):
    """Its far side fails for one subject; what was said of it can be recorded in parts only."""

    def __init__(self) -> None:
        super().__init__(lambda _: "done")
        self.recorded = 0

    def health(self, call: Any, answer: Any) -> Health:  # type: ignore[override]
        return Health(False, "HTTP 500")

    def record(self, tx: Connection, claim: Claim, answers: Any) -> Outcome:
        self.recorded += 1
        if self.recorded == 1:
            raise RuntimeError("not all of them at once")
        return super().record(tx, claim, answers)


def test_answers_count_once_however_often_they_are_recorded(world: World) -> None:
    messages = []  # three claims, whose answers come together
    for _ in range(3):
        world.enqueue(2)
        messages += world.messages()
    handler = Failing()
    runtime = world.runtime(breaker={"failures": 10})
    for message in messages:
        runtime.handle(handler, "web", message)
    wait_until(lambda: len(world.done()) == 6, "all are recorded")
    runtime.close()
    assert handler.recorded > 1
    assert world.database.all("SELECT lane FROM lane_breakers") == []


class OneDefect(Outside):
    """A defect in the call of one subject; keeps what its group holds when it is recorded."""

    def __init__(self, world: World, bad: uuid.UUID, fault: Callable[[Connection], None]) -> None:
        super().__init__(lambda _: "done")
        self.held_at_record: list[list[uuid.UUID]] = []
        self._world = world
        self._bad = bad
        self._fault = fault

    async def call(self, call: uuid.UUID) -> str:
        if call == self._bad:
            raise KeyError("nobody foresaw this")
        return "done"

    def record(
        self, tx: Connection, claim: Claim, answers: Sequence[tuple[uuid.UUID, uuid.UUID, str]]
    ) -> Outcome:
        self.held_at_record += [row.subjects for row in self._world.database.all(HELD)]
        self._fault(tx)
        return super().record(tx, claim, answers)


HELD = "SELECT subjects FROM batches WHERE state = 'leased' ORDER BY id"


def test_what_had_a_defect_is_put_back_after_the_good_answers_were_recorded(world: World) -> None:
    subjects = world.enqueue(3)
    handler = OneDefect(world, subjects[1], lambda _: None)

    world.deliver(handler, world.runtime())

    assert handler.held_at_record == [subjects]
    assert world.done() == [subjects[0], subjects[2]]
    assert world.tasks() == [("ready", "defect", 0)]
    assert world.database.value("SELECT starts FROM tasks") == 1


def test_nothing_is_put_back_when_the_good_answers_cannot_be_written_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects = world.enqueue(3)

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("release", {}, psycopg.OperationalError("the database is away"))

    monkeypatch.setattr(ledger, "release", away)
    handler = OneDefect(world, subjects[1], lambda _: away())

    world.deliver(handler, world.runtime())

    # Then the leases run out, of all of them.
    assert [row.subjects for row in world.database.all(HELD)] == [subjects]
    assert world.done() == []


WAITS_FOR_LOCK = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.mark.parametrize("kind", ["of two claims", "of one claim, done and not done"])
def test_answers_are_recorded_beside_an_enqueue_for_the_same_subjects(
    world: World, kind: str
) -> None:
    several = kind == "of two claims"
    subjects = sorted(uuid.uuid4() for _ in range(4))
    groups = [(subjects[0], subjects[3]), subjects[1:3]] if several else [subjects]
    away = subjects[1] if not several else None
    release = threading.Event()
    recorded: list[list[uuid.UUID]] = []

    class Recorded(Outside):
        def record(self, tx: Connection, claim: Claim, answers: Any) -> Outcome:
            recorded.append(claim.subjects)
            return super().record(tx, claim, answers)

    def call(subject: uuid.UUID) -> str:
        release.wait(30)
        return "away" if subject == away else "done"

    handler, runtime = Recorded(call), world.runtime()
    for group in groups:
        with world.database.owner.begin() as tx:
            ledger.enqueue(tx, "step", [(subject, HERE) for subject in group])
        (message,) = world.messages()
        runtime.handle(handler, "web", message)
    # Claims end in the order of their tokens, which is random.
    of_first = world.database.all(HELD)[0].subjects
    one, other = subjects[1::2] if subjects[3] in of_first else subjects[0::2]

    # When a transaction enqueues one after the other while the answers are recorded
    with world.database.owner.begin() as tx:
        ledger.enqueue(tx, "step", [(one, HERE)])
        release.set()
        wait_until(lambda: world.database.value(WAITS_FOR_LOCK) == 1, "the recording waits")
        ledger.enqueue(tx, "step", [(other, HERE)])
    runtime.close()

    # Then neither is undone, and what was wanted once more is ready.
    assert recorded == [subjects]
    rows = world.database.all("SELECT subject FROM tasks ORDER BY subject")
    assert [row.subject for row in rows] == [one, other]


def test_no_more_calls_are_under_way_than_the_handler_can_make(world: World) -> None:
    subjects = world.enqueue(12)
    under_way: list[int] = []
    seen: list[int] = []

    def call(_subject: uuid.UUID) -> str:
        under_way.append(1)
        seen.append(len(under_way))
        time.sleep(0.01)
        under_way.pop()
        return "done"

    world.deliver(Outside(call, at_once=2), world.runtime())

    assert world.done() == subjects
    assert max(seen) <= 2


def test_failed_call_is_retried_and_then_waits_for_a_person(
    world: World,
) -> None:
    subjects = world.enqueue(2)

    def call(subject: uuid.UUID) -> str:
        return "away" if subject == subjects[0] else "done"

    states = []
    for _ in range(POLICY.attempts):
        world.deliver(Outside(call), world.runtime())
        states.append(world.tasks())

    assert states == [[("ready", "away", 1)], [("ready", "away", 2)], [("failed", "away", 3)]]
    assert world.done() == [subjects[1]]


def test_a_heartbeat_holds_the_lease_of_a_slow_call(world: World) -> None:
    world.enqueue(1)
    release = threading.Event()

    def call(_subject: uuid.UUID) -> str:
        release.wait(10)
        return "done"

    runtime = world.runtime(lease_seconds=0.4)
    work = threading.Thread(target=world.deliver, args=(Outside(call), runtime))
    work.start()
    started = time.monotonic()
    wait_until(lambda: time.monotonic() > started + 1.2, "three leases' time passes")
    with world.database.owner.begin() as tx:
        assert dispatching.rescue(tx) == (0, 0)
    release.set()
    work.join()

    assert len(world.done()) == 1
    assert world.tasks() == []


def test_a_lease_that_was_lost_is_not_held_again_by_a_later_beat(world: World) -> None:
    world.enqueue(1)
    (message,) = world.messages()
    heartbeat = Heartbeat(world.database.owner, 0.4)
    with world.database.owner.begin() as tx:
        claim = ledger.claim(tx, "step", "web", [uuid.UUID(message[0])], seconds=0.4)
    heartbeat.hold(claim, time.monotonic())
    with world.database.owner.begin() as tx:
        tx.execute(text("DELETE FROM batches"))
    wait_until(lambda: not heartbeat.is_held(claim), "the beat finds it gone")
    heartbeat.round()
    assert not heartbeat.is_held(claim)
    heartbeat.stop()


def test_threads_and_calls_share_one_time_to_end(world: World) -> None:
    world.enqueue(1)
    entered, release = threading.Event(), threading.Event()

    def call(_subject: uuid.UUID) -> str:
        entered.set()
        release.wait(30)
        return "done"

    runtime = world.runtime(shutdown_seconds=2.0, call_seconds=0.1)
    for message in world.messages():
        runtime.handle(Outside(call), "web", message)
    assert entered.wait(10)

    # When the threads of handlers take all of it
    runtime.stop()
    stopped = time.monotonic()
    wait_until(lambda: time.monotonic() > stopped + 2.0, "the time to end passes")
    runtime.close()

    # Then the calls get no more.
    took = time.monotonic() - stopped
    release.set()
    assert took < 3.0


def test_a_locked_batch_is_not_waited_for_when_leases_are_renewed(world: World) -> None:
    claims = []
    for _ in range(3):
        world.enqueue(1)
        (message,) = world.messages()
        with world.database.owner.begin() as tx:
            claims.append(ledger.claim(tx, "step", "web", [uuid.UUID(message[0])], seconds=60))
    locked, lost, other = claims
    world.database.run("DELETE FROM batches WHERE id = :id", id=lost.token)
    query = "SELECT extract(epoch FROM until - now()) FROM batches WHERE id = :id"
    lease = 3600.0
    heartbeat = Heartbeat(world.database.owner, lease)
    heartbeat.stop()  # rounds are made by hand
    for claim in claims:
        heartbeat.hold(claim, time.monotonic() - lease / 2)

    # When a finish holds one of the rows
    with world.database.owner.begin() as tx:
        tx.execute(text("SELECT FROM batches WHERE id = :id FOR UPDATE"), {"id": locked.token})
        beat = threading.Thread(target=heartbeat.round)
        beat.start()
        beat.join(5)
        waited = beat.is_alive()
    beat.join()

    # Then the others are renewed without it, and it stays held for the next round.
    assert not waited
    assert world.database.value(query, id=other.token) > lease / 2
    assert [heartbeat.is_held(claim) for claim in claims] == [True, False, True]
    assert world.database.value(query, id=locked.token) <= 60
    heartbeat.round()
    assert world.database.value(query, id=locked.token) > lease / 2


def test_a_lease_that_runs_out_under_a_slow_call_leaves_one_effect(world: World) -> None:
    """As when a process is frozen: another one takes over, the first comes back too late."""
    (subject,) = world.enqueue(1)
    entered, release = threading.Event(), threading.Event()

    def slow(_subject: uuid.UUID) -> str:
        entered.set()
        release.wait(10)
        return "done"

    first = world.runtime(lease_seconds=3600)  # its heart beats too seldom to matter
    work = threading.Thread(target=world.deliver, args=(Outside(slow), first))
    work.start()
    entered.wait(10)
    world.database.run("UPDATE batches SET until = now() - interval '1 s'")
    with world.database.owner.begin() as tx:
        assert dispatching.rescue(tx) == (0, 1)
    world.deliver(Outside(lambda _: "done"), world.runtime())
    assert world.done() == [subject]

    release.set()
    work.join()

    assert world.done() == [subject]
    assert world.tasks() == []
