"""The documentation says as which role a command works; those that only read are tried as each."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from autorenew.cli import main
from schemas.tables import ROLES
from tests.conftest import Database
from tests.support.given import order

PAGE = Path(__file__).parents[2] / "docs/reference/command-line.md"
# What needs no far side, and changes nothing: the command in the table -> how it is called.
READING = {
    "catalogue list": (),
    "subsidiary planned": (),
    "service list": ("--customer", "c-1"),
    "customer show CUSTOMER": ("c-1",),
    "invoice list CUSTOMER": ("c-1",),
    "far-side list": (),
    "rollout list": (),
    "forecast": (),
    "order show KEY": ("k-1",),
    "rejected list": (),
    "tasks list [NAMES]": (),
    "tasks show NAME": ("k-1",),
    "failed list [NAMES]": (),
    "lanes list": (),
    "lanes show LANE": ("gateway",),
    "seals heads": (),
}


def documented() -> dict[str, set[str]]:
    """Command -> the roles as which it works."""
    found = {}
    for row in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        name = cells[0].strip("` |")
        if name in READING:
            said = cells[-1].split(";")[0]
            roles = {role for role in re.findall(r"`(\w+)`", said) if role in ROLES}
            found[name] = set(ROLES) - roles if said.startswith("any role") else roles
    return found


def test_every_reading_command_is_in_the_table() -> None:
    assert documented().keys() == READING.keys()
    assert all(documented().values())


@pytest.mark.parametrize("command", READING)
def test_command_works_as_each_role_that_is_documented(database: Database, command: str) -> None:
    database.place(order("k-1", customer="c-1"))
    words = re.findall(r"[a-z-]+", re.sub(r"\[?[A-Z]+\]?", "", command))

    refused = {}
    for role in documented()[command]:
        url = database.engine(role).url.set(drivername="postgresql")
        environment = {"AUTORENEW_DATABASE_URL": url.render_as_string(hide_password=False)}
        said = CliRunner().invoke(main, [*words, *READING[command]], env=environment)
        if said.exit_code == 2:
            refused[role] = said.output

    assert refused == {}


def test_command_as_a_role_without_its_rights_says_where_its_role_is(database: Database) -> None:
    url = database.engine("api").url.set(drivername="postgresql")
    environment = {"AUTORENEW_DATABASE_URL": url.render_as_string(hide_password=False)}
    said = CliRunner().invoke(main, ["rejected", "list"], env=environment)
    assert said.exit_code == 2
    assert "docs/reference/command-line.md" in said.output
