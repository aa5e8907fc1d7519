"""Prometheus and Alertmanager of Debian, as ``scripts/ensure-prometheus.sh`` fetched them: their
tools, and private servers with the project's own configuration, made quick."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import yaml

from autorenew.local.ports import free_port
from tests.support.servers import prometheus

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "monitoring/prometheus"
RULES = FOLDER / "rules"


def tool(name: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """What a tool says, such as ``promtool``.

    Raises:
        AssertionError: it ends with an error, which it says.
    """
    done = subprocess.run(
        [str(prometheus() / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    """Every rule of the project, recording and alerting."""
    groups = [
        group
        for file in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(file.read_text())["groups"]
    ]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Alert rules by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


class Receiver:
    """Takes what Alertmanager sends to its receivers.

    Attributes:
        told: (receiver, status, labels of one alert, its annotations), in order of arrival.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    receiver.told.append(
                        (
                            self.path.strip("/"),
                            alert["status"],
                            alert["labels"],
                            alert["annotations"],
                        )
                    )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def heard(self, name: str, status: str = "firing", **labels: str) -> list[dict[str, str]]:
        """The annotations of what was told of an alert."""
        return [
            annotations
            for _, its, labelled, annotations in list(self.told)
            if its == status
            and labelled["alertname"] == name
            and labels.items() <= labelled.items()
        ]


class Watch:
    """A private Prometheus and a private Alertmanager.

    Args:
        targets: addresses of each job of ``prometheus.yml`` that is to be scraped, by its name;
            each with its ``role``.
        changes: parts of an alert's expression, old and new, by the alert's name: its times are too
            long for a test. Each must occur.
        receiver: of all of Alertmanager's messages.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Sequence[tuple[str, str]]],
        receiver: Receiver,
        changes: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._folder = folder
        (folder / "rules").mkdir(parents=True)
        self.port, self._alerts_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.alerts_url = f"http://127.0.0.1:{self._alerts_port}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._write_prometheus(targets)
        self._write_rules(changes)
        self._write_alertmanager(receiver)

    def _write_prometheus(self, targets: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        configuration["global"] |= {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
        }
        jobs = configuration["scrape_configs"]
        assert set(targets) <= {job["job_name"] for job in jobs}
        for job in jobs:
            for discovery in ("dns_sd_configs", "file_sd_configs", "static_configs"):
                job.pop(discovery, None)
            job["static_configs"] = [
                {"targets": [address], "labels": {"role": role}}
                for address, role in targets.get(job["job_name"], ())
            ]
        (alertmanager,) = configuration["alerting"]["alertmanagers"]
        alertmanager["static_configs"] = [{"targets": [f"127.0.0.1:{self._alerts_port}"]}]
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

    def _write_rules(self, changes: Mapping[str, Mapping[str, str]]) -> None:
        left = dict(changes)
        for file in RULES.glob("*.yml"):
            content = yaml.safe_load(file.read_text())
            for group in content["groups"]:
                for rule in group["rules"]:
                    if rule.pop("for", None):
                        rule["for"] = "1s"
                    for old, new in left.pop(rule.get("alert") or rule["record"], {}).items():
                        assert old in rule["expr"], (rule, old)
                        rule["expr"] = rule["expr"].replace(old, new)
            (self._folder / "rules" / file.name).write_text(yaml.safe_dump(content))
        assert not left

    def _write_alertmanager(self, receiver: Receiver) -> None:
        configuration = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())
        for route in (configuration["route"], *configuration["route"]["routes"]):
            route |= {"group_wait": "1s", "group_interval": "1s"}
        for one in configuration["receivers"]:
            for hook in one["webhook_configs"]:
                hook["url"] = re.sub(r"^http://[^/]+", receiver.url, hook["url"])
        (self._folder / "alertmanager.yml").write_text(yaml.safe_dump(configuration))

    def start(self) -> "Watch":
        self.start_alertmanager()
        self._spawn(
            "prometheus",
            str(prometheus() / "prometheus"),
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            # What fires before Prometheus has found its Alertmanager is sent again so much later.
            "--rules.alert.resend-delay=2s",
        )
        wait_for(lambda: _answers(f"{self.url}/-/ready"), 30, "Prometheus is ready")
        return self

    def start_alertmanager(self) -> None:
        self._spawn(
            "alertmanager",
            *self._alertmanager(),
            f"--config.file={self._folder / 'alertmanager.yml'}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self._alerts_port}",
            "--cluster.listen-address=",
        )
        wait_for(lambda: _answers(f"{self.alerts_url}/-/ready"), 30, "Alertmanager is ready")

    def _alertmanager(self) -> list[str]:
        """Debian's reads its templates from a folder of the machine, where it is not
        installed: a copy of the program that reads them from where it runs."""
        root = prometheus() / "root"
        there = b"/usr/share/prometheus/alertmanager"
        copy = self._folder / "prometheus-alertmanager"
        program = (root / "usr/bin/prometheus-alertmanager").read_bytes()
        assert there in program
        copy.write_bytes(program.replace(there, b"/proc/self/cwd".ljust(len(there), b"/")))
        copy.chmod(0o755)
        for template in (root / there.decode().lstrip("/")).glob("*.tmpl"):
            (self._folder / template.name).write_bytes(template.read_bytes())
        loader = next(root.glob("**/ld-linux-*.so.*"))
        libraries = (f"{root}/{above}/{loader.parent.name}" for above in ("lib", "usr/lib"))
        return [str(loader), "--library-path", ":".join(libraries), str(copy)]

    def _spawn(self, name: str, *command: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={"PATH": os.environ.get("PATH", ""), "GOMAXPROCS": "1"},
                )
            )

    def query(self, expr: str) -> list[dict[str, Any]]:
        """What an expression is now: a list of ``metric`` and ``value``."""
        with urlopen(f"{self.url}/api/v1/query?query={quote(expr)}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    def close(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait(20)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], timeout: float, what: str) -> None:
    """Raises TimeoutError, with what was waited for, if it takes longer."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.1)
