"""A whole fleet on the loopback interface, each role a process of its own: for tests and
benchmarks. Configured as a deployment would be: by environment, with least permissions."""

import atexit
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pika
from sqlalchemy import Engine, text

from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from producers import topology
from producers.management import Management
from producers.steps import BILLING, ORDERS, REMINDERS, ROLE_OF_QUEUE, UNIVERSES, WEBHOOKS
from schemas import virtual_clock
from schemas.catalogue import Catalogue
from schemas.catalogue.store import save
from schemas.database import connect, migrate
from schemas.settings import load_settings
from workers.bootstrap import books_of
from workers.outside.books import Books


class Member:
    """One process, started again when it dies, as a supervisor would."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        queues: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.queues = queues
        self.log = log
        self.deaths = 0
        self._command = [sys.executable, "-m", "autorenew", *command]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AUTORENEW_")}
        self._environment = {**inherited, **environment}
        self._stopping = False
        self._lock = threading.Lock()  # it is not started again once it is stopped
        self._process = self._spawn()
        self._watcher = threading.Thread(target=self._watch, name=f"watch {name}", daemon=True)
        self._watcher.start()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _watch(self) -> None:
        while True:
            self._process.wait()
            with self._lock:
                if self._stopping:
                    return
                self.deaths += 1
                self._process = self._spawn()

    @property
    def pid(self) -> int:
        return self._process.pid

    def processes(self) -> list[int]:
        """The process and everything below it, parents first."""
        return [self.pid, *descendants(self.pid)]

    def kill(self) -> None:
        """SIGKILL; what comes next is the supervisor's."""
        self._process.kill()

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM, and the exit code."""
        with self._lock:
            self._stopping = True
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.end()

    def end(self) -> int:
        """SIGKILL to it and everything below it, for good; the exit code."""
        with self._lock:
            self._stopping = True
        for pid in self.processes():  # parents first: they start nothing again
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self._process.wait()


def descendants(pid: int) -> Iterator[int]:
    """Every process below ``pid``, parents first (Linux)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        yield child
        yield from descendants(child)


