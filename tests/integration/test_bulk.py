"""Many tasks at once: all that are selected, once, and no others."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from autorenew.cli.tasks import AT_ONCE
from producers import ledger
from producers.control import failed, running
from producers.control.selection import Filters, State, TaskId, find
from producers.ledger import Failure, Outcome, Retry
from producers.ledger.dispatching import dispatch
from producers.steps import Place
from tests.conftest import Database
from tests.support.given import wait_until

PLACE = Place("billing", "gateway")


@pytest.fixture
def cli(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    url = database.engine("api").url.set(drivername="postgresql")
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.render_as_string(hide_password=False))

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, words)

    return run


def put(database: Database, number: int, *, state: str = "failed", name: str = "charge") -> None:
    database.run(
        "INSERT INTO tasks (name, subject, queue, lane, state, run_at, reason, attempts)"
        " SELECT :name, gen_random_uuid(), 'billing', 'gateway', :state,"
        "   now() + CASE :state WHEN 'ready' THEN interval '1 h' ELSE interval '0' END,"
        "   'gateway_unknown', 1 FROM generate_series(1, :number)",
        name=name, number=number, state=state,
    )  # fmt: skip
    database.run(
        "INSERT INTO routes VALUES ('billing', :name, 'gateway') ON CONFLICT DO NOTHING", name=name
    )


def test_more_than_fit_into_one_transaction_are_all_retried(cli: Any, database: Database) -> None:
    number = 2 * AT_ONCE + 201
    put(database, number)
    put(database, 3, name="refund")

    result = cli("tasks", "run", "--all", "--state", "failed", "--step", "charge")

    assert result.stdout == f"{number} tasks are ready again\n"
    states = "SELECT name, state, count(*) FROM tasks GROUP BY 1, 2 ORDER BY 1"
    assert database.all(states) == [("charge", "ready", number), ("refund", "failed", 3)]
    retried = "SELECT count(*), count(DISTINCT subject) FROM events WHERE name = 'task.retried'"
    assert database.all(retried) == [(number, number)]


def test_what_somebody_else_retried_meanwhile_is_not_retried_and_not_told_twice(
    database: Database,
) -> None:
    put(database, 5)
    with database.engine("api").connect() as tx:
        chosen = find(tx, Filters(states=frozenset({State.FAILED}))).tasks
    with database.engine("api").begin() as tx:
        first = failed.retry(tx, chosen[:2])

    with database.engine("api").begin() as tx:
        outcome = running.run(tx, chosen)

    assert len(outcome.ready) == 3
    assert {task.id for task in outcome.left} == set(first)
    assert database.value("SELECT count(*) FROM events WHERE name = 'task.retried'") == 5
    assert database.value("SELECT max(wanted) FROM tasks") == 2


def test_retried_task_has_all_its_attempts_again_and_keeps_how_often_it_failed(
    database: Database,
) -> None:
    subject = uuid.uuid4()
    task = TaskId("charge", subject)

    def attempt(end: Retry | Failure) -> None:
        with database.engine("relay").begin() as tx:
            (message,) = dispatch(tx, batch=lambda _: 9, cap=9, rescue_seconds=30)
        with database.engine("billing").begin() as tx:
            claim = ledger.claim(tx, "charge", "billing", [message.batch], seconds=60)
        seen.append(claim.tasks[0].attempts)
        outcome = Outcome()
        outcome.add(end)
        with database.engine("billing").begin() as tx:
            ledger.finish(tx, claim, outcome)

    seen: list[int] = []
    with database.engine("billing").begin() as tx:
        ledger.enqueue(tx, "charge", [(subject, PLACE)])
    attempt(Retry(subject, "gateway_unknown"))
    (first,) = database.all("SELECT first_failed_at FROM tasks")
    attempt(Failure(subject, "gateway_unknown"))
    with database.engine("api").begin() as tx:
        assert failed.retry(tx, [task]) == [task]
    attempt(Retry(subject, "gateway_unknown"))

    assert seen == [0, 1, 0]
    kept = "SELECT attempts, total_attempts, first_failed_at FROM tasks"
    assert database.all(kept) == [(1, 3, first.first_failed_at)]
    with database.engine("billing").begin() as tx:  # asked for anew, and it still has not ended
        ledger.enqueue(tx, "charge", [(subject, PLACE)])
    assert database.all(kept) == [(0, 3, first.first_failed_at)]


def test_task_that_was_wanted_again_and_succeeded_begins_anew(database: Database) -> None:
    subject = uuid.uuid4()
    with database.engine("billing").begin() as tx:
        ledger.enqueue(tx, "charge", [(subject, PLACE)])
    with database.engine("relay").begin() as tx:
        (message,) = dispatch(tx, batch=lambda _: 9, cap=9, rescue_seconds=30)
    with database.engine("billing").begin() as tx:
        claim = ledger.claim(tx, "charge", "billing", [message.batch], seconds=60)
    database.run("UPDATE tasks SET first_failed_at = now(), total_attempts = 3")
    with database.engine("billing").begin() as tx:
        ledger.enqueue(tx, "charge", [(subject, PLACE)])

    with database.engine("billing").begin() as tx:
        ledger.finish(tx, claim, Outcome(done=[subject]))

    assert database.all("SELECT first_failed_at, total_attempts FROM tasks") == [(None, 0)]


FAIL_ALL = """
    UPDATE tasks SET state = 'failed', batched = false
    WHERE subject IN (SELECT subject FROM tasks ORDER BY subject FOR UPDATE)
"""


def test_bulk_retry_and_enqueue_of_the_same_subjects_do_not_deadlock(database: Database) -> None:
    put(database, 300)
    subjects = [row.subject for row in database.all("SELECT subject FROM tasks")]
    errors: list[Exception] = []

    def enqueue() -> None:
        try:
            for _ in range(20):
                with database.engine("billing").begin() as tx:
                    ledger.enqueue(tx, "charge", [(subject, PLACE) for subject in subjects])
        except Exception as error:
            errors.append(error)

    other = threading.Thread(target=enqueue)
    other.start()
    for turn in range(20):
        database.run(FAIL_ALL)
        order = sorted(subjects, reverse=bool(turn % 2))
        with database.engine("api").begin() as tx:
            failed.retry(tx, [TaskId("charge", subject) for subject in order])
    other.join(30)

    assert errors == []


def test_waiting_task_that_a_relay_takes_at_that_moment_runs_once(database: Database) -> None:
    put(database, 1, state="ready")
    with database.engine("api").connect() as tx:
        chosen = find(tx).tasks
    assert [task.state for task in chosen] == [State.BACKING_OFF]
    database.run("UPDATE tasks SET run_at = now()")
    wait_until(lambda: database.value("SELECT run_at < now() FROM tasks"), "its time has come")
    with database.engine("relay").begin() as tx:
        (message,) = dispatch(tx, batch=lambda _: 9, cap=9, rescue_seconds=30)

    with database.engine("api").begin() as tx:
        outcome = running.run(tx, chosen)

    assert (len(outcome), len(outcome.left)) == (0, 1)
    assert database.value("SELECT count(*) FROM batches") == message.size == 1
