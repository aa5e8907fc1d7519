"""The commands about failed work: by groups, one by one, and in bulk."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from autorenew.cli.lines import WIDTH
from monitoring.audit import audit
from tests.conftest import Database
from tests.integration.test_selection import REFUSE, rows
from tests.support.given import line, order, wait_until


@pytest.fixture
def cli(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def run(*words: str, role: str = "api", stdin: str | None = None) -> Result:
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url_of(database, role))
        result = CliRunner().invoke(main, words, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


def url_of(database: Database, role: str) -> str:
    url = database.engine(role).url.set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


class Shop:
    """Twelve services of two customers that are out of stock."""

    def __init__(self, fleet: Any, database: Database) -> None:
        self.fleet = fleet
        self.database = database
        site = line("site", quantity=5, domain="alice.example")
        long = "a-customer-with-a-name-that-does-not-end-soon"
        database.place(
            order("k-1", site, line("vm")),
            order("a-key-that-is-longer-than-its-column", site, line("vm"), customer=long),
        )
        fleet.wait_until_idle(30)

    def mend(self) -> None:
        self.fleet.simulator.simulator.faults.clear()

    def service(self, plan: str = "vm") -> str:
        query = "SELECT id FROM services WHERE plan = :plan AND customer_id = 'alice' LIMIT 1"
        return str(self.database.value(query, plan=plan))

    def states(self, plan: str) -> set[str]:
        query = "SELECT state FROM services WHERE plan = :plan"
        return {row.state for row in self.database.all(query, plan=plan)}

    def told(self, name: str) -> list[Any]:
        query = "SELECT detail FROM events WHERE name = :name ORDER BY id"
        return [row.detail for row in self.database.all(query, name=name)]

    def clean(self) -> None:
        with self.database.engine("readonly").connect() as tx:
            assert [finding for finding in audit(tx) if finding.broken] == []


@pytest.fixture
def shop(embedded: Any, database: Database) -> Shop:
    return Shop(embedded([REFUSE]), database)


class TestList:
    @pytest.mark.parametrize("words", [["failed", "list"], ["failed", "list", "--group"],
                                       ["failed", "retry", "--all", "--dry-run"]])  # fmt: skip
    def test_fits_80_columns_with_one_line_an_item(
        self, cli: Any, shop: Shop, words: list[str]
    ) -> None:
        listed = cli(*words).stdout.splitlines()

        assert max(map(len, listed)) <= WIDTH
        assert any("k-1" in row or "driver:web" in row for row in listed)

    def test_names_customer_and_order_and_says_how_many_more_there_are(
        self, cli: Any, shop: Shop
    ) -> None:
        first = cli("failed", "list", "--limit", "5").stdout.splitlines()
        second = cli("failed", "list", "--limit", "5", "--page", "2").stdout.splitlines()
        last = cli("failed", "list", "--limit", "5", "--page", "3").stdout.splitlines()

        assert len(first) == 7
        assert "and 7 more" in first[-1]
        assert "and 2 more" in second[-1]
        assert len(last) == 3
        shown = [row.split()[0] for page in (first[1:6], second[1:6], last[1:]) for row in page]
        assert len(set(shown)) == 12
        assert any("alice" in row and "k-1" in row for row in first)

    def test_page_after_the_last_says_how_many_there_are(self, cli: Any, shop: Shop) -> None:
        listed = cli("failed", "list", "--limit", "5", "--page", "4")
        groups = cli("failed", "list", "--group", "--page", "2")

        assert listed.stdout == "failed tasks: none on page 4, 12 in all\n"
        assert groups.stdout == "groups of failed tasks: none on page 2, 2 in all\n"
        cli("failed", "retry", "--all", "--limit", "1")
        operations = cli("bulk", "list", "--page", "2")
        assert operations.stdout == "bulk operations: none on page 2, 1 in all\n"

    def test_groups_are_limited_too(self, cli: Any, shop: Shop) -> None:
        listed = cli("failed", "list", "--group", "--limit", "1")

        assert [line.split()[0] for line in listed.stdout.splitlines()] == ["TASKS", "10", "and"]
        assert "and 1 more group" in listed.stdout

    def test_groups_have_counts_first_and_last_by_the_far_sides_own_code(
        self, cli: Any, shop: Shop
    ) -> None:
        groups = rows(cli("failed", "list", "--group", "--json"))

        assert [(g["tasks"], g["driver"], g["reason"], g["code"]) for g in groups] == [
            (10, "web", "driver_refused", "out_of_stock"),
            (2, "cloud", "driver_refused", "out_of_stock"),
        ]
        assert all(g["first_failed_at"] <= g["since"] for g in groups)

    def test_filters_by_reason_code_plan_driver_universe_and_time(
        self, cli: Any, shop: Shop
    ) -> None:
        def count(*words: str) -> int:
            return len(rows(cli("failed", "list", "--json", *words)))

        assert count("--reason", "out_of_stock") == count("--reason", "driver_refused") == 12
        assert count("--plan", "vm") == 2
        assert count("--driver", "web") == count("--universe", "web") == 10
        assert count("--since", "1h") == 12
        assert count("--since", "2099-01-01") == 0
        assert count("--plan", "vm", "--customer", "alice") == 1

    @pytest.mark.parametrize("words", [["--driver", "x"], ["--plan", "x"], ["--universe", "x"],
                                       ["--since", "soon"], ["--since", "99"]])  # fmt: skip
    def test_refuses_what_names_nothing(self, cli: Any, shop: Shop, words: list[str]) -> None:
        assert cli("failed", "list", *words).exit_code == 2
        assert cli("failed", "retry", *words).exit_code == 2


class TestShow:
    def test_has_all_attempts_what_is_next_and_what_may_exist(self, cli: Any, shop: Shop) -> None:
        service = shop.service()
        cli("failed", "retry", service, "--as", "eve", "--note", "stock is back")
        wait_until(lambda: len(shop.told("task.failed")) == 13, "it fails again")

        shown = cli("failed", "show", service[:8]).stdout

        assert max(map(len, shown.splitlines())) <= WIDTH
        assert shown.count("operation.refused") == 2
        assert "out_of_stock" in shown
        assert "by eve, because stock is back" in shown.replace("task converge, ", "")
        assert "create by driver cloud, generation 1" in shown
        assert "nothing by what the driver said: create failed (out_of_stock)" in shown

    def test_says_what_was_asked_for_and_that_it_can_be_corrected(
        self, cli: Any, shop: Shop
    ) -> None:
        shown = cli("failed", "show", shop.service("site")).stdout
        document = json.loads(
            cli("failed", "show", shop.service("site"), "--json").stdout.splitlines()[0]
        )

        assert "options     domain=alice.example\n" in shown
        assert "possible    retry, edit, cancel\n" in shown
        assert document["configuration"] == {"domain": "alice.example"}

    def test_of_what_has_succeeded_keeps_its_history(self, cli: Any, shop: Shop) -> None:
        refused = shop.service()
        shop.database.place(order("k-2", line("vm")))
        shop.mend()
        cli("failed", "retry", "--all")
        shop.fleet.wait_until_idle(30)

        shown = cli("failed", "show", refused[:8]).stdout

        assert "nothing waits for a person" in cli("failed", "show", "k-2").stdout
        several = cli("failed", "show", "k-1").stderr
        assert "'k-1' means several things, none of which has a failed task" in several
        assert f"service {shop.service('site')}" in several
        assert "payment request " in several
        assert "nothing waits for a person" in shown
        assert "operation.refused" in shown
        assert "service.delivered" in shown

    def test_what_is_in_doubt_may_exist(self, cli: Any, embedded: Any, database: Database) -> None:
        fleet = embedded([{"fault": "error", "operation": "create", "times": 100_000}])
        database.place(order("k-1"))
        fleet.wait_until_idle(30)

        document = json.loads(cli("failed", "show", "k-1", "--json").stdout.splitlines()[0])

        assert (document["next"], document["asks_first"]) == ("create", True)
        assert document["may_exist"] is True
        assert "create was begun" in document["over_there"]


class TestRetry:
    def test_of_a_group_follows_until_its_tasks_have_ended(self, cli: Any, shop: Shop) -> None:
        shop.mend()

        result = cli("failed", "retry", "--reason", "out_of_stock", "--note", "stock is back")

        assert result.exit_code == 0
        assert "12 sent: 12 done" in result.stdout
        assert shop.states("site") == shop.states("vm") == {"active"}
        shop.clean()

    def test_that_fails_again_says_which_and_ends_with_1(self, cli: Any, shop: Shop) -> None:
        result = cli("failed", "retry", "--driver", "web")

        assert result.exit_code == 1
        assert "halted" in result.stdout
        assert "1 failed again" in result.stdout
        assert "driver_refused out_of_stock" in result.stdout

    def test_that_is_not_waited_for_returns_its_id_at_once(self, cli: Any, shop: Shop) -> None:
        shop.mend()

        result = cli("failed", "retry", "--all", "--detach", "--json", "--rate", "1/s")

        assert result.exit_code == 0
        id = json.loads(result.stdout)["id"]
        assert json.loads(cli("bulk", "show", id[:8], "--json").stdout)["state"] == "running"
        assert id[:8] in cli("bulk", "list", "--open").stdout
        stopped = cli("bulk", "stop", id, "--as", "mia", "--note", "not yet")
        assert stopped.exit_code == 0
        wait_until(
            lambda: json.loads(cli("bulk", "show", id, "--json").stdout)["is_over"], "it ends"
        )
        assert "stopped by mia: not yet" in cli("bulk", "show", id).stdout
        assert cli("bulk", "stop", id).exit_code == 2

    def test_without_names_filter_or_all_is_a_question(self, cli: Any, shop: Shop) -> None:
        assert cli("failed", "retry").exit_code == 2
        assert cli("failed", "cancel", "--yes").exit_code == 2
        assert cli("failed", "retry", "k-1", "--all").exit_code == 2

    def test_goes_on_after_ctrl_c(self, cli: Any, shop: Shop) -> None:
        shop.mend()
        command = [sys.executable, "-m", "autorenew", "failed", "retry", "--all", "--rate", "1"]
        environment = {"AUTORENEW_DATABASE_URL": url_of(shop.database, "api")}
        process = subprocess.Popen(
            command, env=environment | _inherited(), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            # Whoever runs the tests in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        wait_until(lambda: len(shop.told("bulk.started")) == 1, "it begins")
        time.sleep(0.5)  # until it is followed
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

        assert process.returncode == 130
        assert "goes on: see `autorenew bulk show" in said
        wait_until(lambda: len(shop.told("bulk.done")) == 1, "it is done without us")
        assert shop.states("site") == {"active"}


def _inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}


class TestCancel:
    def test_of_a_group_asks_with_the_sum_of_money_and_gives_it_back(
        self, cli: Any, shop: Shop
    ) -> None:
        words = ("failed", "cancel", "--plan", "site", "--note", "not made any more")
        asked = cli(*words, stdin="n\n")
        assert asked.exit_code == 1
        assert "Give 10 tasks up, and refund 454.44 EUR" in asked.stdout
        assert shop.states("site") == {"delivering"}

        result = cli(*words, stdin="y\n")
        shop.fleet.wait_until_idle(30)

        assert result.exit_code == 0
        assert shop.states("site") == {"cancelled"}
        assert shop.states("vm") == {"delivering"}
        refunded = "SELECT sum(amount) FROM refunds WHERE state = 'succeeded'"
        assert shop.database.value(refunded) == 45444
        shop.clean()

    def test_of_a_name_says_the_sum_too(self, cli: Any, shop: Shop) -> None:
        asked = cli("failed", "cancel", shop.service(), stdin="n\n")

        assert "Give 1 task up, and refund 45.44 EUR" in asked.stdout

    def test_dry_run_says_the_sum_as_well(self, cli: Any, shop: Shop) -> None:
        words = ("failed", "cancel", "--plan", "site", "--dry-run")

        said = cli(*words).stdout
        document = json.loads(cli(*words, "--json").stdout.splitlines()[-1])

        assert "10 tasks would be given up, and 454.44 EUR refunded" in said
        refund = [{"amount": 45444, "currency": "EUR"}]
        assert document == {"total": 10, "refund": refund}
        assert shop.states("site") == {"delivering"}

    def test_of_names_says_as_json_what_became_of_each(self, cli: Any, shop: Shop) -> None:
        service = shop.service()

        result = cli("failed", "cancel", service, "--yes", "--json")

        assert rows(result) == [{"subject": service, "became": "cancelled", "problem": None}]


class TestEdit:
    def test_corrects_what_was_refused_and_tries_it_again(self, cli: Any, shop: Shop) -> None:
        shop.mend()
        service = shop.service("site")

        result = cli("failed", "edit", service[:8], "--set", "domain=right.example",
                     "--as", "eve", "--note", "a slip")  # fmt: skip
        shop.fleet.wait_until_idle(30)

        assert result.exit_code == 0
        assert "domain: alice.example -> right.example" in result.stdout
        assert shop.told("service.edited") == [
            {
                "before": {"domain": "alice.example"},
                "after": {"domain": "right.example"},
                "by": "eve",
                "because": "a slip",
            }
        ]
        query = "SELECT state, configuration->>'domain' AS domain FROM services WHERE id = :id"
        (found,) = shop.database.all(query, id=uuid.UUID(service))
        assert tuple(found) == ("active", "right.example")
        shop.clean()

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--set", "size=big"], "option_unknown"),
            (["--set", "domain=alice.example"], "no change"),
            (["--set", "domain="], "configuration.domain"),
            (["--set", "domain"], "OPTION=VALUE"),
            (["--unset", "size"], "not set"),
            (["--set", "domain=a", "--unset", "domain"], "more than once"),
            ([], "say what"),
        ],
    )
    def test_refuses_what_an_order_would_be_refused_for(
        self, cli: Any, shop: Shop, words: list[str], said: str
    ) -> None:
        result = cli("failed", "edit", shop.service("site"), *words, "--note", "x")

        assert result.exit_code == 2
        assert said in result.stderr
        assert shop.told("service.edited") == shop.told("task.retried") == []

    def test_that_would_change_nothing_starts_nothing(self, cli: Any, shop: Shop) -> None:
        words = ("failed", "edit", "--plan", "site", "--set", "size=big", "--note", "x")

        for result in (cli(*words), cli(*words, "--yes")):
            assert result.exit_code == 1
            assert "10 services would be refused" in result.stdout
            assert "option_unknown" in result.stdout
            assert "nothing was done" in result.stderr
        done = cli("failed", "done", "--plan", "site", "--because", "x", role="console")
        assert (done.exit_code, "nothing was done" in done.stderr) == (1, True)
        assert shop.told("bulk.started") == []

    def test_of_what_a_filter_finds_is_foreseen_done_in_batches_and_refused_one_by_one(
        self, cli: Any, shop: Shop
    ) -> None:
        words = ("failed", "edit", "--reason", "out_of_stock", "--set", "domain=right.example",
                 "--note", "a slip", "--as", "eve")  # fmt: skip
        named = ("failed", "edit", shop.service("site"), *words[4:])
        assert cli(*named).exit_code == 0  # at once, and in vain
        shop.fleet.wait_until_idle(30)

        dry = cli(*words, "--dry-run", "--json")
        foreseen = json.loads(dry.stdout)
        assert (dry.exit_code, foreseen["changed"]) == (0, 9)
        refused = {r["services"]: r["problem"] for r in foreseen["refused"]}
        assert "option_unknown" in refused[2]  # a vm has no domain
        assert "no change" in refused[1]
        assert cli(*words, stdin="n\n").exit_code == 1
        assert cli("failed", "edit", "--driver", "nosuch", *words[4:]).exit_code == 2
        assert cli("failed", "edit", *words[4:]).exit_code == 2  # nothing is selected
        assert len(shop.told("service.edited")) == 1

        halted = cli(*words, "--yes", "--plan", "site")
        assert halted.exit_code == 1  # it fails again in the same way: the first one only
        assert len(shop.told("service.edited")) <= 2

        right = "SELECT count(*) FROM services WHERE configuration->>'domain' = 'right.example'"
        unchanged = shop.database.value(right)
        shop.mend()
        result = cli(*words, "--yes")
        shop.fleet.wait_until_idle(30)

        assert result.exit_code == 1
        assert f"{2 + unchanged} skipped" in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= WIDTH
        said = " ".join(result.stdout.split())
        assert "2 skipped in lane driver:cloud (" in said
        assert "option_unknown at configuration.domain: vm has no such option" in said
        assert shop.database.value(right) == 10
        assert "active" in shop.states("site")
        assert shop.states("vm") == {"delivering"}
        told = shop.told("service.edited")
        assert {(t["by"], t["because"], t["after"]["domain"]) for t in told} == {
            ("eve", "a slip", "right.example")
        }
        assert ["bulk" in t for t in told] == [False] + [True] * 9
        shop.clean()

    def test_refuses_what_is_delivered_and_what_is_in_doubt(self, cli: Any, shop: Shop) -> None:
        service = shop.service("site")
        words = ("failed", "edit", service, "--set", "domain=b.example", "--note", "x")
        shop.database.run("UPDATE operations SET state = 'pending', ended_at = NULL")
        assert "may have been done" in cli(*words).stderr
        shop.database.run("UPDATE operations SET state = 'failed', ended_at = now()")
        shop.mend()
        cli("failed", "retry", "--all")
        assert "is active" in cli(*words).stderr