class PrivateFleet:
    """Databases, queues, users and processes, on servers that run already.

    Args:
        folder: for the processes' logs.
        virtual: live on a virtual clock; see :meth:`leap`.
        settings: overrides as in the environment, without their prefix: ``lease_seconds="2"``.
    """

    def __init__(
        self,
        folder: Path,
        postgres: PrivatePostgres,
        rabbitmq: PrivateRabbitMQ,
        *,
        database: str,
        simulator_url: str | None = None,
        smtp_url: str | None = None,
        virtual: bool = False,
        **settings: str,
    ) -> None:
        self._folder = folder
        self._postgres = postgres
        self.rabbitmq = rabbitmq
        self.database = database
        self.vhost = database
        self._simulator_url = simulator_url
        self._smtp_url = smtp_url
        self._virtual = virtual
        self._settings = settings
        self._link_secret = secrets.token_urlsafe(32)
        self.members: dict[str, Member] = {}
        atexit.register(self.stop)

    def prepare(self, catalogue: Catalogue) -> None:
        """The one-time jobs: database, roles, queues, users, catalogue."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._postgres.ensure_database(self.database)
        self.owner: Engine = connect(self._postgres.url(self.database))
        migrate(self.owner, self._postgres.role_passwords())
        with self.owner.begin() as tx:
            save(tx, catalogue)
            if self._virtual:
                virtual_clock.start(tx)
        self.rabbitmq.add_vhost(self.vhost)
        self.setup_broker()

    def setup_broker(self, *more_users: str, upstreams: Sequence[str] = ()) -> None:
        """
        Args:
            more_users: of upstreams, beside those of every fleet.
            upstreams: those of them that have a queue of their own.
        """
        management = Management(self.rabbitmq.management_url, self.vhost)
        settings = load_settings(**self._settings)
        topology.set_policies(
            management,
            topology.policies(management.check(), settings.intake_cap, settings.intake_cap_bytes),
        )
        topology.declare(self.rabbitmq.url(vhost=self.vhost), upstreams)
        users = {user: f"pw-{user}" for user in (*topology.PERMISSIONS, *more_users)}
        topology.create_users(management, users, settings.realms)

    def broker_url(self, user: str) -> str:
        return self.rabbitmq.url(user, f"pw-{user}", vhost=self.vhost)

    def database_url(self, role: str) -> str:
        return self._postgres.role_url(self.database, role)

    def environment(self, user: str, role: str) -> dict[str, str]:
        """What a process of this broker user and this database role is told."""
        environment = {
            f"AUTORENEW_{name.upper()}": value
            for name, value in {
                "database_url": self.database_url(role),
                "broker_url": self.broker_url(user),
                "clock": "virtual" if self._virtual else "system",
                "log_format": "text",
                **self._settings,
            }.items()
        }
        if role == "billing":
            environment.setdefault("AUTORENEW_GATEWAY_URL", f"{self._simulator_url}/gateway")
        if role == "reminders":
            environment.setdefault("AUTORENEW_SMTP_URL", self._smtp_url or "instant:")
            environment |= {
                "AUTORENEW_MAIL_FROM": "Billing <billing@example.com>",
                "AUTORENEW_LINK_BASE_URL": "https://example.com",
                "AUTORENEW_LINK_SECRET": self._link_secret,
            }
        if role == "provisioning" and "AUTORENEW_DRIVER_URLS" not in environment:
            urls = {name: f"{self._simulator_url}/infrastructure/{name}" for name in UNIVERSES}
            environment["AUTORENEW_DRIVER_URLS"] = json.dumps(urls)
        return environment

    def books(self) -> Books:
        """The books of its gateway and its infrastructure."""
        assert self._simulator_url is not None
        urls = {name: f"{self._simulator_url}/infrastructure/{name}" for name in UNIVERSES}
        gateway = f"{self._simulator_url}/gateway"
        return books_of(load_settings(gateway_url=gateway, driver_urls=urls))

    def start(
        self,
        name: str,
        *command: str,
        user: str,
        role: str,
        queues: Sequence[str] = (),
        **extra: str,
    ) -> Member:
        environment = self.environment(user, role)
        environment |= {f"AUTORENEW_{key.upper()}": value for key, value in extra.items()}
        member = Member(name, command, environment, self._folder / f"{name}.log", queues)
        self.members[name] = member
        return member

    def start_intake(self, name: str = "intake", **extra: str) -> Member:
        return self.start(
            name, "intake", user="intake", role="api", queues=[topology.INTAKE_QUEUE], **extra
        )

    def start_api(self, name: str = "api", *, port: int = 0, **extra: str) -> Member:
        extra.setdefault("read_database_url", self.database_url("readonly"))
        command = ("api", "--port", str(port))
        return self.start(name, *command, user="intake", role="api", **extra)

    def port_of(self, member: Member, timeout: float = 60.0) -> int:
        """The port of a process that serves HTTP, once it says so in its log."""
        pattern = re.compile(r"^\w+ http://[^ ]+:(\d+)$", re.MULTILINE)
        found: list[str] = []

        def is_up() -> bool:
            found[:] = pattern.findall(member.log.read_text(errors="replace"))
            return bool(found)

        self.wait_until(is_up, timeout, f"{member.name} serves")
        return int(found[-1])

    def start_relay(self, name: str = "relay", **extra: str) -> Member:
        return self.start(name, "relay", user="relay", role="relay", **extra)

    def start_scheduler(self, name: str = "scheduler", **extra: str) -> Member:
        # It speaks to no broker; the user is only a name in its environment.
        return self.start(name, "scheduler", user="relay", role="scheduler", **extra)

    def start_exporter(self, name: str = "exporter", **extra: str) -> Member:
        # Its address is in its log.
        return self.start(
            name, "exporter", "--port", "0", user="exporter", role="exporter", **extra
        )

    def start_worker(
        self, *queues: str, name: str = "", processes: int = 1, threads: int = 4, **extra: str
    ) -> Member:
        kind = ROLE_OF_QUEUE[queues[0]]
        size = ("--processes", str(processes), "--threads", str(threads))
        name = name or f"worker-{queues[0]}"
        return self.start(
            name, "worker", *queues, *size, user=kind, role=kind, queues=queues, **extra
        )

    def start_all(self, *, threads: int = 2) -> None:
        """One of each, provisioning in one group for all universes."""
        self.start_intake()
        self.start_relay()
        self.start_scheduler()
        for queues in ((ORDERS,), (BILLING,), (REMINDERS,), UNIVERSES, (WEBHOOKS,)):
            self.start_worker(*queues, threads=threads)

    def wait_for_consumers(self, timeout: float = 60.0) -> None:
        """Until every queue that a started member reads has a consumer."""
        queues = [q for m in self.members.values() for q in m.queues]
        connection = pika.BlockingConnection(
            pika.URLParameters(self.rabbitmq.url(vhost=self.vhost))
        )
        channel = connection.channel()

        def consumed() -> bool:
            counts = [channel.queue_declare(q, passive=True).method.consumer_count for q in queues]
            return all(counts)

        try:
            self.wait_until(consumed, timeout, "every queue has a consumer")
        finally:
            connection.close()

    def stop(self, timeout: float = 60.0) -> dict[str, int]:
        """SIGTERM to every process at once; their exit codes by name."""
        members, self.members = self.members, {}
        codes: dict[str, int] = {}

        def end(member: Member) -> None:
            codes[member.name] = member.stop(timeout)

        threads = [threading.Thread(target=end, args=(member,)) for member in members.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return codes

    def close(self, *, keep_database: bool = False) -> None:
        """End every process at once, undrained: nobody needs what they are working on any more."""
        members, self.members = self.members, {}
        for member in members.values():
            member.end()
        self.owner.dispose()
        if not keep_database:
            self._postgres.drop_database(self.database)
        with contextlib.suppress(Exception):
            self.rabbitmq.delete_vhost(self.vhost)

    def scalar(self, query: str, **parameters: Any) -> Any:
        with self.owner.connect() as tx:
            return tx.execute(text(query), parameters).scalar_one()

    def wait_until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Raises TimeoutError, with where the tasks stand, if it takes longer."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {timeout:g} s; tasks {self.tasks()}")
            time.sleep(0.05)

    def tasks(self) -> dict[str, int]:
        """How many tasks there are, by ``name state``."""
        with self.owner.connect() as tx:
            rows = tx.execute(
                text("SELECT name || ' ' || state, count(*) FROM tasks GROUP BY 1 ORDER BY 1")
            )
            return dict(rows.all())

    def leap(self, by: timedelta, timeout: float) -> None:
        """Move the virtual clock on, as soon as nothing is being worked on."""
        end = time.monotonic() + timeout
        while True:
            try:
                with self.owner.begin() as tx:
                    virtual_clock.advance(tx, by)
                return
            except virtual_clock.ClockBusy:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def wait_until_idle(self, timeout: float) -> None:
        """Until nothing is left to do but what waits for a person."""
        query = "SELECT count(*) FROM tasks WHERE state <> 'failed' AND name <> 'deliver'"
        self.wait_until(lambda: self.scalar(query) == 0, timeout, "idle")
