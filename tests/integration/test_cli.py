"""The commands people use on a fleet, against a database."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from tests.conftest import Database
from tests.support.given import line, order, wait_until


@pytest.fixture
def cli(database: Database, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", database.url)

    def run(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, words, input=stdin)

    return run


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(text) for text in result.stdout.splitlines()]


def ndjson(*documents: Any) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)


def test_a_file_of_orders_is_placed_and_may_be_placed_again(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "orders.ndjson"
    path.write_text(ndjson(order("k-1"), order("k-2", customer="bob")) + "\n")

    first, second = cli("order", "place", str(path)), cli("order", "place", str(path))

    assert (first.exit_code, first.stdout.strip()) == (0, "2 accepted")
    assert (second.exit_code, second.stdout.strip()) == (0, "2 repeated")


def test_problems_of_an_order_name_its_line_and_field(cli: Any) -> None:
    bad = ndjson(order("k-1"), order("k-2", line("nothing"))) + "not json\n"

    result = cli("order", "place", "-", stdin=bad)

    assert result.exit_code == 1
    assert "line 2 (k-2): refused: plan_unknown at lines.0.plan" in result.stderr
    assert "line 3 (no key): rejected: not_json" in result.stderr
    assert "1 accepted, 1 refused, 1 rejected" in result.stdout


def test_the_keys_of_a_file_belong_to_the_upstream_it_names(cli: Any) -> None:
    for upstream, customer in (("shop", "alice"), ("partner", "bob")):
        document = ndjson(order("k-1", customer=customer))
        assert cli("order", "place", "-", "--upstream", upstream, stdin=document).exit_code == 0

    ambiguous = cli("order", "show", "k-1")
    assert ambiguous.exit_code == 2
    assert "name --upstream" in ambiguous.stderr
    assert cli("order", "show", "k-1", "--upstream", "shop").exit_code == 0


def test_the_timeline_of_an_order_shows_waits_and_attempts(
    cli: Any, embedded: Any, database: Database
) -> None:
    fleet = embedded([{"fault": "error", "operation": "create", "times": 6}])
    database.place(order("k-1", line(quantity=2)))
    fleet.wait_until_idle(30)

    shown = rows(cli("order", "show", "k-1", "--json"))

    names = [row["event"] for row in shown if row["subject"] == "order"]
    assert names == ["order.accepted", "order.priced", "order.paid", "order.delivered"]
    for unit in ("service 1.1", "service 1.2"):
        events = [row for row in shown if row["subject"] == unit]
        assert events[0]["event"] == "operation.unknown"
        assert events[-1]["event"] == "service.delivered"
        assert {row["attempt"] for row in events if row["attempt"]} >= {1, 2}
    assert all(float(row["waited_s"]) >= 0 for row in shown if row["waited_s"])


def test_failed_tasks_are_listed_retried_and_cancelled(
    cli: Any, embedded: Any, database: Database
) -> None:
    fleet = embedded([{"fault": "refuse", "operation": "create"}])
    database.place(order("k-1"), order("k-2", line("vm"), customer="bob"))
    fleet.wait_until_idle(30)

    found = rows(cli("failed", "list", "--json"))
    assert [(f["queue"], f["order"], f["reason"]) for f in found] == [
        ("cloud", "k-2", "driver_refused"),
        ("web", "k-1", "driver_refused"),
    ]
    assert len(rows(cli("failed", "list", "--queue", "web", "--json"))) == 1
    assert rows(cli("failed", "list", "--reason", "gateway_unknown", "--json")) == []

    fleet.simulator.simulator.faults.clear()
    assert cli("failed", "retry", found[1]["subject"]).exit_code == 0
    assert cli("failed", "cancel", found[0]["subject"], "--yes").exit_code == 0
    fleet.wait_until_idle(30)

    states = database.all("SELECT key, state FROM orders ORDER BY key")
    assert states == [("k-1", "delivered"), ("k-2", "cancelled")]
    assert cli("failed", "retry", found[0]["subject"]).exit_code == 1
    gone = cli("failed", "cancel", found[0]["subject"], "--yes")
    assert gone.exit_code == 2
    assert "has no failed task" in gone.stderr


def test_a_paused_lane_is_shown_holds_its_tasks_and_goes_on(
    cli: Any, embedded: Any, database: Database
) -> None:
    fleet = embedded()
    database.place(order("k-1"))
    fleet.wait_until_idle(30)
    assert cli("lanes", "pause", "nonsense", "--reason", "x").exit_code == 2
    assert cli("lanes", "pause", "driver:web", "--reason", "maintenance").exit_code == 0
    database.place(order("k-2"))

    def lane() -> dict[str, Any]:
        listed = rows(cli("lanes", "list", "--json"))
        return next(row for row in listed if row["lane"] == "driver:web")

    wait_until(lambda: lane()["tasks"] == 1, "its task waits")
    assert lane()["reason"] == "maintenance"
    assert database.value("SELECT state FROM orders WHERE key = 'k-2'") == "paid"
    assert cli("lanes", "resume", "driver:web").exit_code == 0
    fleet.wait_until_idle(30)

    assert database.value("SELECT count(*) FROM orders WHERE state = 'delivered'") == 2


def test_rejected_documents_are_listed_with_their_reasons(cli: Any) -> None:
    cli("order", "place", "-", stdin="nonsense\n" + ndjson(order("k-1", line(quantity=999))))

    found = rows(cli("rejected", "list", "--json"))

    assert {row["code"] for row in found} == {"not_json", "quantity_out_of_bounds"}
    assert "nonsense" not in json.dumps(found)
    assert cli("rejected", "list").exit_code == 0


def test_audit_that_finds_a_problem_ends_with_1_and_names_it(cli: Any, database: Database) -> None:
    database.place(order("k-1"))
    assert cli("audit").exit_code == 0

    database.run("DELETE FROM tasks")

    result = cli("audit", "--json")
    assert result.exit_code == 1
    broken = [row for row in rows(result) if row["broken"]]
    # Its batch holds a task, too, that is not there.
    assert [row["check"] for row in broken] == ["ledger.rest", "ledger.batches"]
    assert broken[0]["invariant"] == "what is not at rest has a task"
    assert broken[0]["ids"] == [str(database.value("SELECT id FROM orders"))]
    assert broken[0]["named"] == ["order k-1 of shop"]


def test_a_catalogue_is_loaded_imported_and_listed(cli: Any, database: Database) -> None:
    assert cli("catalogue", "load", "--bundled").exit_code == 0
    extract = "schemas/catalogue/bundled/ovh-eco-IE.json.gz"

    imported = cli("catalogue", "import-ovh", extract)

    assert imported.exit_code == 0
    assert "146 plans of IE" in imported.stdout
    assert "skipped commitments" in imported.stdout
    assert "not priced" in imported.stdout
    assert len(rows(cli("catalogue", "list", "--json"))) > 150


def test_a_plan_that_went_off_sale_is_refused_and_its_orders_are_kept(
    cli: Any, database: Database, tmp_path: Path
) -> None:
    database.place(order("k-1"))
    assert cli("catalogue", "load", "--bundled").exit_code == 0

    (answer,) = database.place(order("k-2"))

    assert {p.code for p in answer.problems} >= {"plan_unknown"}
    assert database.value("SELECT count(*) FROM orders") == 2


@pytest.mark.parametrize(
    ("queue", "variable"),
    [
        ("billing", "AUTORENEW_GATEWAY_URL"),
        ("web", "AUTORENEW_DRIVER_URLS"),
        ("reminders", "AUTORENEW_SMTP_URL"),
    ],
)
def test_worker_refuses_to_start_without_the_settings_of_its_queue(
    cli: Any, monkeypatch: pytest.MonkeyPatch, queue: str, variable: str
) -> None:
    monkeypatch.setenv("AUTORENEW_BROKER_URL", "amqp://127.0.0.1:1")

    result = cli("worker", queue)

    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"autorenew: {variable} is not set")


@pytest.mark.parametrize("words", [["worker", "orders"], ["relay"], ["scheduler"], ["intake"]])
def test_process_with_another_clock_than_its_database_refuses_to_start(
    cli: Any, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("AUTORENEW_BROKER_URL", "amqp://127.0.0.1:1")
    monkeypatch.setenv("AUTORENEW_CLOCK", "virtual")

    result = cli(*words)

    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.endswith("this database lives on the real clock")


def test_invoices_of_a_customer_are_listed_and_shown(
    cli: Any, embedded: Any, database: Database
) -> None:
    fleet = embedded()
    database.place(order("k-1"))
    fleet.wait_until_idle(20)

    (listed,) = rows(cli("invoice", "list", "alice", "--json"))
    (shown,) = rows(cli("invoice", "show", listed["number"], "--json"))

    assert shown["order_key"] == "k-1"
    assert (shown["customer"], shown["total"]) == ("alice", listed["total"])
    assert sum(one["net"]["amount"] for one in shown["lines"]) == listed["net"]["amount"]
    said = cli("invoice", "show", listed["number"]).stdout
    assert f"invoice        {listed['number']}" in said
    assert "total          45.44 EUR" in said
    for unknown in (("show", "FR-1"), ("list", "nobody")):
        assert cli("invoice", *unknown).exit_code == 2


def test_secret_of_a_webhook_and_what_became_of_a_test_are_told_to_scripts(cli: Any) -> None:
    added = cli("webhooks", "add", "shop", "https://shop.example/", "--realm", "r", "--json")
    (first,) = rows(added)
    assert first | {"secret": ""} == {
        "name": "shop", "url": "https://shop.example/", "realm": "r", "secret": ""
    }  # fmt: skip
    (second,) = rows(cli("webhooks", "rotate", "shop", "--json"))
    assert first["secret"].startswith("whsec_")
    assert second["secret"].startswith("whsec_")
    assert second["secret"] != first["secret"]

    tried = cli("webhooks", "test", "shop", "--wait", "0", "--json")  # nobody delivers here

    assert tried.exit_code == 1
    (said,) = rows(tried)
    assert (said["delivered"], said["attempts"], said["answer"]) == (False, 0, None)


@pytest.mark.parametrize(
    "words", [["audit"], ["failed", "list"], ["order", "show", "x"], ["catalogue", "list"]]
)
def test_unreachable_database_is_a_one_line_error(words: list[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", "postgresql://nobody:x@127.0.0.1:1/none")

    result = CliRunner().invoke(main, words)

    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "cannot use the database" in result.stderr
