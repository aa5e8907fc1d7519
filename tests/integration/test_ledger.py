"""The task ledger's protocol, on a real PostgreSQL."""

import threading
import uuid
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import text

from producers import ledger
from producers.ledger import (
    MAX_STARTS,
    Claim,
    Failure,
    LeaseLost,
    Outcome,
    Place,
    Retry,
    dispatching,
)
from tests.conftest import Database
from tests.support import given

HERE = Place("web", "driver:web")


class Ledger:
    """The protocol's steps, each in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.engine = database.owner

    def enqueue(self, *subjects: uuid.UUID, place: Place = HERE, delay: float = 0.0) -> None:
        with self.engine.begin() as tx:
            ledger.enqueue(tx, "step", [(s, place) for s in subjects], delay=delay)

    def send(
        self, *, batch: int = 100, cap: int = 1000, horizon: float = 1e9
    ) -> list[tuple[uuid.UUID, list[uuid.UUID]]]:
        """Dispatch; the id of each message's batch, and the subjects in it."""
        with self.engine.begin() as tx:
            messages = dispatching.dispatch(
                tx, batch=lambda _: batch, cap=cap, rescue_seconds=30, horizon=horizon
            )
        query = "SELECT subjects FROM batches WHERE id = :id"
        sent = [(m.batch, list(self.database.value(query, id=m.batch) or [])) for m in messages]
        assert [m.size for m in messages] == [len(subjects) for _, subjects in sent]
        return sent

    def dispatch(self, *, batch: int = 100, cap: int = 1000) -> list[list[uuid.UUID]]:
        return [subjects for _, subjects in self.send(batch=batch, cap=cap)]

    def batch_of(self, subject: uuid.UUID) -> uuid.UUID:
        query = "SELECT id FROM batches WHERE :subject = ANY(subjects)"
        return uuid.UUID(str(self.database.value(query, subject=subject)))

    def claim(self, *batches: uuid.UUID, seconds: float = 60.0) -> Claim:
        with self.engine.begin() as tx:
            return ledger.claim(tx, "step", "web", batches, seconds=seconds)

    def take(self, subject: uuid.UUID, *_: uuid.UUID, seconds: float = 60.0) -> Claim:
        """Dispatch and claim the batch of ``subject``."""
        self.dispatch()
        return self.claim(self.batch_of(subject), seconds=seconds)

    def state(self, subject: uuid.UUID) -> str | None:
        """Of its batch, or of the task if it is in none."""
        query = """SELECT coalesce(b.state, t.state) FROM tasks AS t
                LEFT JOIN batches AS b ON t.subject = ANY(b.subjects) WHERE t.subject = :s"""
        value = self.database.value(query, s=subject)
        return str(value) if value else None

    def misplaced(self) -> list[uuid.UUID]:
        """Tasks that are not in exactly one batch while they say so, or in one otherwise."""
        query = """
            SELECT t.subject FROM tasks AS t LEFT JOIN batches AS b
              ON b.name = t.name AND t.subject = ANY(b.subjects)
            GROUP BY t.name, t.subject, t.batched
            HAVING count(b.id) <> CAST(t.batched AS integer)"""
        return [row[0] for row in self.database.all(query)]

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        with self.engine.begin() as tx:
            ledger.finish(tx, claim, outcome)

    def rescue(self) -> tuple[int, int]:
        with self.engine.begin() as tx:
            return dispatching.rescue(tx)

    def row(self, subject: uuid.UUID) -> dict[str, object] | None:
        query = """SELECT *, run_at <= now() AS due, extract(epoch FROM run_at - now()) AS wait
                FROM tasks WHERE subject = :subject"""
        rows = self.database.all(query, subject=subject)
        return dict(rows[0]._mapping) if rows else None


@pytest.fixture
def book(database: Database) -> Iterator[Ledger]:
    book = Ledger(database)
    yield book
    assert book.misplaced() == []


def subjects(count: int) -> list[uuid.UUID]:
    return sorted(uuid.uuid4() for _ in range(count))


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


