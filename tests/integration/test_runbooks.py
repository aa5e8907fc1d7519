"""Whoever is called at night copies commands out of the runbooks: each of them works."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autorenew.cli import main
from tests.conftest import Database
from tests.integration.test_failed_commands import Shop, url_of
from tests.integration.test_selection import REFUSE

PAGES = Path(__file__).parents[2] / "docs/runbooks"
# A runbook names no role: it links to the page that does. In the order in which they are tried.
ROLES = ("api", "readonly", "billing", "provisioning")
# It waits for a broker: tests/rabbitmq/ runs them.
ELSEWHERE = "broker"


def commands() -> list[str]:
    """What follows ``autorenew`` in the blocks of all runbooks, each once, those that only look
    first."""
    found = set()
    for page in PAGES.glob("*.md"):
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S):
            found |= set(re.findall(r"^\.venv/bin/autorenew (.+?)(?: > \S+)?$", block, re.M))
    looks = re.compile(r"(list|show|--dry-run|audit)\b")
    return sorted(found, key=lambda command: (looks.search(command) is None, command))


def test_each_command_of_the_runbooks_works(
    embedded: Any, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fleet = embedded([REFUSE])
    Shop(fleet, database)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTORENEW_GATEWAY_URL", fleet.settings.gateway_url)
    monkeypatch.setenv("AUTORENEW_DRIVER_URLS", json.dumps(fleet.settings.driver_urls))

    def run(words: list[str], role: str) -> Any:
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url_of(database, role))
        return CliRunner().invoke(main, words)

    heads = run(["seals", "heads", "--json"], "readonly").stdout
    (tmp_path / "heads-2026-11-29.ndjson").write_text(heads)
    bulk = run(["failed", "retry", "--driver", "cloud", "--because", "a test"], "api")
    assert bulk.exit_code in (0, 1), bulk.output  # it halts: the stock is not back
    failed = database.value("SELECT subject FROM tasks WHERE state = 'failed' LIMIT 1")
    known = {
        "failed show ID": str(failed),
        "bulk show ID": str(database.value("SELECT id FROM bulk_operations LIMIT 1")),
        "order show KEY": "k-1",
    }

    broken = {}
    tried = commands()
    for command in tried:
        words = shlex.split(command)
        if words[0] == ELSEWHERE:
            continue
        if command in known:
            words[-1] = known[command]
        said = {}
        for role in ROLES:
            result = run(words, role)
            crashed = result.exception and not isinstance(result.exception, SystemExit)
            if result.exit_code in (0, 1) and not crashed:
                break
            said[role] = f"{result.exit_code} {result.exception!r} {result.output}"
        else:
            broken[command] = said
    assert broken == {}
    assert len(tried) > 35
