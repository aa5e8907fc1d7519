"""What it costs to be watched: the exporter among millions, metrics under load, a fleet at rest."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from autorenew.local.fleet import PrivateFleet, descendants
from autorenew.local.ports import free_port

SCRAPE_SECONDS = 15.0
SCRAPES = 20
WATCH_SECONDS = 60.0
REST_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
_UNMETERED = Path(__file__).parent / "unmetered"


def cpu_seconds(pid: int) -> float:
    """Of a process, in user and kernel mode; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Exporter:
    """``autorenew exporter``, a process of its own.

    Args:
        url: of the database, as the role ``exporter``.
    """

    def __init__(self, url: str, owner: Engine) -> None:
        self._owner = owner
        self.port = free_port()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "autorenew", "exporter", "--port", str(self.port)],
            env=os.environ | {"AUTORENEW_DATABASE_URL": url, "AUTORENEW_LOG_LEVEL": "WARNING"},
        )

    def scrape(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            return str(answer.read().decode())

    def wait(self, timeout: float) -> None:
        """Until every part was collected once."""
        end = time.monotonic() + timeout
        while True:
            try:
                found = values(self.scrape(), "autorenew_exporter_last_collection_timestamp")
                if {'part="due"', 'part="services"', 'part="failed"'} <= found.keys():
                    return
            except OSError:
                pass
            if time.monotonic() > end:
                raise TimeoutError(f"not everything was collected within {timeout:g} s")
            time.sleep(0.2)

    def cpu(self) -> float:
        """Of the process and of what PostgreSQL does for it."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'autorenew exporter'"
        with self._owner.connect() as tx:
            backends = list(tx.execute(text(query)).scalars())
        return sum(map(cpu_seconds, [self._process.pid, *backends]))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def values(page: str, name: str) -> dict[str, float]:
    """Labels as they are written -> value, of a metric of a scrape."""
    found = {}
    for line in page.splitlines():
        if line.startswith(name) and "{" in line:
            labels, _, value = line.partition("{")[2].rpartition("} ")
            found[labels] = float(value)
    return found


def watch(exporter: Exporter) -> tuple[float, float]:
    """Scrape as Prometheus does.

    Returns:
        The slowest scrape in seconds; the share of a core that the exporter and its queries took.
        What is collected seldom, and was not within this time, counts by how often it is.
    """
    slowest = 0.0
    for _ in range(SCRAPES):
        started = time.perf_counter()
        page = exporter.scrape()
        slowest = max(slowest, time.perf_counter() - started)
    took = values(page, "autorenew_exporter_collection_seconds")
    seldom = sum(
        seconds / min(max(every, seconds / 0.005), 3600)
        for part, every in (("services", 300), ("ended_orders", 300), ("due", 600))
        if (seconds := took.get(f'part="{part}"', 0.0))
    )
    begun, started = exporter.cpu(), time.monotonic()
    while time.monotonic() - started < WATCH_SECONDS:
        exporter.scrape()
        time.sleep(SCRAPE_SECONDS)
    share = (exporter.cpu() - begun) / (time.monotonic() - started)
    return slowest, share + seldom


@contextmanager
def unmetered() -> Iterator[None]:
    """Processes that are started meanwhile count nothing."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_UNMETERED), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def rest(fleet: PrivateFleet, say: Callable[[str], None]) -> float:
    """The share of a core that a fleet takes which has nothing to do; each process is told."""
    time.sleep(10)  # until everything has started
    before = _by_process(fleet)
    time.sleep(REST_SECONDS)
    after = _by_process(fleet)
    shares = {
        name: sum(after[name].get(pid, 0.0) - seconds for pid, seconds in pids.items())
        / REST_SECONDS
        for name, pids in before.items()
    }
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        say(f"  {name}: {share:.2%} of a core")
    return sum(shares.values())


def _by_process(fleet: PrivateFleet) -> dict[str, dict[int, float]]:
    return {
        name: {pid: cpu_seconds(pid) for pid in (member.pid, *descendants(member.pid))}
        for name, member in fleet.members.items()
    }
