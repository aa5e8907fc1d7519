"""A batch that is too slow for its deadline is halved, until what is too slow is alone."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from producers import ledger
from producers.ledger import Claim, Place
from producers.ledger.dispatching import Dispatch
from producers.relay import relay as relaying
from producers.relay.relay import Relay
from producers.scheduler import scheduler as scheduling
from producers.scheduler.scheduler import Scheduler
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.database import is_too_slow
from schemas.settings import load_settings
from tests.conftest import Database
from tests.integration.test_guard import SERVICE
from tests.integration.test_runtime import Inside, Outside, World

# A batch of more than two of these takes longer than the deadline; two take half of it.
DEADLINE = "400ms"
EACH = 0.1


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def sleeps(seconds: Callable[[uuid.UUID], float]) -> Callable[[Connection, Claim], None]:
    """A statement that takes so long for each subject of a batch."""

    def run(tx: Connection, claim: Claim) -> None:
        tx.execute(text(f"SET LOCAL statement_timeout = '{DEADLINE}'"))
        total = sum(seconds(subject) for subject in claim.subjects)
        tx.execute(text("SELECT pg_sleep(:total)"), {"total": total})
        tx.execute(text("SET LOCAL statement_timeout = 0"))

    return run


def test_batch_that_is_too_slow_is_done_in_parts(world: World) -> None:
    subjects = world.enqueue(10)

    world.deliver(Inside(sleeps(lambda _: EACH)), world.runtime())

    assert world.done() == subjects
    assert world.tasks() == []


def test_lone_subject_that_is_too_slow_is_tried_again_and_then_fails(world: World) -> None:
    subjects = world.enqueue(5)
    slow = subjects[2]
    handler = Inside(sleeps(lambda subject: 10.0 if subject == slow else 0.0))
    settings = {"retry_attempts": 3, "retry_base_seconds": 0.001}

    world.deliver(handler, world.runtime(**settings))
    assert world.done() == [subject for subject in subjects if subject != slow]
    assert world.tasks() == [("ready", "too_slow", 1)]

    for _ in range(2):
        world.deliver(handler, world.runtime(**settings))
    assert world.tasks() == [("failed", "too_slow", 3)]
    error = world.database.value("SELECT error FROM tasks")
    assert "statement timeout" in error


@pytest.mark.parametrize("phase", ["begin", "record"])
def test_attempts_and_answers_of_a_batch_that_is_too_slow_are_written_in_parts(
    world: World, phase: str
) -> None:
    class Slow(Outside):
        def begin(self, tx: Connection, claim: Claim) -> Any:
            if phase == "begin":
                sleeps(lambda _: EACH)(tx, claim)
            return super().begin(tx, claim)

        def record(self, tx: Connection, claim: Claim, answers: Any) -> Any:
            if phase == "record":
                sleeps(lambda _: EACH)(tx, claim)
            return super().record(tx, claim, answers)

    subjects = world.enqueue(10)

    # The lease is looked at before anything leaves the house, as it would after long statements.
    world.deliver(Slow(lambda _: "done"), world.runtime(lease_seconds=1.0))

    assert world.done() == subjects
    assert world.tasks() == []


def test_sweep_that_is_too_slow_is_made_in_smaller_parts(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "CHUNK", 40)
    database.run(SERVICE, number=40)
    database.run(
        "UPDATE services SET next_step = 'request', next_subject = id,"
        " next_step_at = now() - interval '1 minute'"
    )
    database.run(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END'"
    )
    database.run("CREATE TRIGGER slow BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION slow()")
    database.run(
        f"ALTER ROLE autorenew_scheduler IN DATABASE {database.name} SET statement_timeout = '0.3s'"
    )
    engine = database.engine("scheduler")
    scheduler = Scheduler(engine, CatalogueCache(), SystemClock(), load_settings())

    too_slow = 0
    while database.value("SELECT count(*) FROM tasks") < 40:
        try:
            scheduler.round()
        except OperationalError as error:
            too_slow += is_too_slow(error)

    assert too_slow == 2  # of 40, and of 20


def test_dispatch_that_is_too_slow_is_made_in_smaller_parts(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "MOST_GATHERED", 40)
    place = Place("web", "driver:web")
    with database.owner.begin() as tx:
        ledger.enqueue(tx, "step", [(uuid.uuid4(), place) for _ in range(40)], delay=0.001)
    database.run(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END'"
    )
    database.run("CREATE TRIGGER slow BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION slow()")
    database.run(
        f"ALTER ROLE autorenew_relay IN DATABASE {database.name} SET statement_timeout = '0.3s'"
    )
    sent = Sent()
    relay = Relay(database.engine("relay"), sent, load_settings(), SystemClock())

    too_slow = 0
    while sent.tasks < 40:
        try:
            relay._work()
        except OperationalError as error:
            too_slow += is_too_slow(error)

    assert too_slow == 2  # of 40, and of 20
    relay._waker.close()


class Sent:
    """Takes whatever is published."""

    def __init__(self) -> None:
        self.tasks = 0

    def publish(self, batch: list[Dispatch]) -> set[str]:
        self.tasks += sum(message.size for message in batch)
        return set()

    def idle(self, _seconds: float, wake: int | None = None) -> None:
        pass

    def close(self) -> None:
        pass
