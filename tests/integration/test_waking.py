"""A relay that has nothing to do sleeps until an enqueue wakes it."""

import select
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import text

from autorenew.local.postgres import PrivatePostgres
from producers import ledger
from producers.ledger import Outcome, Place, dispatching
from producers.ledger.dispatching import Dispatch
from producers.relay import relay as relaying
from producers.relay import waking
from producers.relay.relay import Relay
from producers.relay.waking import Waker
from producers.steps import CHARGE, GATEWAY
from schemas.clock import SystemClock
from schemas.database import connect, migrate
from schemas.settings import load_settings
from tests.conftest import Database
from tests.support.given import wait_until

HERE = Place("web", "driver:web")
# A relay that only looks this seldom, and was not woken, fails the test.
SELDOM = 60.0


class Kept:
    """A transport that keeps what it is given and sleeps as it is told to."""

    def __init__(self) -> None:
        self.sent: list[Dispatch] = []
        self.sleeping = threading.Event()

    def publish(self, batch: Sequence[Dispatch]) -> set[str]:
        self.sent += batch
        return set()

    def idle(self, seconds: float, wake: int | None = None) -> None:
        if wake is not None:
            self.sleeping.set()
        select.select([] if wake is None else [wake], [], [], min(seconds, 20.0))
        self.sleeping.clear()

    def close(self) -> None: ...


@pytest.fixture
def transport(database: Database) -> Iterator[Kept]:
    """Of a relay that runs."""
    kept = Kept()
    settings = load_settings(poll_seconds=SELDOM)
    relay = Relay(database.engine("relay"), kept, settings, SystemClock())
    thread = threading.Thread(target=relay.run)
    thread.start()
    assert kept.sleeping.wait(20)
    yield kept
    relay.stop()
    enqueue(database)
    thread.join(30)
    assert not thread.is_alive()


def enqueue(database: Database, count: int = 1) -> None:
    with database.engine("orders").begin() as tx:
        ledger.enqueue(tx, CHARGE, [(uuid.uuid4(), GATEWAY) for _ in range(count)])


def test_an_enqueue_wakes_a_relay_that_sleeps(database: Database, transport: Kept) -> None:
    enqueue(database)

    wait_until(lambda: len(transport.sent) == 1, "the relay was woken", 10)


def test_a_relay_is_woken_again_and_again(database: Database, transport: Kept) -> None:
    for number in range(1, 6):
        enqueue(database)
        wait_until(lambda n=number: len(transport.sent) == n, "the relay was woken", 10)


def test_what_wakes_a_relay_is_the_commit(database: Database, transport: Kept) -> None:
    with database.engine("orders").begin() as tx:
        ledger.enqueue(tx, CHARGE, [(uuid.uuid4(), GATEWAY)])
        assert transport.sleeping.is_set()
        assert transport.sent == []

    wait_until(lambda: len(transport.sent) == 1, "the relay was woken", 10)


def test_a_notification_names_the_new_batches(database: Database) -> None:
    waker = Waker(database.engine("relay"))
    waker.ask(now=0.0)

    enqueue(database)
    enqueue(database)

    named: list[uuid.UUID] = []
    while len(named) < 2:  # they may arrive one after the other
        assert select.select([waker.fileno()], [], [], 10)[0]
        named += waker.drain()
    query = "SELECT array_agg(id ORDER BY id) FROM batches"
    assert sorted(named) == database.value(query)
    waker.close()


@pytest.mark.parametrize("payload", ["", "not a batch"])
def test_a_notification_that_names_no_batch_has_the_relay_look_for_itself(
    database: Database, payload: str
) -> None:
    waker = Waker(database.engine("relay"))
    waker.ask(now=0.0)

    with database.owner.begin() as tx:  # both arrive together
        ledger.enqueue(tx, CHARGE, [(uuid.uuid4(), GATEWAY)])
        tx.execute(text("SELECT pg_notify('ledger', :payload)"), {"payload": payload})

    assert select.select([waker.fileno()], [], [], 10)[0]
    assert waker.drain() == []
    waker.close()


def test_a_relay_that_is_woken_all_the_time_still_finds_what_falls_due(
    database: Database,
) -> None:
    kept = Kept()
    settings = load_settings(poll_seconds=0.02)
    relay = Relay(database.engine("relay"), kept, settings, SystemClock())
    relay.round()
    with database.engine("orders").begin() as tx:
        ledger.enqueue(tx, CHARGE, [(uuid.uuid4(), GATEWAY)], delay=0.05)

    def wake() -> int:
        enqueue(database)
        relay._woken = database.value("SELECT array_agg(id) FROM batches WHERE state = 'ready'")
        relay.round()
        return database.value("SELECT count(*) FROM tasks WHERE NOT batched") or 0

    wait_until(lambda: wake() == 0, "what fell due was dispatched", 10)


