"""The demo and ``make up``, as after a fresh clone of the project."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from autorenew import demo
from autorenew.local.fleet import descendants
from tests.support.given import wait_until

AUTORENEW = [sys.executable, "-m", "autorenew"]


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("AUTORENEW_")}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can read, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="autorenew-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_demo_reports_and_ends_with_0(folder: Path) -> None:
    done = subprocess.run(
        [*AUTORENEW, "demo", "--orders", "30", "--folder", str(folder / "var")],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for part in (
        "Orders by outcome",
        "Services by universe",
        "Money by currency",
        "Refused orders by reason",
        "Renewed by period",
        "Ended by reason",
        "10 days without a scheduler",
        "customers move from FR to BE",
        "refused e-mails are sent again",
        "CZ pays in EUR",
        "audit: clean",
    ):
        assert part in done.stdout
    for universe in ("web", "dedicated", "cloud", "telecom"):
        assert universe in done.stdout


def months_from(output: str) -> list[str]:
    """The table of months, from its header on."""
    lines = output.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:1] == ["month"])
    return [line.rstrip() for line in lines[header : header + 3]]


def test_what_happens_in_the_demo_does_not_depend_on_the_hour(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for hour in (5, 10, 23):
        started_at = datetime(2026, 11, 3, hour, 17, tzinfo=UTC)
        assert demo.run(folder / str(hour), 25, 7, 2, started_at=started_at) == 0
        tables.append(months_from(capsys.readouterr().out))

    assert int(tables[0][1].split()[5]) > 10  # e-mails of the first month
    assert tables[0] == tables[1] == tables[2]


def test_fleet_of_make_up_can_be_used_from_another_terminal_and_stops_cleanly(
    folder: Path,
) -> None:
    log = folder / "log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [
                *AUTORENEW,
                "up",
                "--folder",
                str(folder / "var"),
                "--api-port",
                "0",
                "--console-port",
                "0",
            ],
            env=clean_environment(),
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: "order show" in log.read_text(), "it is up", 60)
        exports = dict(
            line.split("export ")[1].split("=", 1)
            for line in log.read_text().splitlines()
            if "export AUTORENEW" in line
        )
        environment = clean_environment() | exports
        wait_until(lambda: "once within" in log.read_text(), "the console is up", 30)
        link = log.read_text().partition("once within 15 minutes: ")[2].split()[0]
        assert "This link signs you in once." in httpx.get(link).text

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*AUTORENEW, *words],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

        assert run("order", "place", "docs/examples/orders.ndjson").returncode == 1  # one refused
        wait_until(
            lambda: "delivered" in run("order", "show", "example-1").stdout.splitlines()[0],
            "the first example is delivered",
            60,
        )
        assert run("audit").returncode == 0
        # A second one on the same folder is told so, and harms nothing.
        second = run("demo", "--folder", str(folder / "var"), "--orders", "1")
        assert second.returncode == 2
        assert "in use by another process" in second.stderr
    finally:
        up.send_signal(signal.SIGTERM)
        code = up.wait(60)
    assert code == 0


def test_a_demo_that_is_told_to_stop_leaves_no_server_behind(folder: Path) -> None:
    log = folder / "log"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [*AUTORENEW, "demo", "--folder", str(folder / "var")],
            env=clean_environment() | {"PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: "catalogue:" in log.read_text(), "it has a database", 60)
        servers = list(descendants(demo.pid))
        assert servers
    finally:
        demo.send_signal(signal.SIGTERM)
        code = demo.wait(60)

    assert code == 128 + signal.SIGTERM
    assert not [pid for pid in servers if Path(f"/proc/{pid}").exists()]
