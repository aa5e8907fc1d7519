"""Servers of today's versions, PgBouncer 1.24 and RabbitMQ 4: see scripts/ensure-servers.sh."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/ensure-servers.sh"


def servers() -> Path:
    """The folder with ``root/`` and ``enter.sh``.

    The test is skipped if they were not fetched. In CI they are fetched, and the test fails if
    that cannot be done; where neither root nor apt is, it is skipped there, too.
    """
    folder, problem = _fetched()
    if folder is not None:
        return folder
    if _in_ci() and os.geteuid() == 0 and shutil.which("apt-get"):
        pytest.fail(problem)
    pytest.skip(problem)


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"


@cache
def _fetched() -> tuple[Path | None, str]:
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cached / "autorenew/servers"
    if not _in_ci() and not (folder / "complete").exists():
        return None, "PgBouncer 1.24 and RabbitMQ 4 are not there: scripts/ensure-servers.sh"
    done = subprocess.run(
        ["sh", str(SCRIPT), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return None, done.stderr.strip() or f"{SCRIPT.name} failed"
    return Path(done.stdout.strip()), ""
