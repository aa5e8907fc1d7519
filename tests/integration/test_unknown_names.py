"""A name that does not exist is told as such, by every command and page that takes one."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from tests.conftest import Database
from tests.support.given import order


@pytest.fixture
def run(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def run(role: str, *words: str) -> Result:
        engine = database.owner if role == "owner" else database.engine(role)
        url = engine.url.set(drivername="postgresql")
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.render_as_string(hide_password=False))
        return CliRunner().invoke(main, words)

    return run


SELECTORS = ("customer", "plan", "driver", "lane", "queue", "step", "universe", "upstream",
             "order", "service", "reason")  # fmt: skip
LISTS = (("failed", "list"), ("failed", "list", "--group"), ("failed", "retry", "--dry-run"),
         ("tasks", "list"))  # fmt: skip
KEY = ("api", "keys", "create", "--name", "k", "--realm", "x", "--scope", "orders:write")
OTHERS = (
    ("readonly", "service", "list", "--customer"),
    ("readonly", "customer", "show"),
    ("readonly", "forecast", "--brand"),
    ("readonly", "order", "show"),
    ("api", "lanes", "show"),
    ("api", "customer", "assign", "x", "alice"),
    ("api", "bulk", "show"),
    ("api", "keys", "revoke"),
    (*KEY, "--brand"),
    (
        "api",
        "keys",
        "create",
        "--name",
        "k",
        "--realm",
        "x",
        "--scope",
        "orders:write",
        "--subsidiary",
    ),
    ("api", "webhooks", "show"),
    ("owner", "rollout", "remove", "ovh"),
    ("console", "operators", "link"),
)


def test_an_unknown_name_is_an_error_and_never_none(run: Any, database: Database) -> None:
    database.place(order("k-1"))
    commands = [
        ("readonly", *words, f"--{name}")
        for words in LISTS
        for name in SELECTORS
        if (words[1], name) != ("retry", "upstream")  # which selects nothing by itself
    ]
    for role, *words in (*commands, *OTHERS):
        result = run(role, *words, "no-such-name")
        assert result.exit_code == 2, (words, result.output)
        said = result.output + str(result.exception)
        assert "no-such-name" in said, (words, said)
        assert "Traceback" not in said

    assert database.value("SELECT realm FROM customers WHERE id = 'alice'") != "x"
    assert database.value("SELECT count(*) FROM api_keys") == 0
    assert run("readonly", "service", "list", "--customer", "alice").exit_code == 0
    assert run("api", "customer", "assign", "x", "alice").exit_code == 0
