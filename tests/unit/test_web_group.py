"""Processes that serve on one socket are started again when they end or hang."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autorenew.local.ports import free_port
from producers.web.serving import listen
from schemas.settings import load_settings
from tests.support.given import wait_until
from workers import web_group
from workers.web_group import WebGroup

# Beats until it is told to end; writes its pid into the folder of the test.
SERVES = """
import os, pathlib, signal, sys, time
from workers.web_group import Membership
signal.signal(signal.SIGTERM, lambda *_: exit(0))
membership = Membership.of_environment()
pathlib.Path(sys.argv[1], str(os.getpid())).touch()
while True:
    membership.beat()
    time.sleep(0.05)
"""


class Running:
    def __init__(self, program: str, folder: Path) -> None:
        self.folder = folder
        self.ready = threading.Event()
        self.codes: list[int] = []
        self.group = WebGroup(
            load_settings(metrics_port=free_port()),
            [sys.executable, "-c", program, str(folder)],
            listening=listen("127.0.0.1", 0),
            processes=2,
            grace=1,
            on_ready=self.ready.set,
        )
        self.thread = threading.Thread(
            target=lambda: self.codes.append(self.group.run()), daemon=True
        )
        self.thread.start()

    def pids(self) -> set[int]:
        """Of all that were ever started."""
        return {int(file.name) for file in self.folder.iterdir()}

    def stop(self) -> int:
        self.group.stop()
        self.thread.join(20)
        return self.codes[0]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    running: list[Running] = []

    def start(program: str) -> Running:
        running.append(Running(program, tmp_path))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def test_process_that_hangs_is_killed_and_started_again(
    run: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_group, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(web_group, "LOOK_SECONDS", 0.1)
    running = run(SERVES)
    assert running.ready.wait(30)
    first = min(running.pids())
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: len(running.pids()) == 3, "another one is started", 30)
    wait_until(lambda: not Path(f"/proc/{first}").exists(), "the first one is gone")
    assert running.stop() == 0


def test_group_that_cannot_begin_to_serve_ends(
    run: Callable[[str], Running], caplog: pytest.LogCaptureFixture
) -> None:
    running = run("import time; time.sleep(0.2); raise SystemExit(3)")
    running.thread.join(30)
    assert running.codes == [1]
    assert "ended with code 3 before it could serve" in caplog.text


def test_process_that_dies_again_and_again_is_started_less_often(
    run: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_group, "FIRST_PAUSE", 0.1)
    running = run(SERVES + "    if len(os.listdir(sys.argv[1])) > 2: os._exit(1)\n")
    assert running.ready.wait(30)
    os.kill(min(running.pids()), signal.SIGKILL)
    wait_until(lambda: len(running.pids()) >= 6, "it was started again", 60)
    began, before = time.monotonic(), len(running.pids())
    assert running.group._members[0].pause >= 0.1
    assert time.monotonic() - began < 5
    assert len(running.pids()) >= before
    running.stop()
