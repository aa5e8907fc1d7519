"""A host whose clock is wrong does no work, dates nothing, and stops nobody else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autorenew.local.fleet import PrivateFleet
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, finish, send

pytestmark = pytest.mark.rabbitmq

# Loaded by every Python process of such a host: how far its clock is off stands in a file.
OFF = """
import pathlib, time
original = time.time
file = pathlib.Path(__file__).with_name("off")
time.time = lambda: original() + float(file.read_text())
"""
FORTY_DAYS = 40 * 86400
# Where the customers are it may be tomorrow already.
DATED_TODAY = "SELECT bool_and(issued_on - current_date IN (0, 1)) FROM invoices"


class Host:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._file = folder / "off"
        self.set(0)
        (folder / "sitecustomize.py").write_text(OFF)
        self._folder = folder

    def set(self, seconds: float) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(self._file)

    def start(self, monkeypatch: pytest.MonkeyPatch, start: Callable[[], object]) -> None:
        """Start a process on it."""
        path = os.pathsep.join([str(self._folder), os.environ.get("PYTHONPATH", "")])
        with monkeypatch.context() as patched:
            patched.setenv("PYTHONPATH", path.rstrip(os.pathsep))
            start()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def said(fleet: PrivateFleet, name: str) -> str:
    return fleet.members[name].log.read_text()


@pytest.mark.parametrize("seconds", [FORTY_DAYS, -14 * 3600])
def test_processes_on_a_host_with_a_wrong_clock_do_not_start(
    fleet_of: Callable[..., PrivateFleet],
    simulator: Running,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    fleet = fleet_of()
    fleet.start_all(threads=1)
    host.set(seconds)
    host.start(monkeypatch, lambda: fleet.start_worker("billing", name="worker-wrong"))
    host.start(monkeypatch, lambda: fleet.start_scheduler("scheduler-wrong"))
    for name in ("worker-wrong", "scheduler-wrong"):
        member = fleet.members[name]
        fleet.wait_until(lambda m=member: m.deaths > 0, TIMEOUT_SECONDS, f"{name} has ended")
        assert "this host's clock is" in said(fleet, name)
        assert "Traceback" not in said(fleet, name)
        member.stop()
    send(fleet, 8)
    finish(fleet, 8, simulator)
    assert fleet.scalar("SELECT count(*) FROM lane_pauses") == 0
    assert fleet.scalar(DATED_TODAY)


def test_a_host_whose_clock_is_set_wrong_stops_working_until_it_is_right(
    fleet_of: Callable[..., PrivateFleet],
    simulator: Running,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = fleet_of()
    fleet.start_intake()
    fleet.start_relay()
    for queues in (("orders",), ("reminders",), ("web", "dedicated", "cloud", "telecom")):
        fleet.start_worker(*queues, threads=1)
    host.start(monkeypatch, lambda: fleet.start_worker("billing", threads=1))
    host.start(monkeypatch, fleet.start_scheduler)
    send(fleet, 4)
    finish(fleet, 4, simulator)

    host.set(FORTY_DAYS)
    send(fleet, 4, "later")
    for name in ("worker-billing", "scheduler"):
        fleet.wait_until(
            lambda name=name: "40.0 days ahead" in said(fleet, name),
            TIMEOUT_SECONDS, f"{name} says what is wrong",
        )  # fmt: skip
    invoices = "SELECT count(*) FROM invoices"
    assert fleet.scalar(invoices) == 4

    host.set(0)
    finish(fleet, 8, simulator)
    assert fleet.scalar("SELECT count(*) FROM lane_pauses") == 0
    assert fleet.members["worker-billing"].deaths == 0
    assert fleet.scalar(DATED_TODAY)
