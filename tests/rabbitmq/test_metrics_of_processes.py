"""What every kind of process serves as `/metrics`, and what becomes of it when one dies."""

import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autorenew.local.fleet import PrivateFleet, descendants
from producers.intake import Intake
from producers.presence import version
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.database import connect
from tests.support.given import body, order, wait_until
from tests.support.servers import prometheus
from workers.group_metrics import children_of

ADDRESS = re.compile(r"(?:metrics|exporter) on (http://127\.0\.0\.1:\d+)")
FAMILY_OF_WAITS = "autorenew_task_wait_seconds_count"


def address(fleet: PrivateFleet, name: str) -> str:
    log = fleet._folder / f"{name}.log"

    def found() -> Any:
        return log.exists() and ADDRESS.search(log.read_text())

    wait_until(lambda: bool(found()), f"{name} serves metrics", timeout=30)
    return str(found()[1])


def page(fleet: PrivateFleet, name: str) -> str:
    with urllib.request.urlopen(f"{address(fleet, name)}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def values(text: str) -> dict[str, float]:
    lines = (row.rsplit(" ", 1) for row in text.splitlines() if row and not row.startswith("#"))
    return {name: float(value) for name, value in lines}


def total(found: dict[str, float], start: str) -> float:
    return sum(value for name, value in found.items() if name.startswith(start))


def problems(text: str, promtool: Path) -> str:
    done = subprocess.run(
        [str(promtool), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr if done.returncode else ""


def test_metrics_of_every_process_are_clean_and_count_each_task(
    fleet_of: Callable[..., PrivateFleet],
) -> None:
    promtool = prometheus() / "promtool"
    fleet = fleet_of(audit_seconds="1")
    fleet.start_all()
    fleet.start_exporter()
    read = fleet.database_url("readonly")
    fleet.start("api", "api", "--port", "0", user="relay", role="api", read_database_url=read)
    fleet.wait_for_consumers()
    engine = connect(fleet.database_url("api"))
    answers = Intake(engine, CatalogueCache(), SystemClock()).place(
        "shop", "python", [body(order(f"k-{n}", customer=f"c-{n}")) for n in range(40)]
    )
    engine.dispose()
    assert len(answers) == 40
    fleet.wait_until(
        lambda: fleet.scalar("SELECT count(*) FROM orders WHERE state = 'delivered'") == 40,
        60,
        "40 orders are delivered",
    )

    pages = {name: page(fleet, name) for name in fleet.members}

    assert {
        name: found for name, text in pages.items() if (found := problems(text, promtool))
    } == {}
    for name in ("worker-orders", "worker-billing", "worker-web"):
        found = values(pages[name])
        assert total(found, FAMILY_OF_WAITS) == 40, name
        assert total(found, "autorenew_task_seconds_count") == 40, name
        assert total(found, "autorenew_task_batch_size_count") <= 40, name
        for worker in ("launcher", "master", "0"):
            assert found[f'process_resident_memory_bytes{{worker="{worker}"}}'] > 0
        assert found["autorenew_worker_group_restarts_total"] == 0
    for name in ("relay", "scheduler", "intake", "api", "exporter"):
        assert values(pages[name])["process_cpu_seconds_total"] > 0

    def alive() -> bool:
        found = values(page(fleet, "exporter"))
        processes = [
            *(("worker", queue) for queue in ("orders", "billing", "reminders", "web", "telecom")),
            *((process, "") for process in ("relay", "scheduler", "intake", "api", "exporter")),
        ]
        return all(
            found.get(
                f'autorenew_processes_alive{{process="{process}",queue="{queue}",'
                f'version="{version()}"}}'
            )
            == 1
            for process, queue in processes
        )

    wait_until(alive, "every process is seen alive", timeout=30)
    assert values(page(fleet, "exporter"))["autorenew_intake_dead_documents"] == 0


def test_worker_that_is_killed_leaves_its_counts_and_no_files(
    fleet_of: Callable[..., PrivateFleet],
) -> None:
    fleet = fleet_of()
    member = fleet.start_worker("orders", processes=2, threads=1)
    fleet.wait_for_consumers()
    (master,) = children_of(member.pid)
    before = [pid for pid in descendants(member.pid) if pid != master]
    (folder,) = {
        Path(value)
        for pid in before
        if (value := _environment(pid).get("PROMETHEUS_MULTIPROC_DIR"))
    }
    assert len(before) == 2

    os.kill(before[0], signal.SIGKILL)

    def is_new() -> bool:
        found = values(page(fleet, "worker-orders"))
        workers = {name for name in found if name.startswith("process_start_time_seconds")}
        return found["autorenew_worker_group_restarts_total"] == 1 and len(workers) == 4

    wait_until(is_new, "the group is there again", timeout=60)
    pids = {str(pid) for pid in descendants(member.pid)} | {"0"}
    left = {file.stem.rpartition("_")[2] for file in folder.glob("*.db")}
    assert left <= pids
    assert not left & set(map(str, before))
    assert fleet.stop()["worker-orders"] == 0
    assert not folder.exists()


def _environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
