"""A database that cannot be used is refused in one line, with exit code 2."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from autorenew.local.ports import free_port
from autorenew.local.postgres import PrivatePostgres
from schemas.database import connect, migrate
from tests.conftest import Database

Refused = Callable[..., str]


@pytest.fixture
def refused() -> Refused:
    """Runs a command and returns the one line that it prints."""

    def run(command: str, url: str, **settings: str) -> str:
        given = {k: v for k, v in os.environ.items() if not k.startswith(("AUTORENEW_", "PG"))}
        given |= {f"AUTORENEW_{name.upper()}": value for name, value in settings.items()}
        done = subprocess.run(
            [sys.executable, "-m", "autorenew", *command.split()],
            env=given | {"AUTORENEW_DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert "hunter2" not in done.stderr
        (line,) = done.stderr.splitlines()
        return line

    return run


COMMANDS = ["scheduler", "lanes list", "migrate", "audit", "worker orders"]
BROKER = {"broker_url": "amqp://u:p@127.0.0.1:1/"}


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_host(refused: Refused, command: str) -> None:
    line = refused(command, "postgresql://u:hunter2@nowhere.invalid/d?sslmode=require", **BROKER)
    assert "failed to resolve host 'nowhere.invalid'" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_several_hosts_of_which_none_answers(refused: Refused, command: str) -> None:
    ports = free_port(), free_port()
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    line = refused(command, f"postgresql://u:hunter2@{hosts}/d", **BROKER)
    for port in ports:
        assert line.count(f"port {port} failed: Connection refused") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_password(database: Database, refused: Refused, command: str) -> None:
    url = database.url.replace(f":{database.owner.url.password}@", ":hunter2@")
    assert "password authentication failed" in refused(command, url, **BROKER)


@pytest.mark.parametrize("command", COMMANDS)
def test_certificate_authority_that_is_not_there(
    database: Database, refused: Refused, command: str
) -> None:
    url = f"{database.url}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem"
    line = refused(command, url, **BROKER)
    assert 'root certificate file "/nowhere/ca.pem" does not exist' in line or (
        "server does not support SSL" in line
    )


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def not_utf8(request: Any, postgres: PrivatePostgres) -> Iterator[tuple[str, str]]:
    name = f"in_{request.param.lower()}"
    with psycopg.connect(postgres.url(), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} ENCODING '{request.param}' TEMPLATE template0")
    yield request.param, postgres.url(name)
    postgres.drop_database(name)


@pytest.mark.parametrize("command", ["migrate", "scheduler"])
def test_database_that_is_not_in_utf8(
    not_utf8: tuple[str, str], refused: Refused, command: str
) -> None:
    encoding, url = not_utf8
    line = refused(command, url)
    assert f"the database has the encoding {encoding}, and must have UTF8" in line
    with psycopg.connect(url) as tx:
        found = tx.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 2200").fetchone()
    assert found == (0,)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER DATABASE {} SET timezone = 'Europe/Prague'",
        "ALTER ROLE autorenew_scheduler IN DATABASE {} SET statement_timeout = 0",
        "ALTER ROLE autorenew_scheduler IN DATABASE {} RESET ALL",
    ],
)
def test_session_that_lacks_its_settings(
    database: Database, postgres: PrivatePostgres, refused: Refused, change: str
) -> None:
    database.run(change.format(database.name))
    url = postgres.role_url(database.name, "scheduler")
    if "timezone" in change:  # it can be set by a session, and is
        engine = connect(url)
        with engine.connect() as tx:
            assert tx.exec_driver_sql("SHOW TimeZone").scalar_one() == "UTC"
        engine.dispose()
        return

    line = refused("scheduler", url)

    assert "sessions of autorenew_scheduler in this database" in line
    assert "run `autorenew migrate`" in line


def test_timeout_that_an_administrator_chose_stays(
    database: Database, postgres: PrivatePostgres
) -> None:
    name = database.name
    database.run(f"ALTER ROLE autorenew_relay IN DATABASE {name} SET statement_timeout = '7s'")
    database.run(f"ALTER ROLE autorenew_orders IN DATABASE {name} RESET statement_timeout")

    migrate(database.owner, {})

    for role, expected in (("relay", "7s"), ("orders", "25s"), ("readonly", "6h")):
        with database.engine(role).connect() as tx:
            assert tx.exec_driver_sql("SHOW statement_timeout").scalar_one() == expected
