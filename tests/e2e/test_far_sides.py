"""A gateway and a driver of a package outside this project: built, installed, tested, used."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigurationError
from schemas.settings import load_settings
from workers.bootstrap import drivers_of

PACKAGE = Path(__file__).parents[2] / "docs/examples/far_sides"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package was installed: built as a wheel, from a copy, without an index."""
    folder = tmp_path_factory.mktemp("far_sides")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps",
         "--no-build-isolation", "--wheel-dir", folder / "wheels", PACKAGE],
        check=True,
    )  # fmt: skip
    (wheel,) = (folder / "wheels").glob("*.whl")
    site = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps",
         "--target", site, wheel],
        check=True,
    )  # fmt: skip
    return site


def run(installed: Path, *command: Any, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(installed), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_they_pass_the_conformance_suite(installed: Path, tmp_path: Path) -> None:
    tests = PACKAGE / "tests"
    result = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path,
                 "-c", PACKAGE / "pyproject.toml", tests)  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout


def test_they_are_found_by_name_and_built_from_their_own_settings(
    installed: Path, tmp_path: Path
) -> None:
    program = (
        "from schemas.settings import load_settings\n"
        "from workers.bootstrap import drivers_of, gateways_of\n"
        "settings = load_settings()\n"
        "print(type(drivers_of(settings)['metal']).__name__)\n"
        "print(type(gateways_of(settings)['wallet']).__name__)\n"
    )
    result = run(
        installed, "-c", program,
        AUTORENEW_DRIVERS=json.dumps({"metal": {"kind": "folders", "folder": str(tmp_path)}}),
        AUTORENEW_GATEWAYS=json.dumps(
            {"wallet": {"kind": "ledger-file", "path": str(tmp_path / "book")}}
        ),
    )  # fmt: skip
    assert result.stdout.split() == ["FolderDriver", "LedgerFileGateway"], result.stderr


def test_a_setting_it_lacks_is_one_line_that_names_it(installed: Path) -> None:
    program = (
        "from schemas.settings import load_settings\n"
        "from workers.bootstrap import drivers_of\n"
        "drivers_of(load_settings())\n"
    )
    drivers = json.dumps({"metal": {"kind": "folders", "token": "hunter2"}})
    result = run(installed, "-c", program, AUTORENEW_DRIVERS=drivers)
    last = result.stderr.strip().splitlines()[-1]
    assert "AUTORENEW_DRIVERS['metal']: folder: Field required" in last
    assert "hunter2" not in result.stderr


def test_a_kind_that_is_not_installed_is_one_line_with_those_that_are() -> None:
    settings = load_settings(drivers={"metal": {"kind": "no-such-kind"}})
    with pytest.raises(ConfigurationError, match="there are http, instant"):
        drivers_of(settings)
