"""Servers that are fetched, not installed: see scripts/ensure-*.sh."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def servers() -> Path:
    """The folder with ``root/`` and ``enter.sh``: PgBouncer 1.24 and RabbitMQ 4.

    The test is skipped if they were not fetched. In CI they are fetched, and the test fails if
    that cannot be done; where neither root nor apt is, it is skipped there, too.
    """
    can_be_had = os.geteuid() == 0 and shutil.which("apt-get") is not None
    return _folder("servers", "PgBouncer 1.24 and RabbitMQ 4", can_be_had)


def powerdns() -> Path:
    """The folder with ``pdns_server``, in the same way; root is not needed."""
    return _folder("powerdns", "PowerDNS 4.7", shutil.which("apt-get") is not None)


def postgresql() -> Path:
    """The folder with PostgreSQL 17 in its ``bin/``, in the same way."""
    return _folder("postgresql", "PostgreSQL 17", shutil.which("apt-get") is not None)


def containers() -> Path:
    """The folder with ``podman``, and ``images``: which image stands for which public one."""
    can_be_had = os.geteuid() == 0 and shutil.which("apt-get") is not None
    return _folder("containers", "podman with its images", can_be_had)


def node_packages() -> Path:
    """The folder with ``node_modules/``, in the same way: amqplib and @asyncapi/specs."""
    can_be_had = shutil.which("npm") is not None
    return _folder("node-packages", "amqplib and @asyncapi/specs", can_be_had)


def prometheus() -> Path:
    """The folder with ``prometheus``, ``promtool``, ``prometheus-alertmanager`` and ``amtool``."""
    can_be_had = shutil.which("apt-get") is not None
    return _folder("prometheus", "Prometheus and Alertmanager", can_be_had)


def kubectl() -> Path:
    """The program of this machine, or the one of Debian 13; where neither can be had the test is
    skipped, in CI too."""
    installed = shutil.which("kubectl")
    if installed is not None:
        return Path(installed)
    return _folder("kubectl", "kubectl", can_be_had=False) / "kubectl"


def _folder(name: str, what: str, can_be_had: bool) -> Path:
    folder, problem = _fetched(name, what)
    if folder is not None:
        return folder
    if _in_ci() and can_be_had:
        pytest.fail(problem)
    pytest.skip(problem)


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"


@cache
def _fetched(name: str, what: str) -> tuple[Path | None, str]:
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cached / "autorenew" / name
    script = SCRIPTS / f"ensure-{name}.sh"
    if not _in_ci() and not (folder / "complete").exists():
        return None, f"{what} is not there: scripts/{script.name}"
    done = subprocess.run(
        ["sh", str(script), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return None, done.stderr.strip() or f"{script.name} failed"
    return Path(done.stdout.strip()), ""