def test_relay_that_is_woken_for_all_there_is_looks_seldom(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "AT_REST_AFTER_SECONDS", 0.0)
    kept = Kept()
    relay = Relay(database.engine("relay"), kept, load_settings(poll_seconds=0.001), SystemClock())
    relay._waker.ask(now=time.monotonic())
    looks: list[float] = []
    look = relay._dispatch
    monkeypatch.setattr(relay, "_dispatch", lambda now: (looks.append(now), look(now))[1])

    started = time.monotonic()
    for number in range(1, 21):
        enqueue(database)
        relay._woken = database.value("SELECT array_agg(id) FROM batches WHERE state = 'ready'")
        relay.round()
        assert len(kept.sent) == number
    lasted = time.monotonic() - started

    assert len(looks) <= 1 + lasted / relaying.AT_REST_POLL_SECONDS
    relay._waker.close()


def test_backlog_is_not_left_because_its_queue_was_full(database: Database) -> None:
    """It is older than a short poll looks back."""
    kept = Kept()
    settings = load_settings(dispatch_cap=4, calls_at_once=4)
    relay = Relay(database.engine("relay"), kept, settings, SystemClock())
    enqueue(database, 12)
    for table in ("tasks", "batches"):
        database.run(f"UPDATE {table} SET run_at = now() - interval '1 hour'")

    relay.round()
    relay.round()
    assert sum(message.size for message in kept.sent) == 4  # its queue is full

    database.run("UPDATE batches SET state = 'leased' WHERE state = 'dispatched'")
    relay.round()

    assert sum(message.size for message in kept.sent) == 8


def test_backlog_that_grows_old_while_its_queue_is_full_is_not_left(database: Database) -> None:
    """It is young when its queue is filled up, and older than a short poll looks back later."""
    kept = Kept()
    settings = load_settings(dispatch_cap=4, calls_at_once=4)
    relay = Relay(database.engine("relay"), kept, settings, SystemClock())
    relay.round()  # a full look: the next one is not due soon
    enqueue(database, 12)

    relay.round()
    for table in ("tasks", "batches"):
        database.run(f"UPDATE {table} SET run_at = now() - interval '1 hour'")
    database.run("UPDATE batches SET state = 'leased' WHERE state = 'dispatched'")
    relay.round()

    assert sum(message.size for message in kept.sent) == 8


def test_nobody_notifies_a_relay_that_is_busy(database: Database, transport: Kept) -> None:
    asked = "SELECT count(*) FROM sleeping_relays"
    assert database.value(asked) == 1

    enqueue(database, 500)

    wait_until(lambda: database.value(asked) == 0, "the relay is busy", 10)
    wait_until(lambda: database.value(asked) == 1, "the relay sleeps again", 10)


def test_a_relay_whose_request_was_lost_asks_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is emptied by a crash of the database."""
    waker = Waker(database.engine("relay"))
    assert waker.ask(now=0.0)
    database.run("DELETE FROM sleeping_relays")

    assert not waker.ask(now=waking.ASK_FOR_SECONDS * 0.6)

    assert database.value("SELECT count(*) FROM sleeping_relays WHERE until > now()") == 1
    waker.close()


def test_a_crash_of_the_database_loses_no_task_and_repeats_none(tmp_path: Path) -> None:
    """Dispatch and claim do not wait for the disk: what a crash takes back is done again."""
    postgres = PrivatePostgres(tmp_path / "postgresql")
    postgres.start()
    try:
        postgres.ensure_database("crash")
        engine = connect(postgres.url("crash"))
        migrate(engine, {})
        subjects = [uuid.uuid4() for _ in range(40)]
        with engine.begin() as tx:
            ledger.enqueue(tx, "step", [(subject, HERE) for subject in subjects])
        with engine.begin() as tx:
            messages = dispatching.dispatch(tx, batch=lambda _: 10, cap=100, rescue_seconds=0.001)
        with engine.begin() as tx:
            held = ledger.claim(tx, "step", "web", [messages[0].batch], seconds=0.001)
        with engine.begin() as tx:
            done = ledger.claim(tx, "step", "web", [messages[1].batch], seconds=60)
        with engine.begin() as tx:
            ledger.finish(tx, done, Outcome(done=done.subjects))
        assert len(held.tasks) == 10

        postgres.kill()
        engine.dispose()
        postgres.start()
        engine = connect(postgres.url("crash"))

        found: list[uuid.UUID] = []

        def work() -> bool:
            with engine.begin() as tx:
                dispatching.rescue(tx)
                tx.execute(text("UPDATE tasks SET run_at = now() WHERE NOT batched"))
            with engine.begin() as tx:
                sent = dispatching.dispatch(tx, batch=lambda _: 10, cap=100, rescue_seconds=60)
            for message in sent:
                with engine.begin() as tx:
                    claim = ledger.claim(tx, "step", "web", [message.batch], seconds=60)
                with engine.begin() as tx:
                    ledger.finish(tx, claim, Outcome(done=claim.subjects))
                found.extend(claim.subjects)
            with engine.connect() as tx:
                return tx.execute(text("SELECT count(*) FROM tasks")).scalar_one() == 0

        wait_until(work, "all is done", 30)
        assert sorted(found) == sorted(set(subjects) - set(done.subjects))
        with engine.connect() as tx:
            assert tx.execute(text("SELECT count(*) FROM batches")).scalar_one() == 0
        engine.dispose()
    finally:
        postgres.remove()
