"""A server or a proxy that stays open and says nothing holds nobody up for ever."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from autorenew.local.postgres import PrivatePostgres
from producers.loop import Loop
from schemas.connections import ServerSilent
from schemas.database import connect, is_circumstance
from tests.conftest import Database
from tests.integration.test_runtime import Inside, World
from tests.support.given import wait_until
from tests.support.silence import Silence

# The server's deadline is 1 s here, and the client gives it 5 s more.
LIMIT = 6.0


@pytest.fixture
def proxy(postgres: PrivatePostgres, database: Database) -> Iterator[Silence]:
    database.run(
        f"ALTER ROLE autorenew_relay IN DATABASE {database.name} SET statement_timeout = '1s'"
    )
    port = psycopg.conninfo.conninfo_to_dict(postgres.url())["port"]
    proxy = Silence(int(str(port)))
    yield proxy
    proxy.close()


@pytest.fixture
def engine(postgres: PrivatePostgres, database: Database, proxy: Silence) -> Iterator[Engine]:
    url = postgres.role_url(database.name, "relay")
    port = psycopg.conninfo.conninfo_to_dict(url)["port"]
    engine = connect(url.replace(f":{port}/", f":{proxy.port}/"))
    yield engine
    engine.dispose()


def ask(engine: Engine) -> Any:
    with engine.connect() as tx:
        return tx.execute(text("SELECT 1")).scalar_one()


def test_wait_ends_soon_after_the_servers_own_deadline(engine: Engine, proxy: Silence) -> None:
    assert ask(engine) == 1
    proxy.fall_silent()
    started = time.monotonic()

    with pytest.raises(OperationalError) as raised:
        ask(engine)

    assert LIMIT <= time.monotonic() - started < LIMIT + 20
    assert isinstance(raised.value.orig, ServerSilent)
    assert str(raised.value.orig) == "the database has not answered for 6 s"
    assert is_circumstance(raised.value)
    assert raised.value.connection_invalidated


def test_new_connection_is_not_waited_for_either(engine: Engine, proxy: Silence) -> None:
    proxy.fall_silent()
    started = time.monotonic()

    with pytest.raises(OperationalError):
        ask(engine)

    assert time.monotonic() - started < 20


def test_all_that_wait_are_freed_and_work_goes_on_when_the_server_speaks_again(
    engine: Engine, proxy: Silence, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = [0] * 4

    def turn(number: int) -> Any:
        def round() -> float:
            ask(engine)
            rounds[number] += 1
            return 0.01

        return round

    loops = [Loop(f"loop {n}", turn(n)) for n in range(4)]
    threads = [threading.Thread(target=loop.run) for loop in loops]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(rounds), "they work")

    with caplog.at_level(logging.WARNING):
        proxy.fall_silent()
        wait_until(lambda: len(caplog.records) >= 4, "each says so in one line", LIMIT + 10)
        proxy.speak()
        before = list(rounds)
        wait_until(
            lambda: all(new > old for new, old in zip(rounds, before, strict=True)), "they go on"
        )

    for loop in loops:
        loop.stop()
    for thread in threads:
        thread.join()
    assert all(
        record.exc_info is None or record.exc_info == (None,) * 3 or record.exc_info is False
        for record in caplog.records
    )
    assert any("has not answered for 6 s" in record.getMessage() for record in caplog.records)


def test_batch_whose_statement_got_no_answer_is_done_later(
    database: Database, engine: Engine, proxy: Silence
) -> None:
    world = World(database)
    subjects = world.enqueue(3)
    database.run("GRANT INSERT ON done TO autorenew_relay")
    database.run("GRANT ALL ON ALL TABLES IN SCHEMA public TO autorenew_relay")
    runtime = world.runtime()
    runtime._engine = runtime._transactions._engine = engine

    def run(_tx: Any, _claim: Any) -> None:
        proxy.fall_silent()
        threading.Timer(LIMIT + 2, proxy.speak).start()

    (message,) = world.messages()
    runtime.handle(Inside(run), "web", message)

    assert world.done() == []
    wait_until(lambda: world.tasks() == [("ready", "interrupted", 0)] * 3, "they are put back")
    world.deliver(Inside(lambda *_: None), world.runtime())
    assert world.done() == subjects


def test_statement_that_is_allowed_to_take_long_is_waited_for(
    engine: Engine, database: Database
) -> None:
    patient = connect(engine.url.render_as_string(hide_password=False), patient=True)

    with patient.connect() as tx:
        tx.execute(text("SELECT pg_sleep(7)"))
        assert tx.execute(text("SHOW statement_timeout")).scalar_one() == "6h"
    patient.dispose()

    with pytest.raises(OperationalError, match="statement timeout"), engine.connect() as tx:
        tx.execute(text("SELECT pg_sleep(7)"))
