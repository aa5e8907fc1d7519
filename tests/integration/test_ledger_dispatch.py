"""The task ledger's protocol, on a real PostgreSQL: a relay's side."""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from producers import ledger
from producers.ledger import (
    MAX_STARTS,
    Outcome,
    Place,
    dispatching,
)
from tests.conftest import Database
from tests.support.given import wait_until
from tests.support.ledger import Ledger, subjects


@pytest.fixture
def book(database: Database) -> Iterator[Ledger]:
    book = Ledger(database)
    yield book
    assert book.misplaced() == []


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


def test_tasks_that_are_asked_for_again_while_they_are_gathered_are_in_one_batch_each(
    book: Ledger,
) -> None:
    """Whether it was gathered before or after, nothing is gathered twice and nothing is left."""
    many = subjects(60)
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            for first in range(0, len(many), 20):
                book.enqueue(*many[first : first + 20], delay=0.001)

    def relay() -> None:
        while not is_over.is_set():
            book.rescue()
            for message, _ in book.send(batch=7):
                claim = book.claim(message)
                book.finish(claim, Outcome(done=list(claim.subjects)))

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(work) for work in (ask, ask, relay)]
        time.sleep(2)
        is_over.set()
        for one in running:
            one.result()
    assert book.misplaced() == []
    wait_until(lambda: drained(book), "nothing is left", 20)


def drained(book: Ledger) -> bool:
    for message, _ in book.send():
        claim = book.claim(message)
        book.finish(claim, Outcome(done=list(claim.subjects)))
    return book.database.value("SELECT count(*) FROM tasks") == 0
