"""What a restart of the server, or of a pooler, leaves in the pool of a process that was idle."""

import pytest
from sqlalchemy import Engine, text

from schemas.database import connect
from tests.conftest import Database
from tests.support.given import wait_until

_END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'lost' AND pid <> pg_backend_pid()"
)
_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lost'"


@pytest.fixture
def engine(database: Database) -> Engine:
    return connect(database.url, application="lost")


def _fill(engine: Engine, connections: int) -> None:
    opened = [engine.connect() for _ in range(connections)]
    for one in opened:
        one.execute(text("SELECT 1"))
    for one in opened:
        one.close()


def test_first_statement_after_a_restart_does_not_fail(engine: Engine, database: Database) -> None:
    _fill(engine, 3)
    database.run(_END_OTHERS)
    wait_until(lambda: database.value(_OTHERS) == 0, "all are closed")

    for _ in range(4):
        with engine.begin() as tx:
            assert tx.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


def test_connection_to_which_the_server_said_something_is_kept(
    engine: Engine, database: Database
) -> None:
    with engine.connect() as tx:
        used = tx.connection.driver_connection
        tx.execute(text("LISTEN said"))
        tx.commit()
    database.run("NOTIFY said")

    with engine.connect() as tx:
        assert tx.connection.driver_connection is used
    engine.dispose()
