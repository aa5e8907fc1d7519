"""Every module can be imported by itself, and importing one does nothing."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("autorenew", "monitoring", "producers", "schemas", "simulator", "workers")

# Programs, not modules: importing them runs them.
PROGRAMS = {
    "autorenew.__main__",  # python -m autorenew
    "workers.fleet",  # what a Dramatiq process runs
    "schemas.migrations.env",  # what Alembic runs
}


def _modules() -> list[str]:
    named = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in _files()]
    names = {name.removesuffix(".__init__") for name in named}
    return sorted(name for name in names - PROGRAMS if all(map(str.isidentifier, name.split("."))))


def _files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_list_of_modules_is_the_one_python_finds() -> None:
    found = {info.name for info in pkgutil.walk_packages([str(ROOT / "schemas")], "schemas.")}
    assert found <= set(_modules())
    assert len(_modules()) > 50


def test_every_module_can_be_imported_and_importing_starts_nothing() -> None:
    # In a process of its own, so that nothing is imported already.
    program = (
        "import importlib, sys, threading\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *_modules()],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},  # no setting is needed to import
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.parts[-2] == "versions" or path.name == "__main__.py":
        return
    documented = ast.get_docstring(tree) or any(
        ast.get_docstring(node)
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    )
    assert documented, path
