"""Through PgBouncer in transaction mode, where each transaction may get another session."""

import multiprocessing
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from autorenew.local.postgres import PrivatePostgres
from producers.relay.waking import Waker
from schemas.database import check_schema, connect, migrate
from tests.conftest import Database
from tests.support.pgbouncer import PgBouncer


@pytest.fixture
def pooler(postgres: PrivatePostgres, tmp_path: Path) -> Iterator[PgBouncer]:
    # Without support for prepared statements: as before 1.21, and as it can be set since.
    pooler = PgBouncer(
        tmp_path / "pgbouncer", postgres, size=1, extra="max_prepared_statements = 0"
    )
    pooler.start()
    yield pooler
    pooler.stop()


def count(url: str, what: int, times: int, answers: Any) -> None:
    engine = connect(url)
    found = set()
    for _ in range(times):  # a statement is prepared at its fifth time
        with engine.begin() as tx:
            if what:
                found.add(tx.execute(text("SELECT CAST(:n AS integer)"), {"n": what}).scalar_one())
            else:
                found.add(tx.execute(text("SELECT :a || :b"), {"a": "0", "b": "0"}).scalar_one())
    engine.dispose()
    answers.put((what, found))


def test_processes_that_share_a_session_do_not_get_answers_to_statements_of_others(
    database: Database, pooler: PgBouncer
) -> None:
    url = pooler.role_url(database.name, "relay")
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    processes = [spawn.Process(target=count, args=(url, n, 200, answers)) for n in range(2)]
    for process in processes:
        process.start()

    found = dict(answers.get(timeout=60) for _ in processes)

    for process in processes:
        process.join(60)
    assert found == {0: {"00"}, 1: {1}}


def test_session_behind_the_pooler_has_the_settings_of_its_role(
    database: Database, pooler: PgBouncer
) -> None:
    engine = connect(pooler.role_url(database.name, "relay"))

    check_schema(engine)

    with engine.connect() as tx:
        names = ("TimeZone", "jit", "statement_timeout", "idle_in_transaction_session_timeout")
        names += ("enable_seqscan",)
        shown = [tx.execute(text(f"SHOW {name}")).scalar_one() for name in names]
        moment = tx.execute(text("SELECT timestamptz '2026-01-01 00:00+00'")).scalar_one()
    assert shown == ["UTC", "off", "25s", "1min", "off"]
    assert moment == datetime(2026, 1, 1, tzinfo=UTC)
    engine.dispose()


def test_database_is_migrated_through_the_pooler(
    postgres: PrivatePostgres, pooler: PgBouncer
) -> None:
    postgres.ensure_database("pooled")
    owner = connect(pooler.url("pooled", "postgres"))
    try:
        for _ in range(2):
            migrate(owner, {})
        check_schema(owner)
    finally:
        owner.dispose()
        postgres.drop_database("pooled")


def test_relay_behind_a_pooler_looks_for_itself_and_asks_nobody_to_wake_it(
    database: Database, pooler: PgBouncer
) -> None:
    engine = connect(pooler.role_url(database.name, "relay"))
    waker = Waker(engine)

    assert not waker.ask(now=0.0)

    assert waker.fileno() is None
    assert waker.drain() == []
    assert database.value("SELECT count(*) FROM sleeping_relays") == 0
    waker.close()
    engine.dispose()


def test_statements_are_prepared_on_a_direct_connection_only(
    database: Database, pooler: PgBouncer
) -> None:
    for url, is_prepared in (
        (database.engine("relay").url.render_as_string(hide_password=False), True),
        (pooler.role_url(database.name, "relay"), False),
    ):
        engine = connect(url.replace("+psycopg", ""))
        with engine.begin() as tx:
            for n in range(10):
                tx.execute(text("SELECT CAST(:n AS integer)"), {"n": n})
            prepared = tx.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
        assert (prepared > 0) is is_prepared
        engine.dispose()
