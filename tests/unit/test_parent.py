"""No process of a worker group outlives its master, however early the master is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autorenew.local.fleet import descendants
from tests.support.given import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")

# Stands for workers.fleet: a process that is ready only long after it was forked, and then fills
# the pipe that only its master reads.
SLOW = """
import sys, time
from dramatiq.brokers.stub import StubBroker
time.sleep({seconds})
broker = StubBroker(middleware=[])
for _ in range({lines}):
    print("x" * 100, file=sys.stderr)
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(("seconds", "lines"), [(30, 0), (0, 100_000)], ids=["starts", "logs"])
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3])
def test_children_end_when_their_master_is_killed(
    tmp_path: Path, seconds: float, lines: int, delay: float
) -> None:
    (tmp_path / "slow.py").write_text(SLOW.format(seconds=seconds, lines=lines))
    master = subprocess.Popen(
        [sys.executable, "-m", "workers.group", "slow:broker", "--processes", "2"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,  # read by nobody
    )
    try:
        wait_until(lambda: len(list(descendants(master.pid))) >= 2, "it has forked")
        children = list(descendants(master.pid))
        signal.sigtimedwait([], delay)
    finally:
        master.kill()
        master.wait()
        assert master.stderr is not None
        master.stderr.close()

    wait_until(lambda: not any(map(is_running, children)), "its children are gone")


FORKS = """
import os, signal, sys, time
from workers.parent import end_with
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.01)
    end_with(parent, signal.SIGKILL)
    open(sys.argv[1], "w").close()
"""


def test_a_process_whose_parent_is_gone_already_ends_at_once(tmp_path: Path) -> None:
    went_on = tmp_path / "went-on"

    ended = subprocess.run(
        [sys.executable, "-c", FORKS, str(went_on)], stdout=subprocess.PIPE, timeout=20, check=True
    )  # returns when both have closed their output

    assert ended.stdout == b""
    assert not went_on.exists()
