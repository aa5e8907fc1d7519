"""A ledger of the release before, with tasks in every state, under this one."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from producers import ledger
from producers.ledger import Outcome, dispatching
from schemas.database import MIGRATIONS, connect, migrate

READY, LATER, DISPATCHED, LEASED, FAILED = subjects = [uuid.UUID(int=n) for n in range(1, 6)]
TOKEN = uuid.UUID(int=99)

BEFORE = f"""
INSERT INTO routes VALUES ('web', 'step', 'driver:web');
INSERT INTO tasks (name, subject, queue, lane, state, run_at, starts, attempts, reason,
    rescue_at, lease_token, lease_until) VALUES
    ('step', '{READY}', 'web', 'driver:web', 'ready', now(), 0, 0, NULL, NULL, NULL, NULL),
    ('step', '{LATER}', 'web', 'driver:web', 'ready', now() + interval '1 hour', 0, 3, 'away',
        NULL, NULL, NULL),
    ('step', '{DISPATCHED}', 'web', 'driver:web', 'dispatched', now(), 0, 0, NULL,
        now() + interval '30 s', NULL, NULL),
    ('step', '{LEASED}', 'web', 'driver:web', 'leased', now(), 1, 0, NULL, NULL, '{TOKEN}',
        now() + interval '60 s'),
    ('step', '{FAILED}', 'web', 'driver:web', 'failed', now(), 0, 8, 'no', NULL, NULL, NULL);
"""

# As the release before says it, word for word.
ENQUEUE_BEFORE = text("""
    INSERT INTO tasks AS t (name, subject, queue, lane, run_at)
    SELECT 'step', CAST(:subject AS uuid), 'web', 'driver:web', clock_timestamp()
    ON CONFLICT (name, subject) DO UPDATE SET
        wanted = t.wanted + 1, queue = excluded.queue, lane = excluded.lane, attempts = 0,
        state = CASE WHEN t.state = 'leased' THEN 'leased' ELSE 'ready' END,
        dispatches = 0,
        run_at = CASE t.state
            WHEN 'leased' THEN t.run_at
            WHEN 'failed' THEN excluded.run_at
            ELSE least(t.run_at, excluded.run_at) END,
        starts = CASE WHEN t.state = 'failed' THEN 0 ELSE t.starts END,
        reason = NULL, error = NULL
""")
FINISH_BEFORE = text("""
    DELETE FROM tasks WHERE name = 'step' AND subject = :subject
      AND lease_token = :token AND state || '' = 'leased'
""")


@pytest.fixture
def upgraded(postgres: Any) -> Iterator[Engine]:
    name = f"ledger_{uuid.uuid4().hex[:8]}"
    postgres.ensure_database(name)
    engine = connect(postgres.url(name))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        connection.exec_driver_sql(BEFORE)
    migrate(engine, {})
    yield engine
    engine.dispose()
    postgres.drop_database(name)


def dispatched(engine: Engine) -> set[uuid.UUID]:
    with engine.begin() as tx:
        messages = dispatching.dispatch(tx, batch=lambda _: 10, cap=100, rescue_seconds=30)
        query = text("SELECT unnest(subjects) FROM batches WHERE id = ANY(:ids)")
        return set(tx.execute(query, {"ids": [message.batch for message in messages]}).scalars())


def state(engine: Engine, subject: uuid.UUID) -> tuple[Any, ...]:
    with engine.connect() as tx:
        query = text("SELECT state, batched, attempts, starts FROM tasks WHERE subject = :s")
        return tuple(tx.execute(query, {"s": subject}).one())


def test_what_was_ready_dispatched_or_leased_goes_out_once(upgraded: Engine) -> None:
    assert dispatched(upgraded) == {READY, DISPATCHED, LEASED}
    assert dispatched(upgraded) == set()


def test_what_waits_for_its_time_or_for_a_person_goes_on_waiting(upgraded: Engine) -> None:
    dispatched(upgraded)

    assert state(upgraded, LATER) == ("ready", False, 3, 0)
    assert state(upgraded, FAILED) == ("failed", False, 8, 0)


def test_a_worker_of_the_release_before_has_lost_its_lease(upgraded: Engine) -> None:
    with upgraded.begin() as tx:
        ended = tx.execute(FINISH_BEFORE, {"subject": LEASED, "token": TOKEN}).rowcount

    assert ended == 0
    assert state(upgraded, LEASED) == ("ready", False, 0, 0)  # as if it had never been started


@pytest.mark.parametrize("subject", [*subjects, uuid.UUID(int=6)])
def test_an_enqueue_of_the_release_before_is_not_lost(upgraded: Engine, subject: uuid.UUID) -> None:
    with upgraded.begin() as tx:
        tx.execute(ENQUEUE_BEFORE, {"subject": subject})

    assert subject in dispatched(upgraded)


def test_an_enqueue_of_the_release_before_is_seen_by_who_works_on_it(upgraded: Engine) -> None:
    with upgraded.begin() as tx:
        tx.execute(text("DELETE FROM tasks WHERE subject <> :s"), {"s": READY})
        (message,) = dispatching.dispatch(tx, batch=lambda _: 9, cap=9, rescue_seconds=30)
    with upgraded.begin() as tx:
        claim = ledger.claim(tx, "step", "web", [message.batch], seconds=60)
    with upgraded.begin() as tx:
        tx.execute(ENQUEUE_BEFORE, {"subject": READY})
    assert dispatched(upgraded) == set()  # one worker at a time

    with upgraded.begin() as tx:
        ledger.finish(tx, claim, Outcome(done=[READY]))

    assert dispatched(upgraded) == {READY}


def test_a_relay_of_the_release_before_is_refused(upgraded: Engine) -> None:
    with pytest.raises(IntegrityError), upgraded.begin() as tx:
        tx.execute(text("UPDATE tasks SET state = 'dispatched' WHERE state = 'ready'"))
