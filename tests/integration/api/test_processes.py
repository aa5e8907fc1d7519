"""Several processes that serve the API on one port: `autorenew api --processes`."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import urllib3

from autorenew.local.ports import free_port
from tests.conftest import Database
from tests.support.api import Client, make_key
from tests.support.given import order, wait_until

SHOPPERS = 8


class Group:
    """`autorenew api --processes 2`, as the role `api`."""

    def __init__(self, database: Database, postgres: Any, log: Path) -> None:
        self.metrics_port = free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AUTORENEW_")}
        environment |= {
            "AUTORENEW_DATABASE_URL": postgres.role_url(database.name, "api"),
            "AUTORENEW_READ_DATABASE_URL": postgres.role_url(database.name, "readonly"),
            "AUTORENEW_METRICS_PORT": str(self.metrics_port),
            "AUTORENEW_LOG_FORMAT": "text",
        }
        command = [sys.executable, "-m", "autorenew", "api", "--port", "0", "--processes", "2"]
        self.log = log
        with log.open("wb") as written:
            self.process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=written, text=True
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("API ").strip()
        assert self.url, log.read_text()

    def metrics(self) -> str:
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def value(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@pytest.fixture
def group(database: Database, postgres: Any, tmp_path: Path) -> Iterator[Group]:
    started = Group(database, postgres, tmp_path / "api.log")
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.wait()
    assert started.process.stdout is not None
    started.process.stdout.close()


SERVED = (
    'autorenew_http_requests_total{method="GET",route="/v1/catalogue",server="api",status="200"}'
)


def test_one_that_dies_is_started_again_and_limits_and_metrics_are_of_all(
    group: Group, database: Database
) -> None:
    key = make_key(database.engine("api"), "slow", per_second=10)
    wide = make_key(database.engine("api"), "wide")

    # Each client has a connection of its own: both processes accept some of them.
    began = time.monotonic()
    said = [Client(group.url, key)("GET", "/v1/catalogue").status for _ in range(60)]
    took = time.monotonic() - began

    assert set(said) == {200, 429}
    assert 10 <= Counter(said)[200] <= 11 + 10 * took
    assert group.value(SERVED) == Counter(said)[200]
    before = group.children()
    assert len(before) == 2

    os.kill(before[0], signal.SIGKILL)
    client = Client(group.url, wide)
    wait_until(lambda: client("GET", "/healthz").status == 200, "the other one answers")
    wait_until(
        lambda: len(group.children()) == 2 and before[0] not in group.children(),
        "another process is there",
        timeout=20,
    )
    wait_until(
        lambda: len(re.findall(r"^process_start_time_seconds", group.metrics(), re.M)) == 3,
        "its metrics are there",
    )
    assert group.value("autorenew_worker_group_restarts_total") == 1
    assert group.value(SERVED) == Counter(said)[200], "what the dead one counted is kept"
    assert group.stop() == 0


def test_stop_loses_no_order_that_was_taken(group: Group, database: Database) -> None:
    key = make_key(database.engine("api"), "busy")
    answered: dict[str, int] = {}
    cut: list[str] = []

    def shop(number: int) -> None:
        client = Client(group.url, key)
        for n in range(10_000):
            name = f"s{number}-{n}"
            try:
                answered[name] = client("POST", "/v1/orders", order(name, customer="max")).status
            except urllib3.exceptions.HTTPError:
                cut.append(name)
                return

    shoppers = [threading.Thread(target=shop, args=(n,)) for n in range(SHOPPERS)]
    for one in shoppers:
        one.start()
    wait_until(lambda: len(answered) > 100, "orders are taken")
    code = group.stop()
    for one in shoppers:
        one.join(20)

    assert code == 0, group.log.read_text()
    assert set(answered.values()) == {202}
    stored = {row.key for row in database.all("SELECT key FROM orders")}
    assert stored == set(answered), "answered and stored are the same"
    assert len(cut) == SHOPPERS
