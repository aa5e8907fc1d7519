"""The commands ``console`` and ``operators``."""

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from autorenew.local.postgres import PrivatePostgres
from tests.conftest import Database

PASSWORD = "a long enough password"


@pytest.fixture
def run(database: Database, postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", postgres.role_url(database.name, "console"))
    monkeypatch.setenv("AUTORENEW_READ_DATABASE_URL", postgres.role_url(database.name, "readonly"))
    monkeypatch.setenv("AUTORENEW_OPERATOR", "root")

    def command(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(main, arguments, input=input)

    return command


def test_operators_are_added_listed_changed_and_removed(run: Any, database: Database) -> None:
    added = run("operators", "add", "olga", "--role", "operator", "--stdin", input=f"{PASSWORD}\n")
    assert added.output == "olga is added as operator\n"
    assert run("operators", "role", "olga", "--role", "reader").exit_code == 0
    listed = json.loads(run("operators", "list", "--json").output)
    assert (listed["name"], listed["role"], listed["signs_in_with"]) == (
        "olga", "reader", "password",
    )  # fmt: skip
    changed = run("operators", "password", "olga", "--stdin", input="another long password\n")
    assert changed.exit_code == 0
    link = run("operators", "link", "olga").output
    assert re.fullmatch(r"http://127\.0\.0\.1:8070/sign-in/once\?token=\S+\n", link)
    document = json.loads(run("operators", "link", "olga", "--json").output)
    assert document["name"] == "olga"
    assert document["link"].startswith("http://127.0.0.1:8070/sign-in/once?token=")
    removed = run("operators", "remove", "olga", "--because", "has left", "--json")
    assert json.loads(removed.output) == {"name": "olga", "removed": True}
    assert run("operators", "list").output == "operators: none\n"
    events = database.all("SELECT name, detail FROM events ORDER BY id")
    assert [event.name for event in events] == [
        "operator.added", "operator.changed", "operator.changed", "operator.removed",
    ]  # fmt: skip
    assert {event.detail["by"] for event in events} == {"root"}
    assert PASSWORD not in json.dumps([event.detail for event in events])


@pytest.mark.parametrize(
    ("arguments", "input", "said"),
    [
        (["add", "olga", "--role", "reader", "--stdin"], "short\n", "12 to 1000 characters"),
        (["add", "guard", "--role", "reader", "--stdin"], f"{PASSWORD}\n", "no person"),
        (["add", "x" * 101, "--role", "reader", "--stdin"], f"{PASSWORD}\n", "1 to 100"),
        (["remove", "nobody"], None, "there is no operator 'nobody'"),
        (["role", "nobody", "--role", "reader"], None, "there is no operator 'nobody'"),
        (["link", "nobody"], None, "there is no operator 'nobody'"),
        (["add", "olga", "--role", "king"], None, "'king' is not one of"),
    ],
)
def test_wrong_operators_are_refused(
    run: Any, arguments: list[str], input: str | None, said: str
) -> None:
    answer = run("operators", *arguments, input=input)
    assert answer.exit_code == 2
    assert said in answer.output


def test_the_console_serves_until_it_is_stopped(run: Any, database: Database) -> None:
    command = [sys.executable, "-m", "autorenew", "console", "--port", "0"]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONUNBUFFERED": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("console on ").strip()
        assert httpx.get(f"{url}/readyz").json() == {"status": "ok", "missing": []}
        assert httpx.get(url).headers["location"] == "/sign-in"
        assert database.value("SELECT process FROM processes") == "console"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert database.value("SELECT ended_at IS NOT NULL FROM processes")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_another_role_than_its_own_is_refused(
    run: Any, database: Database, postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", postgres.role_url(database.name, "api"))
    answer = run("console")
    assert answer.exit_code == 2
    assert "connect as autorenew_console" in answer.output
