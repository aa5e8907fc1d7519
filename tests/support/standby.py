"""A primary with a streaming standby that can take its place."""

import contextlib
import signal
from pathlib import Path

import psycopg

from autorenew.local.ports import free_port
from autorenew.local.postgres import PrivatePostgres
from tests.support.given import wait_until


class Server(PrivatePostgres):
    """One of several servers with the same databases; its URL names all of them."""

    def __init__(
        self, folder: Path, ports: list[int], own: int, install: Path | None = None
    ) -> None:
        super().__init__(folder, port=ports[own], fast=True, install=install)
        self._ports = ports
        self.listen_on = ports[own]

    def own_url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{self._password()}@127.0.0.1:{self.listen_on}/{database}"

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "") -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"postgresql://{user}:{password or self._password()}@{hosts}/{database}"

    def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """As the superuser, on this very server."""
        with psycopg.connect(self.own_url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    def _wait_until_up(self) -> None:
        def is_up() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.own_url(), connect_timeout=2).close()
                return True
            return False

        wait_until(is_up, "the server is up", 30)


class Pair:
    """Two servers: the second follows the first, until it is promoted.

    Args:
        synchronous: a commit waits until the standby has it.
        install: of another version of PostgreSQL.
    """

    def __init__(self, folder: Path, *, synchronous: bool, install: Path | None = None) -> None:
        ports = [free_port(), free_port()]
        self.primary = Server(folder / "primary", ports, 0, install)
        self.standby = Server(folder / "standby", ports, 1, install)
        self._synchronous = synchronous

    def start(self) -> None:
        self.primary.start()
        self._follow(self.standby, self.primary)

    def _follow(self, standby: Server, primary: Server) -> None:
        secret = standby._folder / "password"
        secret.write_text(primary._password())
        standby._run(
            "pg_basebackup",
            *("-d", primary.own_url(), "-D", str(standby._data), "-R", "-X", "stream"),
            *("-c", "fast", "--no-sync"),
        )
        standby.start()
        if self._synchronous:
            primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.run("SELECT pg_reload_conf()")
        self.wait_until_streaming()

    def wait_until_streaming(self) -> None:
        query = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(lambda: bool(self.primary.run(query)), "the standby follows", 30)

    def cut_off(self) -> None:
        """Have the standby follow no more: what is committed from here on, it does not get."""
        self.standby.run("ALTER SYSTEM SET primary_conninfo = ''")
        self.standby.run("SELECT pg_reload_conf()")
        query = "SELECT 1 FROM pg_stat_replication"
        wait_until(lambda: not self.primary.run(query), "the standby is cut off", 30)

    def crash(self) -> None:
        """End the primary as a power cut would, and promote the standby."""
        process = self.primary._process
        assert process is not None
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
        self.promote()

    def promote(self) -> None:
        self.standby.run("ALTER SYSTEM SET synchronous_standby_names = ''")
        self.standby.run("SELECT pg_promote()")
        query = "SELECT pg_is_in_recovery()"
        wait_until(lambda: self.standby.run(query) == [(False,)], "it is the primary", 30)

    def bring_back(self) -> None:
        """Start the old primary as a standby of the new one, as a failover manager does."""
        self.primary.stop()
        data = self.primary._data
        folder = data.with_name("data.old")
        data.rename(folder)
        self.primary, self.standby = self.standby, self.primary
        self._synchronous = False
        self._follow(self.standby, self.primary)

    def stop(self) -> None:
        self.primary.remove()
        self.standby.remove()
