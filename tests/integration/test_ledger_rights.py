"""A role touches the tasks of its own queues, and asks only for those that follow."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from producers import ledger
from producers.control import failed, lanes
from producers.control.selection import TaskId
from producers.ledger import Failure, Outcome
from producers.ledger.dispatching import dispatch, rescue
from producers.steps import QUEUES, ROLE_OF_QUEUE, STEPS, Place, driver_place
from schemas.tables import ROLES
from tests.conftest import Database

WORKERS = ("orders", "billing", "reminders", "provisioning", "events")
# Every step and queue there is, as (step, place).
PLACES = [
    (step.task, driver_place(queue, "web") if step.lane is None else Place(queue, step.lane))
    for step in STEPS.values()
    for queue in step.queues
]
# Role -> what it may ask for, as (step, queue).
ASKS = {
    # An operator ends a service; a customer moves, or has another address.
    "api": {("price", "orders"), ("withdraw", "billing"), ("remind", "reminders")}
    | {("tell", "reminders"), ("deliver", "webhooks"), ("send_link", "reminders")}
    | {("converge", universe) for universe in ("web", "dedicated", "cloud", "telecom")},
    "orders": {("charge", "billing")},
    # A renewal that cannot be quoted is asked for alone.
    "billing": {("charge", "billing"), ("refund", "billing"), ("request", "billing")}
    | {("by_hand", "billing")}
    | {("converge", universe) for universe in ("web", "dedicated", "cloud", "telecom")},
    # What cannot be written goes into an e-mail of its own.
    "reminders": {("remind", "reminders")},
    "provisioning": {("refund", "billing"), ("tell", "reminders")}
    | {("by_hand", universe) for universe in ("web", "dedicated", "cloud", "telecom")}
    | {("converge", universe) for universe in ("web", "dedicated", "cloud", "telecom")},
    "events": {("deliver", "webhooks")},
    "scheduler": {
        *((step, "billing") for step in ("request", "withdraw", "charge", "suspend", "terminate")),
        ("remind", "reminders"),
        ("by_hand", "billing"),
        *(("by_hand", universe) for universe in ("web", "dedicated", "cloud", "telecom")),
        *(("reconcile", universe) for universe in ("web", "dedicated", "cloud", "telecom")),
    },
}
ASKS["console"] = ASKS["api"]  # of which it is a member: operators do there what commands do


@pytest.fixture
def full(database: Database) -> Database:
    """A task of every step on every queue, in a batch."""
    with database.owner.begin() as tx:
        for step, place in PLACES:
            ledger.enqueue(tx, step, [(uuid.uuid4(), place)])
    return database


def is_refused(act: Callable[[], Any]) -> bool:
    try:
        act()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "42501":  # insufficient_privilege
            raise
        return True
    return False


def run(database: Database, role: str, statement: str) -> int:
    """How many rows a role changes."""
    with database.engine(role).begin() as tx:
        return tx.execute(text(statement)).rowcount


@pytest.mark.parametrize("role", WORKERS)
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tasks SET state = 'failed'",
        "UPDATE tasks SET run_at = 'infinity', batched = false",
        "DELETE FROM tasks",
        "UPDATE batches SET state = 'ready', until = 'infinity'",
        "UPDATE batches SET subjects = '{}', size = 0",
        "DELETE FROM batches",
    ],
)
def test_worker_changes_only_what_is_on_its_queues(full: Database, role: str, change: str) -> None:
    own = [queue for queue in QUEUES if ROLE_OF_QUEUE[queue] == role]
    there = sum(place.queue in own for _, place in PLACES)
    table = "tasks" if "tasks" in change else "batches"
    others = f"SELECT * FROM {table} WHERE NOT queue = ANY(:own) ORDER BY {table}"
    before = full.all(others, own=own)

    assert run(full, role, change) == there
    assert full.all(others, own=own) == before


@pytest.mark.parametrize("role", WORKERS)
def test_worker_sees_only_what_is_on_its_queues(full: Database, role: str) -> None:
    own = [place for _, place in PLACES if ROLE_OF_QUEUE[place.queue] == role]
    with full.engine(role).connect() as tx:
        assert tx.execute(text("SELECT count(name) FROM tasks")).scalar_one() == len(own)
        assert tx.execute(text("SELECT count(id) FROM batches")).scalar_one() == len(own)


@pytest.mark.parametrize("role", ROLES)
def test_role_asks_only_for_the_steps_that_follow_its_own(database: Database, role: str) -> None:
    def ask(step: str, place: Place) -> None:
        with database.engine(role).begin() as tx:
            ledger.enqueue(tx, step, [(uuid.uuid4(), place)])

    asked = {(s, p.queue) for s, p in PLACES if not is_refused(lambda s=s, p=p: ask(s, p))}

    assert asked == ASKS.get(role, set())
    assert is_refused(lambda: ask("charge", Place("web", "gateway")))
    assert is_refused(lambda: ask("something", Place("orders", "orders")))
    assert database.value("SELECT count(*) FROM tasks") == len(asked)


def test_every_step_is_asked_for_by_somebody() -> None:
    assert set.union(*ASKS.values()) == {(step, place.queue) for step, place in PLACES}


@pytest.mark.parametrize("role", ROLES)
def test_no_role_writes_a_task_past_the_protocol(database: Database, role: str) -> None:
    task = (
        "INSERT INTO tasks (name, subject, queue, lane) VALUES ('x', gen_random_uuid(), 'x', 'x')"
    )
    assert is_refused(lambda: run(database, role, task))
    assert is_refused(lambda: run(database, role, "INSERT INTO enqueuers VALUES ('x', 'x', 'x')"))


def test_enqueue_again_neither_stops_nor_puts_off_what_is_there(full: Database) -> None:
    subject = full.value("SELECT subject FROM tasks WHERE name = 'charge'")
    before = full.all("SELECT state, run_at, batched FROM tasks WHERE name = 'charge'")

    with full.engine("orders").begin() as tx:
        ledger.enqueue(tx, "charge", [(subject, Place("billing", "gateway"))], delay=1e6)

    assert full.all("SELECT state, run_at, batched FROM tasks WHERE name = 'charge'") == before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tasks SET state = 'failed'",
        "UPDATE tasks SET state = 'failed', reason = 'crashed'",
        "UPDATE tasks SET state = 'failed', reason = 'other', starts = 5",
        "UPDATE tasks SET attempts = 0",
        "DELETE FROM tasks",
        "UPDATE batches SET subjects = '{}'",
        "SELECT enqueue_tasks('price', '{}', '{}', '{}', '{}', 0)",
    ],
)
def test_relay_neither_fails_nor_ends_tasks(full: Database, change: str) -> None:
    assert is_refused(lambda: run(full, "relay", change))


def test_relay_sets_aside_whose_process_died_again_and_again(full: Database) -> None:
    full.run("UPDATE tasks SET starts = 4 WHERE name = 'price'")
    full.run("UPDATE batches SET state = 'leased', until = now() WHERE name IN ('price', 'remind')")

    with full.engine("relay").begin() as tx:
        assert rescue(tx) == (0, 2)

    states = "SELECT name, state, reason FROM tasks WHERE reason IS NOT NULL ORDER BY name"
    assert full.all(states) == [("price", "failed", "crashed"), ("remind", "ready", "lease_lost")]


class TestApi:
    def test_a_task_that_has_not_failed_cannot_be_dropped_or_changed(self, full: Database) -> None:
        for change in ("DELETE FROM tasks", "UPDATE tasks SET run_at = 'infinity'"):
            assert run(full, "api", change) == 0
        assert full.value("SELECT count(*) FROM tasks") == len(PLACES)

    def test_a_failed_task_is_tried_again_and_not_changed_otherwise(self, full: Database) -> None:
        subject = full.value("SELECT subject FROM tasks WHERE name = 'converge' LIMIT 1")
        full.run("UPDATE tasks SET state = 'failed', batched = false, attempts = 8")
        full.run("DELETE FROM batches")

        assert is_refused(lambda: run(full, "api", "UPDATE tasks SET attempts = 0"))
        # An order that is not priced, two e-mails, four kinds of decision, the comparison with the
        # driver of each universe, an event for an endpoint, what was said by hand on five queues.
        assert run(full, "api", "DELETE FROM tasks") == 17
        with full.engine("api").begin() as tx:
            task = TaskId("converge", subject)
            assert failed.retry(tx, [task]) == [task]

        tried = "SELECT subject, wanted, attempts FROM tasks WHERE state = 'ready'"
        assert full.all(tried) == [(subject, 2, 0)]
        with full.engine("relay").begin() as tx:
            (message,) = dispatch(tx, batch=lambda name: 100, cap=100, rescue_seconds=30)
        assert message.name == "converge"

    def test_what_waits_in_a_lane_is_due_when_it_is_resumed_and_not_later(
        self, full: Database
    ) -> None:
        full.run("UPDATE batches SET state = 'dispatched', until = 'infinity'")
        assert is_refused(lambda: run(full, "api", "UPDATE batches SET until = 'infinity'"))

        with full.engine("api").begin() as tx:
            lanes.resume(tx, "mail")

        assert full.all("SELECT lane FROM batches WHERE until <= now()") == [("mail",)] * 3


def test_worker_ends_its_tasks_in_every_way(database: Database) -> None:
    """The whole protocol under the rights of one queue."""
    subjects = sorted(uuid.uuid4() for _ in range(4))
    place = Place("billing", "gateway")
    with database.engine("billing").begin() as tx:
        ledger.enqueue(tx, "charge", [(subject, place) for subject in subjects])
    with database.engine("relay").begin() as tx:
        (message,) = dispatch(tx, batch=lambda name: 100, cap=100, rescue_seconds=30)
    with database.engine("billing").begin() as tx:
        claim = ledger.claim(tx, "charge", "billing", [message.batch], seconds=60)
    with database.engine("billing").begin() as tx:
        ledger.check_held(tx, claim)
        assert ledger.renew(tx, [claim.token], seconds=60).lost == frozenset()
        done, failing, again, released = subjects
        outcome = Outcome(done=[done], failures=[Failure(failing, "x")], again=[again])
        ledger.finish(tx, claim, outcome)
        ledger.release(tx, claim.subset([released]), reason="interrupted")

    assert database.all("SELECT subject, state FROM tasks ORDER BY subject") == [
        (failing, "failed"), (again, "ready"), (released, "ready"),
    ]  # fmt: skip
    assert database.value("SELECT count(*) FROM batches") == 0