def test_unclaimed_task_is_rescued_later_each_time(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    waits = []
    for _ in range(3):
        book.dispatch()
        query = "SELECT extract(epoch FROM until - now()) FROM batches"
        waits.append(round(float(book.database.value(query)) / 30))
        book.database.run("UPDATE batches SET until = now() - interval '1 s'")
        assert book.rescue() == (1, 0)

    assert waits == [1, 2, 4]


def test_subject_whose_first_start_did_not_finish_is_dispatched_alone(book: Ledger) -> None:
    bad, good, other = subjects(3)
    book.enqueue(bad)
    book.take(bad, seconds=-1)
    book.rescue()
    book.database.run("UPDATE tasks SET run_at = now()")
    book.enqueue(good, other)

    messages = book.dispatch()

    assert {frozenset(message) for message in messages} == {
        frozenset([bad]),
        frozenset([good, other]),
    }


def test_subject_that_never_finishes_fails_as_crashed(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)

    for _ in range(MAX_STARTS):
        assert book.row(one)["state"] == "ready"
        book.take(one, seconds=-1)
        book.rescue()
        book.database.run("UPDATE tasks SET run_at = now()")

    assert (book.row(one)["state"], book.row(one)["reason"]) == ("failed", "crashed")


def test_subjects_that_were_lost_together_do_not_come_back_together(book: Ledger) -> None:
    """Else whoever runs beside a subject that kills its process dies with it every time."""
    many = subjects(50)
    book.enqueue(*many)
    book.take(*many, seconds=-1)

    book.rescue()

    assert book.database.value("SELECT count(DISTINCT run_at) FROM tasks") == 50


def test_released_task_counts_no_start_and_no_attempt(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    claim = book.take(one)

    with book.engine.begin() as tx:
        ledger.release(tx, claim, reason="interrupted")

    row = book.row(one)
    assert (row["state"], row["starts"], row["attempts"]) == ("ready", 0, 0)


def test_a_paused_lane_is_not_touched(book: Ledger) -> None:
    one, two = subjects(2)
    book.enqueue(one)
    book.enqueue(two, place=Place("web", "driver:other"))
    book.database.run("INSERT INTO lane_pauses VALUES ('driver:web', 'test')")

    assert book.dispatch() == [[two]]
    book.database.run("DELETE FROM lane_pauses")
    assert book.dispatch() == [[one]]


def test_a_queue_holds_no_more_than_its_cap(book: Ledger) -> None:
    many = subjects(50)
    book.enqueue(*many)

    first = book.send(batch=5, cap=10)
    assert [len(message) for _, message in first] == [5, 5]
    assert book.dispatch(cap=10) == []

    book.claim(first[0][0])
    assert sum(map(len, book.dispatch(cap=10))) == 5


def test_one_lane_does_not_starve_another(book: Ledger) -> None:
    crowd, few = subjects(200), subjects(3)
    book.enqueue(*crowd)
    book.enqueue(*few, place=Place("web", "driver:other"))

    dispatched = {s for message in book.dispatch(cap=20) for s in message}

    assert dispatched >= set(few)
    assert len(dispatched) == 20


def test_a_message_holds_at_most_the_handlers_batch(book: Ledger) -> None:
    book.enqueue(*subjects(25))

    assert [len(message) for message in book.dispatch(batch=10)] == [10, 10, 5]


def test_relays_that_run_at_once_share_the_work(book: Ledger) -> None:
    many = subjects(600)
    book.enqueue(*many)
    found: list[uuid.UUID] = []

    def relay() -> None:
        while messages := book.dispatch(batch=7, cap=10_000):
            found.extend(s for message in messages for s in message)

    threads = [threading.Thread(target=relay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == many


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


def send_new(book: Ledger, *ids: uuid.UUID, most: int = 100, cap: int = 1000) -> list[uuid.UUID]:
    with book.engine.begin() as tx:
        sent = dispatching.dispatch_new(tx, ids, most=most, cap=cap, rescue_seconds=30)
    return [message.batch for message in sent]


def test_a_new_batch_is_dispatched_by_its_name_once(book: Ledger) -> None:
    one, other = subjects(2)
    book.enqueue(one)
    book.enqueue(other)
    batch = book.batch_of(one)

    assert send_new(book, batch, uuid.uuid4()) == [batch]
    assert send_new(book, batch) == []
    assert (book.state(one), book.state(other)) == ("dispatched", "ready")
    assert book.claim(batch).subjects == [one]


def test_a_new_batch_waits_for_a_lane_that_is_paused(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    book.database.run("INSERT INTO lane_pauses (lane, reason) VALUES ('driver:web', 'test')")

    assert send_new(book, book.batch_of(one)) == []


def test_a_new_batch_waits_when_its_queue_is_half_full(book: Ledger) -> None:
    waiting, new = subjects(4), subjects(1)
    book.enqueue(*waiting)
    assert len(send_new(book, book.batch_of(waiting[0]), cap=8)) == 1
    book.enqueue(*new)

    assert send_new(book, book.batch_of(new[0]), cap=8) == []
    assert len(send_new(book, book.batch_of(new[0]), cap=9)) == 1


def test_a_new_batch_that_is_larger_than_a_message_waits_to_be_cut(book: Ledger) -> None:
    new = subjects(3)
    book.enqueue(*new)

    assert send_new(book, book.batch_of(new[0]), most=2) == []
    assert [len(part) for part in book.dispatch(batch=2)] == [2, 1]


def test_what_came_to_no_end_is_never_dispatched_as_new(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    book.database.run("UPDATE batches SET starts = 1")

    assert send_new(book, book.batch_of(one)) == []


def test_pause_also_stops_dispatched_tasks(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    book.dispatch()
    book.database.run("INSERT INTO lane_pauses VALUES ('driver:web', 'test')")

    assert book.claim(book.batch_of(one)).tasks == ()
    book.database.run("DELETE FROM lane_pauses")
    assert book.claim(book.batch_of(one)).subjects == [one]


def test_a_queue_has_one_suspect_under_way_at_a_time(book: Ledger) -> None:
    many = subjects(4)
    book.enqueue(*many)
    claim = book.take(*many)
    with book.engine.begin() as tx:
        ledger.release(tx, claim, reason="test")
    book.database.run("UPDATE tasks SET starts = 3 WHERE subject <> :s", s=many[0])

    first = [s for message in book.dispatch() for s in message]
    assert len(first) == 2
    assert many[0] in first
    assert book.dispatch() == []

    (suspect,) = [s for s in first if s != many[0]]
    claim = book.claim(book.batch_of(suspect))
    assert book.dispatch() == []
    book.finish(claim, Outcome(done=[suspect]))
    assert len(book.dispatch()) == 1


def test_a_suspect_whose_lane_was_paused_does_not_hold_up_its_queue(book: Ledger) -> None:
    elsewhere = Place("web", "driver:other")
    (paused,), (other,) = subjects(1), subjects(1)
    book.enqueue(paused)
    book.enqueue(other, place=elsewhere)
    book.database.run("UPDATE batches SET starts = 3")
    book.database.run("UPDATE batches SET state = 'dispatched', until = now() + interval '1 hour'"
                      " WHERE lane = 'driver:web'")  # fmt: skip
    assert book.dispatch() == []

    book.database.run("INSERT INTO lane_pauses (lane, reason) VALUES ('driver:web', 'test')")

    assert book.dispatch() == [[other]]


def test_undispatched_task_is_ready_at_once_and_counts_no_dispatch(
    book: Ledger,
) -> None:
    one, two = subjects(2)
    book.enqueue(one, two)
    with book.engine.begin() as tx:
        messages = dispatching.dispatch(tx, batch=lambda _: 1, cap=10, rescue_seconds=30)
    claim = book.claim(book.batch_of(two))  # it got this one after all

    with book.engine.begin() as tx:
        dispatching.undispatch(tx, messages)

    query = "SELECT dispatches FROM batches WHERE :s = ANY(subjects)"
    assert (book.state(one), book.database.value(query, s=one)) == ("ready", 0)
    assert book.state(two) == "leased"
    assert book.dispatch() == [[one]]
    book.finish(claim, Outcome(done=[two]))


def hand_back(book: Ledger, *batches: uuid.UUID) -> float:
    """Returns the seconds until they may be dispatched again."""
    with book.engine.begin() as tx:
        dispatching.hand_back(tx, batches, shortest=0.5, longest=4.0)
        durable = tx.execute(text("SHOW synchronous_commit")).scalar_one()
    assert durable == "off"
    query = "SELECT extract(epoch FROM until - now()) FROM batches WHERE id = :id"
    return float(book.database.value(query, id=batches[0]))


def test_what_is_handed_back_waits_longer_each_time_up_to_a_limit(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    delays = []
    for age in (0, 3, 5, 60):
        book.database.run(
            "UPDATE batches SET until = NULL, run_at = now() - make_interval(secs => :age)", age=age
        )
        ((message, _),) = book.send()
        delays.append(round(hand_back(book, message), 1))
        assert book.dispatch() == []

    assert delays == [0.5, 1.5, 2.5, 4.0]


def test_what_was_handed_back_goes_out_before_what_is_younger(book: Ledger) -> None:
    old, young, youngest = subjects(3)
    book.enqueue(old)
    ((message, _),) = book.send()
    hand_back(book, message)
    book.enqueue(young)
    assert book.dispatch() == [[young]]
    book.enqueue(youngest)

    book.database.run("UPDATE batches SET until = now() WHERE state = 'ready'")

    assert book.dispatch(batch=1) == [[old], [youngest]]


def test_what_was_handed_back_is_rescued_as_soon_as_any_other_message(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    for _ in range(3):
        ((message, _),) = book.send()
        rescue = book.database.value("SELECT extract(epoch FROM until - now()) FROM batches")
        hand_back(book, message)
        book.database.run("UPDATE batches SET until = now()")

    assert 25 < rescue <= 30


def test_what_does_not_fit_into_a_message_is_ready_at_once(book: Ledger) -> None:
    many = subjects(5)
    book.enqueue(*many)

    assert book.dispatch(batch=3, cap=3) == [many[:3]]
    book.claim(book.batch_of(many[0]))

    assert book.dispatch(batch=3, cap=3) == [many[3:]]


def test_short_poll_leaves_older_tasks_to_the_full_scan(book: Ledger) -> None:
    (one,) = subjects(1)
    book.enqueue(one)
    book.database.run("UPDATE batches SET run_at = now() - interval '1 minute'")

    assert book.send(horizon=5.0) == []
    assert book.dispatch() == [[one]]


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
