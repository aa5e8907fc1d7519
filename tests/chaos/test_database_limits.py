"""A fleet of real processes while its database runs out of something, or restarts in a commit.

The faults come one after the other over the same fleet, each under load. No process is started
again, nothing that was accepted is lost, and whoever fails says so once.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, ended, finish, send
from tests.support import given
from tests.support.given import wait_until

pytestmark = pytest.mark.rabbitmq

ORDERS, MORE = 60, 20
DISK = 320  # MiB


class Server(PrivatePostgres):
    """A server whose configuration changes while it runs."""

    def run(self, statement: str | sql.Composed) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            return list(cursor.fetchall()) if cursor.description else []

    def set(self, name: str, value: str | None) -> None:
        """Set it for all sessions; None: as it was."""
        named = sql.Identifier(name)
        reset, change = sql.SQL("ALTER SYSTEM RESET {}"), sql.SQL("ALTER SYSTEM SET {} = {}")
        self.run(reset.format(named) if value is None else change.format(named, sql.Literal(value)))
        self.run("SELECT pg_reload_conf()")

    def waiting(self, event: str) -> int:
        query = sql.SQL("SELECT count(*) FROM pg_stat_activity WHERE wait_event = {}")
        return int(str(self.run(query.format(sql.Literal(event)))[0][0]))

    def crash(self) -> None:
        """As a power cut."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """A folder on a file system of its own, where that can be had, and of a few MiB."""
    folder = Path(tempfile.mkdtemp(prefix="autorenew-test-"))
    folder.chmod(0o755)
    mount = ("mount", "-t", "tmpfs", "-o", f"size={DISK}m,mode=0755", "tmpfs", str(folder))
    is_mounted = (
        os.geteuid() == 0
        and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )
    yield folder
    if is_mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def postgres(disk: Path) -> Iterator[Server]:
    server = Server(disk / "postgresql", fast=True, buffers="64MB")
    with server:
        server.set("max_wal_size", "64MB")
        yield server


@pytest.fixture(scope="module")
def far_side() -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture(scope="module")
def fleet(
    postgres: Server,
    rabbitmq: PrivateRabbitMQ,
    far_side: Running,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PrivateFleet]:
    fleet = PrivateFleet(
        tmp_path_factory.mktemp("fleet"),
        postgres,
        rabbitmq,
        database="limits",
        simulator_url=far_side.url,
        call_seconds="1",
        lease_seconds="4",
        rescue_seconds="2",
        retry_base_seconds="0.1",
        shutdown_seconds="20",
        log_level="INFO",
    )
    fleet.prepare(given.CATALOGUE)
    fleet.start_all()
    fleet.wait_for_consumers()
    yield fleet
    fleet.close()


class Load:
    """Orders that are sent, from the first test on."""

    def __init__(self, fleet: PrivateFleet) -> None:
        self._fleet = fleet
        self.sent = 0

    def begin(self) -> None:
        """Send orders; returns while they are worked on."""
        send(self._fleet, ORDERS, f"from{self.sent}")
        before, self.sent = self.sent, self.sent + ORDERS
        self._fleet.wait_until(
            lambda: ended(self._fleet) > before + 5, TIMEOUT_SECONDS, "under load"
        )

    def more(self) -> None:
        """Send some orders more."""
        send(self._fleet, MORE, f"more{self.sent}")
        self.sent += MORE

    def check(self, far_side: Running) -> None:
        self._fleet.owner.dispose()  # the test's own connections ended as well
        finish(self._fleet, self.sent, far_side)
        members = self._fleet.members.values()
        assert all(member.deaths == 0 for member in members)
        assert self._fleet.scalar("SELECT count(*) FROM lane_pauses") == 0


@pytest.fixture(scope="module")
def load(fleet: PrivateFleet) -> Load:
    return Load(fleet)


@pytest.fixture(autouse=True)
def said(fleet: PrivateFleet) -> Iterator[None]:
    """What the processes say in a test has no traceback, and is said once."""
    sizes = {member.name: member.log.stat().st_size for member in fleet.members.values()}
    yield
    for member in fleet.members.values():
        text = member.log.read_bytes()[sizes[member.name] :].decode()
        assert "Traceback" not in text, text
        for loop in ("relay:", "scheduler:", "intake:"):
            lines = [one for one in text.splitlines() if f" {loop}" in one and "again in" in one]
            assert len(lines) <= 2, lines  # one outage, or two of different causes


def test_transactions_that_are_cut_because_they_are_idle_are_done_again(
    postgres: Server, load: Load, fleet: PrivateFleet, far_side: Running
) -> None:
    name = "idle_in_transaction_session_timeout"
    # Not the relay's: each time it is cut is an outage of its own, and said.
    roles = [f"autorenew_{role}" for role in ("orders", "billing", "provisioning")]
    alter = "ALTER ROLE {} IN DATABASE {} SET {} = {}"
    put = sql.SQL(alter)

    def limit(value: str) -> None:
        for role in roles:
            postgres.run(put.format(
                sql.Identifier(role), sql.Identifier(fleet.database), sql.Identifier(name),
                sql.Literal(value)))  # fmt: skip
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY({})"
        postgres.run(sql.SQL(cut).format(sql.Literal(roles)))  # sessions have what they began with

    def times() -> int:
        log = (postgres._folder / "log").read_bytes()
        return log.count(b"terminating connection due to idle-in-transaction timeout")

    load.begin()
    limit("3ms")
    try:
        for _ in range(15):
            if times() >= 5:
                break
            load.more()
            threading.Event().wait(2)
        assert times() >= 5
    finally:
        limit("60s")

    load.check(far_side)


def test_no_connection_is_left_for_a_while(
    postgres: Server, load: Load, fleet: PrivateFleet, far_side: Running
) -> None:
    load.begin()
    taken: list[psycopg.Connection[object]] = []
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'autorenew%'"
    fleet.owner.dispose()
    try:
        for _ in range(3):  # what a process of the fleet gave up is taken as well
            with contextlib.suppress(psycopg.OperationalError):
                while len(taken) < 250:
                    taken.append(psycopg.connect(postgres.url(), autocommit=True))
            assert taken
            taken[0].execute(cut)
        threading.Event().wait(3)
    finally:
        for connection in taken:
            connection.close()

    load.check(far_side)
    assert "too many clients already" in (postgres._folder / "log").read_text()


def test_server_that_restarts_while_it_commits_loses_nothing_and_doubles_nothing(
    postgres: Server, load: Load, far_side: Running
) -> None:
    """A commit that waits for a standby is in the log: its client never hears of it."""
    load.begin()
    postgres.set("synchronous_standby_names", "nobody")
    wait_until(lambda: postgres.waiting("SyncRep") >= 2, "commits wait", 30)
    postgres.run("ALTER SYSTEM RESET synchronous_standby_names")  # from the next start on

    postgres.crash()
    postgres.start()

    load.check(far_side)


def test_disk_that_is_full_of_its_log_stops_the_database_and_nothing_is_lost(
    postgres: Server, load: Load, disk: Path, far_side: Running
) -> None:
    if shutil.disk_usage(disk).total > 2 * DISK * 2**20:
        pytest.skip("a file system of a test's own needs root")
    load.begin()
    ballast = disk / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
    with contextlib.suppress(psycopg.OperationalError):
        for _ in range(20):  # on to files that there is no room for
            postgres.run("SELECT pg_logical_emit_message(false, '', repeat('x', 1000000))")
            postgres.run("SELECT pg_switch_wal()")
    log = postgres._folder / "log"
    wait_until(lambda: b"No space left on device" in log.read_bytes(), "there is no room", 30)

    wait_until(postgres.has_ended, "it gives up", 60)
    ballast.unlink()
    postgres.start()

    load.check(far_side)
    assert b"PANIC" in log.read_bytes()
