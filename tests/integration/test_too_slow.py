"""A batch that is too slow for its deadline is halved, until what is too slow is alone."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text

from producers.ledger import Claim
from tests.conftest import Database
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
