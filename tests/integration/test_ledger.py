"""The task ledger's protocol, on a real PostgreSQL: a worker's side."""

import threading
import uuid
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import text

from producers import ledger
from producers.ledger import (
    Failure,
    LeaseLost,
    Outcome,
    Retry,
)
from tests.conftest import Database
from tests.support import given
from tests.support.ledger import HERE, Ledger, subjects


@pytest.fixture
def book(database: Database) -> Iterator[Ledger]:
    book = Ledger(database)
    yield book
    assert book.misplaced() == []


def test_a_subject_has_a_task_once_however_often_it_is_enqueued(book: Ledger) -> None:
    (one,) = subjects(1)

    book.enqueue(one)
    book.enqueue(one)

    assert book.database.value("SELECT count(*) FROM tasks") == 1
    assert book.row(one)["wanted"] == 2


def test_a_task_can_be_claimed_once(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    ((message, _),) = book.send()

    first, second = book.claim(message), book.claim(message)

    assert first.subjects == [one]
    assert second.tasks == ()


def test_forged_message_cannot_claim_a_task_that_was_not_dispatched(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)

    assert book.claim(book.batch_of(one)).tasks == ()
    assert book.claim(one).tasks == ()


def test_a_finished_task_is_gone(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)

    book.finish(book.take(one), Outcome(done=[one]))

    assert book.row(one) is None


def test_a_wake_up_during_the_work_is_not_lost(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    claim = book.take(one)

    book.enqueue(one)
    book.finish(claim, Outcome(done=[one]))

    assert book.row(one)["state"] == "ready"
    assert book.row(one)["due"]


def test_task_enqueued_during_the_work_starts_again_from_its_first_attempt(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    book.finish(book.take(one), Outcome(retries=[Retry(one, "away", delay=0)]))
    claim = book.take(one)
    assert claim.tasks[0].attempts == 1

    book.enqueue(one)
    book.finish(claim, Outcome(failures=[Failure(one, "no")]))

    assert book.row(one)["state"] == "ready"
    assert book.row(one)["attempts"] == 0


def test_retry_waits_and_keeps_its_reason(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)

    book.finish(book.take(one), Outcome(retries=[Retry(one, "away", "no route", delay=100)]))

    row = book.row(one)
    assert (row["state"], row["reason"], row["error"]) == ("ready", "away", "no route")
    assert row["attempts"] == 1
    assert 90 < row["wait"] <= 100
    assert book.dispatch() == []


def test_an_enqueue_makes_a_task_that_backs_off_ready_now(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    book.finish(book.take(one), Outcome(retries=[Retry(one, "away", delay=100)]))

    book.enqueue(one)

    assert book.row(one)["due"]
    assert book.row(one)["attempts"] == 0


def test_an_enqueue_makes_a_failed_task_ready_now(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    book.finish(book.take(one), Outcome(failures=[Failure(one, "no")]))
    assert book.row(one)["state"] == "failed"

    book.enqueue(one)

    row = book.row(one)
    assert (row["state"], row["attempts"], row["starts"], row["reason"]) == ("ready", 0, 0, None)


def test_an_enqueue_leaves_a_dispatched_task_to_the_message_that_is_under_way(
    book: Ledger,
) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    ((message, _),) = book.send()

    book.enqueue(one)

    assert book.dispatch() == []
    claim = book.claim(message)
    assert [task.wanted for task in claim.tasks] == [2]
    book.finish(claim, Outcome(done=[one]))
    assert book.row(one) is None


def test_a_later_enqueue_does_not_put_off_an_earlier_one(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)

    book.enqueue(one, delay=1000)

    assert book.row(one)["due"]


def test_task_without_a_valid_lease_cannot_be_finished(book: Ledger) -> None:
    one, two = subjects(2)
    book.enqueue(one, two)
    late = book.take(one, two, seconds=-1)
    book.rescue()

    with pytest.raises(LeaseLost):
        book.finish(late, Outcome(done=[one, two]))

    assert book.state(one) == "ready"


def test_one_lost_lease_undoes_the_whole_finish(book: Ledger) -> None:
    one, two = subjects(2)
    book.enqueue(one, two)
    claim = book.take(one, two)
    book.finish(claim.subset([one]), Outcome(done=[one]))

    with pytest.raises(LeaseLost):
        book.finish(claim, Outcome(done=[one, two]))

    assert book.state(two) == "leased"


def test_tasks_of_one_claim_may_end_one_after_the_other(book: Ledger) -> None:
    one, two, three = subjects(3)
    book.enqueue(one, two, three)
    claim = book.take(one)

    book.finish(claim.subset([two]), Outcome(done=[two]))
    book.finish(claim.subset([one]), Outcome(retries=[Retry(one, "away", delay=100)]))
    assert book.misplaced() == []
    book.finish(claim.subset([three]), Outcome(done=[three]))

    assert book.database.value("SELECT count(*) FROM batches") == 0
    assert book.row(one)["reason"] == "away"


def test_what_of_a_claim_has_ended_and_begun_anew_is_not_put_back_with_the_rest(
    book: Ledger,
) -> None:
    one, two = subjects(2)
    book.enqueue(one, two)
    claim = book.take(one)
    book.finish(claim.subset([one]), Outcome(done=[one]))
    book.enqueue(one)

    with book.engine.begin() as tx:
        ledger.release(tx, claim, reason="interrupted")

    assert (book.row(one)["batched"], book.row(one)["reason"]) == (True, None)
    assert (book.row(two)["batched"], book.row(two)["reason"]) == (False, "interrupted")


def test_a_second_worker_cannot_finish_the_claim_of_the_first(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    first = book.take(one, seconds=-1)
    book.rescue()
    book.database.run("UPDATE tasks SET run_at = now()")
    second = book.take(one)

    with pytest.raises(LeaseLost):
        book.finish(first, Outcome(done=[one]))
    book.finish(second, Outcome(done=[one]))

    assert book.row(one) is None


def test_a_renewed_lease_is_not_rescued(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    claim = book.take(one, seconds=-1)

    with book.engine.begin() as tx:
        ledger.renew(tx, [claim.token], seconds=60)

    assert book.rescue() == (0, 0)
    book.finish(claim, Outcome(done=[one]))


def test_released_task_counts_no_start_and_no_attempt(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    claim = book.take(one)

    with book.engine.begin() as tx:
        ledger.release(tx, claim, reason="interrupted")

    row = book.row(one)
    assert (row["state"], row["starts"], row["attempts"]) == ("ready", 0, 0)


@pytest.fixture
def red(book: Ledger) -> uuid.UUID:
    """A subject with a colour, whose task was dispatched."""
    (one,) = subjects(1)
    book.database.run("CREATE TABLE thing (id uuid PRIMARY KEY, colour text)")
    book.database.run("INSERT INTO thing VALUES (:id, 'red')", id=one)
    book.enqueue(one)
    book.dispatch()
    return one


def test_a_command_that_commits_between_claim_and_read_is_seen_or_wanted(
    book: Ledger, red: uuid.UUID
) -> None:
    """Read in one statement with the claim, READ COMMITTED hands out the new task and the old
    subject. Claimed first and read later, a wake-up is either seen or wanted."""
    claim = book.claim(book.batch_of(red))
    with book.engine.begin() as command:
        command.execute(text("UPDATE thing SET colour = 'blue' WHERE id = :id"), {"id": red})
        ledger.enqueue(command, "step", [(red, HERE)])

    assert book.database.value("SELECT colour FROM thing WHERE id = :id", id=red) == "blue"
    book.finish(claim, Outcome(done=[red]))

    assert book.row(red)["state"] == "ready"


def test_what_a_command_changes_while_a_task_is_worked_on_is_seen_in_the_end(
    book: Ledger, red: uuid.UUID
) -> None:
    """A claim does not wait for a command that has the task in hand: the finish does."""
    with book.engine.begin() as command:  # changes the subject and enqueues, but is slow
        command.execute(text("UPDATE thing SET colour = 'blue' WHERE id = :id"), {"id": red})
        ledger.enqueue(command, "step", [(red, HERE)])
        claim = book.claim(book.batch_of(red))
        before = book.database.value("SELECT colour FROM thing WHERE id = :id", id=red)
    book.finish(claim, Outcome(done=[red]))

    again = book.take(red)
    after = book.database.value("SELECT colour FROM thing WHERE id = :id", id=red)
    book.finish(again, Outcome(done=[red]))

    assert (before, after) == ("red", "blue")
    assert book.row(red) is None


def test_worker_that_lost_its_lease_makes_no_call(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    claim = book.take(one, seconds=-1)
    with book.engine.begin() as tx:
        ledger.check_held(tx, claim)
    book.rescue()

    with pytest.raises(LeaseLost), book.engine.begin() as tx:
        ledger.check_held(tx, claim)


def test_history_records_failed_tasks_and_lost_workers(book: Ledger) -> None:
    bad, lost = subjects(2)
    book.enqueue(bad, lost)
    claim = book.take(bad, lost, seconds=-1)
    book.finish(claim.subset([bad]), Outcome(failures=[Failure(bad, "no", "words")]))
    book.rescue()

    told = book.database.all("SELECT subject, name, task, detail FROM events ORDER BY id")
    assert told == [
        (bad, "task.failed", "step", {"reason": "no", "error": "words"}),
        (lost, "task.lease_lost", "step", None),
    ]


@pytest.mark.parametrize("enqueues_first", [True, False])
def test_handlers_and_commands_on_the_same_subjects_neither_deadlock_nor_lose_a_wake_up(
    book: Ledger, enqueues_first: bool
) -> None:
    many = subjects(60)
    book.database.run("CREATE TABLE thing (id uuid PRIMARY KEY, wanted int, done int DEFAULT 0)")
    book.database.run("INSERT INTO thing SELECT unnest(CAST(:ids AS uuid[])), 0", ids=many)
    errors: list[BaseException] = []
    stop = threading.Event()

    def command(ids: Sequence[uuid.UUID]) -> None:
        change = text("UPDATE thing SET wanted = wanted + 1 WHERE id = :id")
        with book.engine.begin() as tx:
            for subject in ids:  # sorted, as every transaction locks subjects
                tx.execute(change, {"id": subject})
            ledger.enqueue(tx, "step", [(subject, HERE) for subject in reversed(ids)])

    def commands(part: Sequence[uuid.UUID]) -> None:
        for _ in range(40):
            command(part)

    def handle() -> None:
        while not stop.is_set():
            for message, _ in book.send(batch=20, cap=10_000):
                claim = book.claim(message)
                with book.engine.begin() as tx:
                    wanted = dict(
                        tx.execute(
                            text("""SELECT id, wanted FROM thing WHERE id = ANY(:ids)
                                 ORDER BY id FOR NO KEY UPDATE"""),
                            {"ids": claim.subjects},
                        ).all()
                    )
                    for subject, value in wanted.items():
                        tx.execute(
                            text("UPDATE thing SET done = :done WHERE id = :id"),
                            {"done": value, "id": subject},
                        )
                    ledger.finish(tx, claim, Outcome(done=claim.subjects))

    def guarded(work: object, *arguments: object) -> None:
        try:
            work(*arguments)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    handlers = [threading.Thread(target=guarded, args=(handle,)) for _ in range(2)]
    senders = [
        threading.Thread(target=guarded, args=(commands, part))
        for part in (many[:40], many[20:], many)
    ]
    for thread in (*senders, *handlers) if enqueues_first else (*handlers, *senders):
        thread.start()
    for thread in senders:
        thread.join()
    query = "SELECT count(*) FROM tasks"
    given.wait_until(lambda: errors or book.database.value(query) == 0, "all is handled")
    stop.set()
    for thread in handlers:
        thread.join()

    assert errors == []
    assert book.database.value("SELECT count(*) FROM thing WHERE done <> wanted") == 0
    assert book.database.value("SELECT count(*) FROM batches") == 0
