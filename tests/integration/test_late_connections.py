"""A connection that is given back after its engine was disposed of is closed, and not forgotten."""

import gc
import threading
import warnings
from typing import Any

import pytest
from sqlalchemy import Engine, text

from schemas.database import connect
from tests.conftest import Database
from tests.support.given import wait_until


@pytest.fixture
def engine(database: Database) -> Engine:
    return connect(database.url)


def test_connection_that_comes_back_late_is_closed(engine: Engine) -> None:
    with engine.connect() as tx:
        tx.execute(text("SELECT 1"))
        used: Any = tx.connection.driver_connection
        engine.dispose()
        assert not used.closed

    assert used.closed


def test_nothing_is_left_to_the_garbage_collector(engine: Engine) -> None:
    """Without the one above it warns, which is an error in these tests, of whichever comes next."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with engine.connect() as tx:
            tx.execute(text("SELECT 1"))
            engine.dispose()
        del tx
        gc.collect()

    assert [str(w.message) for w in warned] == []


def test_engine_is_usable_after_it_was_disposed_of(engine: Engine) -> None:
    engine.dispose()
    with engine.connect() as tx:
        used: Any = tx.connection.driver_connection
        assert tx.execute(text("SELECT 1")).scalar_one() == 1

    assert not used.closed
    with engine.connect() as tx:
        assert tx.connection.driver_connection is used
    engine.dispose()
    assert used.closed


def test_connections_of_threads_that_go_on_are_closed_one_and_all(
    engine: Engine, database: Database
) -> None:
    is_over, opened = threading.Event(), []

    def work() -> None:
        while not is_over.is_set():
            with engine.connect() as tx:
                opened.append(tx.connection.driver_connection)
                tx.execute(text("SELECT 1"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        engine.dispose()
    is_over.set()
    for thread in threads:
        thread.join()
    engine.dispose()

    assert opened
    assert [connection for connection in opened if not connection.closed] == []
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND pid <> :own"
    own = database.value("SELECT pg_backend_pid()")
    wait_until(lambda: database.value(query, name=database.name, own=own) == 0, "sessions end")
