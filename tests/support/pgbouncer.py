"""A private PgBouncer 1.24 in transaction mode."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psycopg

from autorenew.local.ports import free_port
from autorenew.local.postgres import PrivatePostgres
from tests.support.given import wait_until
from tests.support.servers import servers


class PgBouncer:
    """Stands before a server; pools each role's connections to each database.

    Args:
        size: how many connections to the server a role has.
        extra: lines of the section ``pgbouncer``.
    """

    def __init__(
        self, folder: Path, postgres: PrivatePostgres, *, size: int = 4, extra: str = ""
    ) -> None:
        self._root = servers()
        self._folder = folder.absolute()
        self._postgres = postgres
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        server = psycopg.conninfo.conninfo_to_dict(postgres.url())
        users = {"postgres": str(server["password"])} | {
            f"autorenew_{role}": password for role, password in postgres.role_passwords().items()
        }
        (folder / "users").write_text("".join(f'"{u}" "{p}"\n' for u, p in users.items()))
        (folder / "ini").write_text(f"""
[databases]
* = host={server["host"]} port={server["port"]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {self._folder}/users
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
{extra}
""")

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._root / "enter.sh", self._folder, "/usr/sbin/pgbouncer"),
                    *("-u", "nobody", self._folder / "ini"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for path in (self._folder, *self._folder.iterdir()):
            os.chmod(path, 0o755 if path.is_dir() else 0o644)
        wait_until(self._is_up, "PgBouncer is up", 20)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url("postgres", "postgres"), connect_timeout=2).close()
            return True
        return False

    def url(self, database: str, user: str) -> str:
        server = psycopg.conninfo.conninfo_to_dict(self._postgres.url())
        passwords = {f"autorenew_{r}": p for r, p in self._postgres.role_passwords().items()}
        password = passwords.get(user, str(server["password"]))
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def role_url(self, database: str, role: str) -> str:
        return self.url(database, f"autorenew_{role}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # SIGTERM waits for its clients
            self._process.wait(20)
            self._process = None
