import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from producers.failpoints import NAMES

ROOT = Path(__file__).parents[2]

PASS = """
import sys
from producers.failpoints import failpoint
for name in sys.argv[1:]:
    failpoint(name)
    print(name, flush=True)
"""


def passing(folder: Path | None, *names: str) -> subprocess.CompletedProcess[str]:
    """A process that passes failpoints and prints each one it survives."""
    environment = {k: v for k, v in os.environ.items() if k != "AUTORENEW_FAILPOINTS"}
    if folder is not None:
        environment["AUTORENEW_FAILPOINTS"] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", PASS, *names],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_failpoints_do_nothing_when_not_enabled() -> None:
    run = passing(None, "worker.after_claim", "worker.after_claim")
    assert run.returncode == 0
    assert run.stdout.split() == ["worker.after_claim", "worker.after_claim"]


def test_armed_failpoint_kills_the_first_process_that_passes_and_no_other(tmp_path: Path) -> None:
    # When the first process passes, it dies there and then
    first = passing(tmp_path, "worker.after_claim", "worker.after_call")
    assert first.returncode == -signal.SIGKILL
    assert first.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["worker.after_claim"]
    # And the next goes on, to die at the next place where nobody has
    second = passing(tmp_path, "worker.after_claim", "worker.after_call")
    assert second.returncode == -signal.SIGKILL
    assert second.stdout.split() == ["worker.after_claim"]
    # And the third goes through.
    third = passing(tmp_path, "worker.after_claim", "worker.after_call")
    assert third.returncode == 0
    assert len(third.stdout.split()) == 2


def test_failpoint_can_be_disarmed_beforehand(tmp_path: Path) -> None:
    (tmp_path / "relay.before_confirm").touch()
    assert passing(tmp_path, "relay.before_confirm").returncode == 0


def _names_in_the_code() -> set[str]:
    """Those that are visited, and those that are passed on to whoever visits them."""
    found, passed_on = set(), set()
    calls = [
        node
        for folder in ("producers", "workers")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == "failpoint":
            match call.args[0]:
                case ast.Constant(value=name):
                    found.add(str(name))
                case ast.Name(id=parameter):
                    passed_on.add(parameter)
    for call in calls:
        for keyword in call.keywords:
            if keyword.arg in passed_on:
                assert isinstance(keyword.value, ast.Constant), ast.dump(call)
                found.add(str(keyword.value.value))
    return found


def test_list_of_failpoints_is_the_one_in_the_code() -> None:
    assert _names_in_the_code() == set(NAMES)
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("step", ["claim", "call", "finish", "ack"])
def test_every_step_of_a_worker_has_a_failpoint_before_and_after_it(step: str) -> None:
    assert {f"worker.before_{step}", f"worker.after_{step}"} <= set(NAMES)
