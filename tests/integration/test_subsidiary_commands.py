"""``autorenew subsidiary``: an operator changes what services depend on."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import Database
from tests.integration.test_cli import cli, rows
from tests.support.given import CATALOGUE, order

__all__ = ["cli"]  # a fixture

HEAD = """
[[subsidiary]]
code = "FR"
entity = "Hosting SAS"
country = "FR"
currency = "CHF"
timezone = "Europe/Paris"
language = "fr"

[[contract]]
code = "terms"
version = 2
title = "Terms"
url = "https://example.com/terms/2"
"""


@pytest.fixture
def francs(tmp_path: Path) -> str:
    """Files in which FR pays in Swiss francs."""
    plans = [
        f"""
[[plan]]
code = "{plan.code}"
name = "{plan.name}"
universe = "{plan.universe}"
brand = "{plan.brand}"
driver = "{plan.driver}"
contract = "terms"
prices.FR.P1M = {{ renewal = "40.00" }}
prices.FR.P12M = {{ renewal = "400.00" }}
"""
        for plan in CATALOGUE.plans.values()
    ]
    path = tmp_path / "francs.toml"
    path.write_text(HEAD + "".join(plans))
    return str(path)


@pytest.fixture
def sold(embedded: Any, database: Database) -> Any:
    """A fleet with one service."""
    fleet = embedded()
    database.place(order())
    fleet.wait_until_idle(30)
    return fleet


def change(cli: Any, *words: str) -> Any:
    return cli("subsidiary", "change", "FR", *words)


def test_a_dry_run_says_what_a_change_concerns_and_changes_nothing(
    cli: Any, sold: Any, francs: str, database: Database
) -> None:
    words = ("--currency", "CHF", "--catalogue", francs, "--dry-run")
    result = change(cli, *words)

    assert result.exit_code == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert first.startswith("subsidiary FR: currency: EUR becomes CHF on ")
    assert second == ("concerned: 1 services, 0 orders not priced, 0 open requests, 0 announced")
    assert third == "nothing speaks against it; nothing was changed"
    (document,) = rows(change(cli, *words, "--json"))
    assert document["outcome"] == "checked"
    assert document["changes"] == {"currency": {"from": "EUR", "to": "CHF"}}
    assert document["services"] == 1
    assert database.value("SELECT count(*) FROM subsidiary_changes") == 0


def test_it_is_asked_before_anything_is_changed(
    cli: Any, sold: Any, francs: str, database: Database
) -> None:
    words = ("subsidiary", "change", "FR", "--currency", "CHF", "--catalogue", francs)
    refused = cli(*words, stdin="n\n")
    assert refused.exit_code == 1
    assert database.value("SELECT count(*) FROM subsidiary_changes") == 0

    agreed = cli(*words, stdin="y\n")
    assert agreed.exit_code == 0, agreed.stderr
    currency = "SELECT definition->>'currency' FROM subsidiaries WHERE code = 'FR'"
    assert database.value(currency) == "CHF"
    assert database.value("SELECT renewal FROM prices WHERE plan = 'site'"
                          " AND subsidiary = 'FR' AND period_months = 1") == 4000  # fmt: skip


def test_a_planned_change_is_listed_and_withdrawn(cli: Any, sold: Any, francs: str) -> None:
    words = ("--currency", "CHF", "--catalogue", francs, "--since", "2099-01-01", "--yes", "--json")
    (document,) = rows(change(cli, *words))
    assert document["outcome"] == "planned"

    (row,) = rows(cli("subsidiary", "planned", "--json"))
    assert (row["subsidiary"], row["since"], row["currency"], row["state"]) == (
        "FR", "2099-01-01", "CHF", "planned",
    )  # fmt: skip
    again = change(cli, *words)
    assert again.exit_code == 2
    assert "a change is planned for 2099-01-01" in again.stderr
    withdrawn = cli("subsidiary", "withdraw", "FR")
    assert withdrawn.stdout == "the change of subsidiary FR on 2099-01-01 is withdrawn\n"
    assert cli("subsidiary", "withdraw", "FR").exit_code == 2
    assert "none" in cli("subsidiary", "planned").stdout


def test_a_reader_that_does_not_end_is_named_and_nothing_is_changed_or_planned(
    cli: Any, sold: Any, database: Database
) -> None:
    with database.owner.connect() as reader:
        reader.execute(text("SELECT version FROM catalogue_version"))
        said = cli("subsidiary", "change", "FR", "--timezone", "Europe/London", "--yes")

    assert said.exit_code == 2
    assert "such as a backup: nothing was changed or planned" in said.stderr
    assert database.value("SELECT count(*) FROM subsidiary_changes") == 0


def test_a_time_zone_needs_no_files(cli: Any, sold: Any, database: Database) -> None:
    result = change(cli, "--timezone", "Europe/London", "--yes")
    assert result.exit_code == 0, result.stderr
    zone = "SELECT definition->>'timezone' FROM subsidiaries WHERE code = 'FR'"
    assert database.value(zone) == "Europe/London"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "name what to change"),
        (("--currency", "CHF"), "needs prices"),
        (("--currency", "XXQ", "--catalogue", "x"), "--currency"),
        (("--timezone", "Europe/Nowhere"), "not an IANA time zone"),
        (("--country", "XX"), "--country"),
        (("--timezone", "Europe/Paris"), "it is so already"),
        (("--timezone", "Europe/London", "--since", "2020-01-01"), "has passed"),
        (("--currency", "CHF", "--catalogue", "nowhere.toml"), "no such file"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(
    cli: Any, database: Database, words: tuple[str, ...], why: str
) -> None:
    result = change(cli, *words, "--yes")
    assert result.exit_code == 2
    assert why in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_subsidiary_is_refused(cli: Any, database: Database) -> None:
    result = cli("subsidiary", "change", "QQ", "--timezone", "Europe/London", "--yes")
    assert (result.exit_code, result.stderr) == (2, "autorenew: there is no subsidiary 'QQ'\n")


def test_missing_prices_are_listed_a_line_each(cli: Any, sold: Any, francs: str) -> None:
    path = Path(francs)
    path.write_text(path.read_text().replace("prices.FR.P1M", "prices.FR.P3M"))
    result = change(cli, "--currency", "CHF", "--catalogue", francs, "--yes")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "autorenew: plan site: no price in CHF for P1M in FR, and services are renewed by it"
    ]


def test_a_load_warns_of_what_a_planned_change_has_no_price_for(
    cli: Any, sold: Any, francs: str, tmp_path: Path
) -> None:
    euros = tmp_path / "euros.toml"
    text = Path(francs).read_text().replace("CHF", "EUR")
    words = ("--currency", "CHF", "--catalogue", francs, "--since", "2099-01-01", "--yes")
    assert change(cli, *words).exit_code == 0
    euros.write_text(text.replace("prices.FR.P1M", "prices.FR.P6M"))

    loaded = cli("catalogue", "load", str(euros))

    assert loaded.exit_code == 0, loaded.stderr
    assert "subsidiary FR changes to CHF on 2099-01-01" in loaded.stderr
    assert "no price for site, P6M" in loaded.stderr


def test_json_is_one_document(cli: Any, sold: Any, francs: str) -> None:
    result = change(cli, "--currency", "CHF", "--catalogue", francs, "--yes", "--json")
    assert json.loads(result.stdout)["outcome"] == "in force"
