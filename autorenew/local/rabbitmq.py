"""A private RabbitMQ node with its own ports, cookie and folder, beside the machine's broker.

Of the version that is installed, or of RabbitMQ 4 as ``scripts/ensure-servers.sh`` fetched it.
"""

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pika
import urllib3
from pika.exceptions import AMQPError

from autorenew.local.ports import free_port
from schemas.errors import ConfigurationError

HINT = "rabbitmq-server is not installed: apt-get install rabbitmq-server"


@dataclass(frozen=True, slots=True)
class Server:
    """Where a version of RabbitMQ is.

    Attributes:
        scripts: the folder of RabbitMQ's own scripts (not Debian's wrappers, which change the
            user); as seen from within ``enter``, if there is one.
        enter: a command that runs another one where that version is: ``enter FOLDER COMMAND…``,
            with FOLDER at the same path inside and outside. None: it is installed.
    """

    scripts: Path
    enter: Path | None = None

    def command(self, folder: Path, *command: str) -> list[str]:
        """What runs a command of this version that works in ``folder``."""
        return [str(self.enter), str(folder), *command] if self.enter else list(command)


_SCRIPTS = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"


def find_server() -> Server | None:
    """The version that is installed; None: there is none."""
    found = sorted(Path("/").glob(_SCRIPTS))
    if found:
        return Server(found[-1].parent)
    on_path = shutil.which("rabbitmq-server")
    return Server(Path(on_path).resolve().parent) if on_path else None


def fetched_server(folder: Path) -> Server:
    """RabbitMQ 4 in a folder that ``scripts/ensure-servers.sh`` filled."""
    root = folder / "root"
    scripts = next(root.glob(_SCRIPTS)).parent
    return Server(Path("/") / scripts.relative_to(root), folder / "enter.sh")


class PrivateRabbitMQ:
    """A node with the management API and its Prometheus plugin, on the loopback interface; it
    starts in 5 to 10 s.

    Args:
        server: its version; by default the one that is installed.
        configuration: more lines of ``rabbitmq.conf``.
        peer: a node to form a cluster with: see :meth:`join`.
    """

    ADMIN = "admin"

    def __init__(
        self,
        folder: Path,
        server: Server | None = None,
        configuration: str = "",
        *,
        peer: "PrivateRabbitMQ | None" = None,
    ) -> None:
        server = server or find_server()
        if server is None:
            raise ConfigurationError(HINT)
        self._server = server
        self._more = configuration
        self._folder = folder.absolute()
        (self._folder / "log").mkdir(parents=True, exist_ok=True)
        self.port, self._distribution, self._epmd_port, self.management_port, self.metrics_port = (
            free_port() for _ in range(5)
        )
        self._peer = peer
        self._admin_password: str = peer._admin_password if peer else secrets.token_hex(8)
        if peer:  # nodes find each other by one port mapper
            self._epmd_port = peer._epmd_port
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._write_files()

    def _write_files(self) -> None:
        cookie = self._folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o400)
            cookie.chmod(0o600)
            theirs = self._peer._folder / ".erlang.cookie" if self._peer else None
            cookie.write_text(theirs.read_text() if theirs else secrets.token_hex(16))
            cookie.chmod(0o400)
        configuration = f"""
            loopback_users = none
            default_user = {self.ADMIN}
            default_pass = {self._admin_password}
            management.tcp.ip = 127.0.0.1
            management.tcp.port = {self.management_port}
            prometheus.tcp.ip = 127.0.0.1
            prometheus.tcp.port = {self.metrics_port}
            disk_free_limit.absolute = 50MB
        """
        lines = "\n".join(line.strip() for line in configuration.strip().splitlines())
        for name, content in (
            ("rabbitmq.conf", f"{lines}\n{self._more}\n"),
            ("enabled_plugins", "[rabbitmq_management,rabbitmq_prometheus].\n"),
            ("empty", ""),
        ):
            (self._folder / name).write_text(content)

    @property
    def _environment(self) -> dict[str, str]:
        folder = str(self._folder)
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "HOME": folder,
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/empty",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/none",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback,
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    @property
    def name(self) -> str:
        """As RabbitMQ calls the node."""
        return f"autorenew{self.port}@localhost"

    def url(self, user: str = ADMIN, password: str = "", vhost: str = "/") -> str:
        secret = password or self._admin_password
        return f"amqp://{user}:{secret}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    @property
    def management_url(self) -> str:
        return f"http://{self.ADMIN}:{self._admin_password}@127.0.0.1:{self.management_port}"

    def start(self, timeout: float = 90.0) -> None:
        """Start the node, also after :meth:`kill`; returns when it accepts connections."""
        if not self._peer and (self._epmd is None or self._epmd.poll() is not None):
            self._epmd = subprocess.Popen(
                self._server.command(
                    self._folder, *("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
                ),
                env=self._environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        with (self._folder / "log/stdout").open("ab") as log:
            self._process = subprocess.Popen(
                self._server.command(self._folder, str(self._server.scripts / "rabbitmq-server")),
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        atexit.register(self.stop)
        end = time.monotonic() + timeout
        while True:
            if self._process.poll() is not None:
                raise ConfigurationError(f"RabbitMQ did not start, see {self._folder / 'log'}")
            try:
                pika.BlockingConnection(pika.URLParameters(self.url())).close()
            except (AMQPError, OSError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """SIGKILL the node and its helper processes, as in a power cut."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def join(self) -> None:
        """Become a member of the cluster of its peer; both must run, and this one is empty."""
        assert self._peer is not None
        self.ctl("stop_app")
        self.ctl("join_cluster", self._peer.name)
        self.ctl("start_app")

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open, and it says nothing any more."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after :meth:`freeze`."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGCONT)

    def wipe(self) -> None:
        """Delete all queues and messages; the node must not run."""
        shutil.rmtree(self._folder / "mnesia", ignore_errors=True)

    def stop(self) -> None:
        """End the node, its helper processes and its port mapper."""
        self.kill()
        self._process = None
        if self._epmd is not None:
            self._epmd.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._epmd.wait(5)
            self._epmd = None

    def add_vhost(self, name: str) -> None:
        """Create a virtual host; safe to repeat."""
        self._manage("PUT", f"/vhosts/{quote(name, safe='')}")
        permissions = {"configure": ".*", "write": ".*", "read": ".*"}
        self._manage("PUT", f"/permissions/{quote(name, safe='')}/{self.ADMIN}", permissions)

    def delete_vhost(self, name: str) -> None:
        self._manage("DELETE", f"/vhosts/{quote(name, safe='')}")

    def _manage(self, method: str, path: str, body: dict[str, str] | None = None) -> None:
        answer = urllib3.request(
            method,
            f"http://127.0.0.1:{self.management_port}/api{path}",
            headers=urllib3.make_headers(basic_auth=f"{self.ADMIN}:{self._admin_password}"),
            json=body or {},
            timeout=10,
        )
        if answer.status >= 300:
            raise ConfigurationError(f"{method} {path}: {answer.status}")

    def ctl(self, *arguments: str) -> str:
        done = subprocess.run(
            self._server.command(
                self._folder, str(self._server.scripts / "rabbitmqctl"), "-q", *arguments
            ),
            env=self._environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout
