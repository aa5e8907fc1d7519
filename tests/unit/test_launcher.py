"""A launcher restarts its worker group when it ends, and drains it when it is stopped."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from schemas.settings import load_settings
from tests.support.given import wait_until
from workers.launcher import Launcher
from workers.metrics_folder import metrics_folder

CRASHES = "raise SystemExit(3)"
DRAINS = """
import signal
signal.signal(signal.SIGTERM, lambda *_: exit(0))
print("ready", flush=True)
signal.pause()
"""
IGNORES_SIGTERM = DRAINS.replace("lambda *_: exit(0)", "signal.SIG_IGN")


class Scripted(Launcher):
    """Runs Python programs, one after the other, in place of worker groups."""

    def __init__(self, programs: Sequence[str], **settings: float) -> None:
        super().__init__(load_settings(**settings), ["orders"], processes=1, threads=1)
        self._programs = iter(programs)
        self.groups: list[subprocess.Popen[bytes]] = []
        self.codes: list[int] = []
        self.thread = threading.Thread(target=lambda: self.codes.append(self.run()), daemon=True)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", next(self._programs)]
        group = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.groups.append(group)
        return group

    def wait_until_ready(self, groups: int) -> None:
        """Wait until so many groups were started and the last one has its signal handler."""
        wait_until(lambda: len(self.groups) == groups, f"{groups} groups are started")
        stdout = self.groups[-1].stdout
        assert stdout is not None
        assert stdout.readline() == b"ready\n"

    def stop_and_join(self) -> None:
        self.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def launch() -> Iterator[Callable[..., Scripted]]:
    launchers: list[Scripted] = []

    def start(*programs: str, **settings: float) -> Scripted:
        launcher = Scripted(programs, **settings)
        launchers.append(launcher)
        launcher.thread.start()
        return launcher

    yield start
    for launcher in launchers:
        for group in launcher.groups:
            group.kill()
            group.wait(10)
            if group.stdout is not None:
                group.stdout.close()


def test_group_that_ends_by_itself_is_restarted(
    launch: Callable[..., Scripted], caplog: pytest.LogCaptureFixture
) -> None:
    launcher = launch(CRASHES, DRAINS)

    launcher.wait_until_ready(2)
    launcher.stop_and_join()

    assert "worker: the worker group ended with code 3; again in" in caplog.text
    assert launcher.codes == [0]


def test_stopped_launcher_returns_when_its_group_is_drained(
    launch: Callable[..., Scripted],
) -> None:
    launcher = launch(DRAINS)

    launcher.wait_until_ready(1)
    launcher.stop_and_join()

    assert launcher.codes == [0]
    assert launcher.groups[0].returncode == 0


def test_group_that_does_not_drain_in_time_is_killed(
    launch: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.launcher.EXIT_SECONDS", 0.0)
    launcher = launch(IGNORES_SIGTERM, shutdown_seconds=0.2, call_seconds=0.05)

    launcher.wait_until_ready(1)
    launcher.stop_and_join()

    assert launcher.codes == [1]
    assert launcher.groups[0].wait(10) == -9


def test_launcher_that_is_stopped_between_two_groups_has_drained(
    launch: Callable[..., Scripted], caplog: pytest.LogCaptureFixture
) -> None:
    launcher = launch(CRASHES)

    wait_until(lambda: "ended with code 3; again in" in caplog.text, "it waits")
    launcher.stop_and_join()

    assert launcher.codes == [0]


def test_group_that_is_stopped_before_it_can_hear_of_it_counts_as_drained(
    launch: Callable[..., Scripted],
) -> None:
    launcher = launch("import signal; print('ready', flush=True); signal.pause()")

    launcher.wait_until_ready(1)
    launcher.stop_and_join()

    assert launcher.codes == [0]


# As Dramatiq is while it waits for its processes to be ready.
WAITS_FOR_ITS_DEAD = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if os.fork() == 0:
    os._exit(9)
print("ready", flush=True)
signal.pause()
"""


def test_group_whose_only_process_died_while_it_started_is_ended_at_once(
    launch: Callable[..., Scripted], caplog: pytest.LogCaptureFixture
) -> None:
    launcher = launch(WAITS_FOR_ITS_DEAD, DRAINS)

    launcher.wait_until_ready(2)
    launcher.stop_and_join()

    assert "a worker process died while its group was starting" in caplog.text
    assert launcher.groups[0].returncode == -9
    assert launcher.codes == [0]


KILLED = """
import os, signal
from workers.metrics_folder import metrics_folder
with metrics_folder() as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_folder_of_a_launcher_that_was_killed_is_deleted_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.metrics_folder.YOUNG_SECONDS", 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    left = subprocess.run(
        [sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE, check=False
    )
    abandoned = Path(left.stdout.decode().strip())
    assert abandoned.is_dir()

    with metrics_folder() as first, metrics_folder() as second:
        assert not abandoned.exists()
        assert Path(first).is_dir(), "that of a launcher that runs stays"
        assert Path(second).is_dir()

    assert list(tmp_path.iterdir()) == []
