"""Commands act on exactly the tasks that they select, and refuse what names nothing."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from tests.conftest import Database
from tests.support.given import line, order, wait_until

REFUSE = {"fault": "refuse", "operation": "create", "times": 10_000}
NOBODY = str(uuid.UUID(int=7))


@pytest.fixture
def cli(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def run(*words: str, role: str = "api", stdin: str | None = None) -> Result:
        url = database.engine(role).url.set(drivername="postgresql")
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.render_as_string(hide_password=False))
        result = CliRunner().invoke(main, words, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(row) for row in result.stdout.splitlines()]


class Shop:
    """Three orders whose services could not be delivered: each a failed task."""

    def __init__(self, fleet: Any, database: Database) -> None:
        self.fleet = fleet
        self.database = database
        database.place(
            order("k-1", line("site", domain="alice.example")),
            order("k-2", line("vm"), customer="bob"),
            order("k-3", line("server"), customer="carol"),
        )
        fleet.wait_until_idle(30)
        self.of = {
            row.key: str(row.id)
            for row in database.all(
                "SELECT o.key, s.id FROM services AS s JOIN orders AS o ON o.id = s.order_id"
            )
        }

    def hold(self) -> None:
        """Nothing that becomes ready is done."""
        self.database.run(
            "INSERT INTO lane_pauses (lane, reason) SELECT DISTINCT lane, 'test' FROM routes"
        )

    def fail(self, name: str, subject: str, queue: str, lane: str) -> None:
        self.database.run(
            "INSERT INTO tasks (name, subject, queue, lane, state, reason, error, attempts)"
            " VALUES (:name, :subject, :queue, :lane, 'failed', 'defect', 'x', 1)",
            name=name, subject=subject, queue=queue, lane=lane,
        )  # fmt: skip

    def states(self) -> dict[tuple[str, str], str]:
        found = self.database.all("SELECT queue, name, state FROM tasks")
        return {(row.queue, row.name): row.state for row in found}

    def told(self, name: str) -> list[Any]:
        return [
            row.detail
            for row in self.database.all(
                "SELECT detail FROM events WHERE name = :name ORDER BY id", name=name
            )
        ]


@pytest.fixture
def shop(embedded: Any, database: Database) -> Shop:
    return Shop(embedded([REFUSE]), database)


class TestRetry:
    def test_of_a_queue_leaves_tasks_of_the_same_subjects_on_other_queues(
        self, cli: Any, shop: Shop
    ) -> None:
        shop.hold()
        shop.fail("suspend", shop.of["k-1"], "billing", "destructive")

        result = cli("failed", "retry", "--all", "--queue", "billing", "--no-wait")

        assert result.exit_code == 0
        assert "retry of 1 task goes on by itself" in result.stdout
        wait_until(lambda: shop.states()["billing", "suspend"] == "ready", "it is retried")
        assert shop.states() == {
            ("billing", "suspend"): "ready",
            ("cloud", "converge"): "failed",
            ("dedicated", "converge"): "failed",
            ("web", "converge"): "failed",
        }

    def test_of_one_step_of_a_subject_leaves_its_other_steps(self, cli: Any, shop: Shop) -> None:
        shop.hold()
        shop.fail("suspend", shop.of["k-1"], "billing", "destructive")

        assert cli("failed", "retry", shop.of["k-1"], "--step", "converge").exit_code == 0

        assert shop.states()["billing", "suspend"] == "failed"
        assert shop.states()["web", "converge"] == "ready"

    def test_of_an_unknown_id_beside_a_good_one_does_nothing_and_names_every_wrong_one(
        self, cli: Any, shop: Shop
    ) -> None:
        result = cli("failed", "retry", shop.of["k-1"], NOBODY, "k-99")

        assert result.exit_code == 2
        assert NOBODY in result.stderr
        assert "k-99" in result.stderr
        assert "nothing was done" in result.stderr
        assert set(shop.states().values()) == {"failed"}

    @pytest.mark.parametrize(
        ("name", "queue"),
        [("k-3", "dedicated"), ("alice.example", "web"), ("ALICE.example", "web"),
         ("order:k-2", "cloud"), ("customer:bob", "cloud"), ("carol", "dedicated"),
         ("domain:alice.example", "web")],
    )  # fmt: skip
    def test_takes_what_a_person_has(self, cli: Any, shop: Shop, name: str, queue: str) -> None:
        shop.hold()

        assert cli("failed", "retry", name).exit_code == 0

        assert [q for (q, _), state in shop.states().items() if state == "ready"] == [queue]

    def test_of_what_is_known_and_has_not_failed_says_so(self, cli: Any, shop: Shop) -> None:
        shop.hold()
        shop.database.run("DELETE FROM tasks WHERE queue = 'web'")

        result = cli("failed", "retry", "k-1", "k-2")

        assert result.exit_code == 1
        assert "k-1: no failed task" in result.stderr
        assert result.stdout.startswith("1 task is ready again\n")

    def test_of_a_name_that_may_be_two_things_asks_which(self, cli: Any, shop: Shop) -> None:
        shop.database.place(order("bob", customer="dave"))

        result = cli("failed", "list", "bob")

        assert result.exit_code == 2
        assert "say order:bob or customer:bob" in result.stderr
        assert cli("failed", "list", "customer:bob").exit_code == 0

    def test_of_a_key_of_several_upstreams_asks_whose(self, cli: Any, shop: Shop) -> None:
        shop.database.place(order("k-1", customer="dave"), upstream="partner")
        shop.fleet.wait_until_idle(30)

        assert "name --upstream" in cli("failed", "list", "k-1").stderr
        listed = rows(cli("failed", "list", "k-1", "--upstream", "partner", "--json"))

        assert [row["customer"] for row in listed] == ["dave"]

    def test_says_who_and_why_in_the_history(self, cli: Any, shop: Shop) -> None:
        shop.hold()
        cli("failed", "retry", "k-1", "--by", "eve", "--because", "stock is back")

        assert shop.told("task.retried") == [
            {"task": "converge", "by": "eve", "because": "stock is back"}
        ]

    def test_takes_so_many_at_most_and_says_how_many_are_left(self, cli: Any, shop: Shop) -> None:
        shop.hold()
        words = ("--all", "--state", "failed", "--limit", "2")
        result = cli("tasks", "run", *words)

        assert "2 tasks are ready again" in result.stdout
        assert "1 more, left by --limit" in result.stdout
        assert sorted(shop.states().values()) == ["failed", "ready", "ready"]

    def test_says_which_of_them_a_pause_holds_back(self, cli: Any, shop: Shop) -> None:
        shop.database.run(
            "INSERT INTO lane_pauses (lane, reason, paused_by) VALUES"
            " ('driver:web', 'an upgrade', 'eve')"
        )
        result = cli("failed", "retry", "k-1")

        assert "1 of them waits: lane driver:web is paused" in result.stdout
        assert "by eve" in result.stdout
        assert "an upgrade" in result.stdout

    def test_dry_run_changes_nothing(self, cli: Any, shop: Shop) -> None:
        result = cli("failed", "retry", "--all", "--dry-run")

        assert "3 tasks would be retried" in result.stdout
        assert set(shop.states().values()) == {"failed"}

    def test_keeps_since_when_and_how_often_it_has_failed(self, cli: Any, shop: Shop) -> None:
        (first,) = rows(cli("failed", "list", "k-1", "--json"))

        cli("failed", "retry", "k-1")
        wait_until(lambda: shop.states()["web", "converge"] == "failed", "it fails again")

        (again,) = rows(cli("failed", "list", "k-1", "--json"))
        assert again["first_failed_at"] == first["first_failed_at"] is not None
        assert (first["attempts"], first["total_attempts"]) == (1, 1)
        assert (again["attempts"], again["total_attempts"]) == (1, 2)
        older = rows(cli("failed", "list", "--older-than", "1h", "--json"))
        assert older == []
        shop.database.run("UPDATE tasks SET first_failed_at = now() - interval '2 h'"
                          " WHERE queue = 'web'")  # fmt: skip
        (older,) = rows(cli("failed", "list", "--older-than", "1h", "--json"))
        assert older["order"] == "k-1"


@pytest.mark.parametrize("command", ["failed list", "failed retry --all", "tasks list",
                                     "tasks run --all"])  # fmt: skip
@pytest.mark.parametrize(
    ("option", "value"),
    [("--queue", "nosuch"), ("--reason", "nosuch"), ("--step", "nosuch"), ("--lane", "nosuch"),
     ("--customer", "nosuch"), ("--order", "nosuch"), ("--service", NOBODY),
     ("--service", "nosuch"), ("--older-than", "soon"), ("--queue", ""), ("--reason", "\udcff")],
)  # fmt: skip
def test_option_that_names_nothing_known_is_refused(
    cli: Any, command: str, option: str, value: str
) -> None:
    result = cli(*command.split(), option, value)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "nosuch" in result.stderr or value not in ("nosuch",)


def test_reason_that_is_known_and_that_nothing_failed_for_is_none(cli: Any, shop: Shop) -> None:
    assert cli("failed", "list", "--reason", "gateway_unknown").exit_code == 0
    assert cli("failed", "retry", "--all", "--reason", "gateway_unknown").exit_code == 0
    shop.database.run("UPDATE tasks SET reason = 'of_a_driver_of_another_package'")
    listed = rows(cli("failed", "list", "--reason", "of_a_driver_of_another_package", "--json"))
    assert len(listed) == 3


class TestCancel:
    def test_of_what_cannot_be_cancelled_leaves_the_others_cancelled(
        self, cli: Any, shop: Shop
    ) -> None:
        shop.database.run("UPDATE services SET desired = 'absent' WHERE universe = 'web'")

        result = cli("failed", "cancel", "k-1", "k-2", "--yes", "--by", "eve", "--because", "asked")

        assert result.exit_code == 1
        assert result.stdout == "1 cancelled, 1 not\n"
        assert shop.of["k-1"] in result.stderr
        shop.fleet.wait_until_idle(30)
        states = dict(shop.database.all("SELECT key, state FROM orders"))
        assert states == {"k-1": "paid", "k-2": "cancelled", "k-3": "paid"}
        assert shop.told("task.cancelled") == [
            {"task": "converge", "by": "eve", "because": "asked"}
        ]

    def test_of_an_unknown_id_beside_a_good_one_does_nothing(self, cli: Any, shop: Shop) -> None:
        result = cli("failed", "cancel", shop.of["k-3"], NOBODY, "--yes")

        assert result.exit_code == 2
        assert "nothing was done" in result.stderr
        assert set(shop.states().values()) == {"failed"}
        assert cli("failed", "cancel", "--yes").exit_code == 2

    def test_shows_what_it_gives_up_before_it_asks(self, cli: Any, shop: Shop) -> None:
        result = cli("failed", "cancel", "k-3", stdin="n\n")

        assert result.exit_code == 1
        assert shop.of["k-3"][:8] in result.stdout
        assert "refund 45.44 EUR that was paid for them?" in result.stdout
        assert set(shop.states().values()) == {"failed"}


class TestWaiting:
    """What backs off is seen, and made ready."""

    @pytest.fixture
    def late(self, embedded: Any, database: Database) -> Any:
        """Twenty paid orders whose driver does not answer, with pauses of minutes."""
        faults = [{"fault": "error", "operation": "create", "times": 10_000}]
        fleet = embedded(
            faults, retry_base_seconds=3000.0, breaker={"failures": 1000}, call_seconds=10.0
        )
        database.place(*(order(f"k-{n}", line("site")) for n in range(20)))
        backing_off = "SELECT count(*) FROM tasks WHERE reason = 'driver_unknown'"
        wait_until(lambda: database.value(backing_off) == 20, "they back off")
        # A delay is drawn between none and fifty minutes.
        database.run("UPDATE tasks SET run_at = now() + interval '150 s' WHERE NOT batched")
        return fleet

    def test_is_listed_with_its_time_and_error(self, cli: Any, late: Any) -> None:
        listed = rows(cli("tasks", "list", "--state", "backing_off", "--json", role="readonly"))

        assert len(listed) == 20
        assert {row["state"] for row in listed} == {"backing_off"}
        assert {row["reason"] for row in listed} == {"driver_unknown"}
        assert all(row["until"] > row["first_failed_at"] for row in listed)
        assert {row["order"] for row in listed} == {f"k-{n}" for n in range(20)}
        assert {row["attempts"] for row in listed} == {1}
        shown = cli("tasks", "list", "--limit", "3")
        assert shown.stdout.splitlines()[-1] == "and 17 more; see --limit"
        as_json = cli("tasks", "list", "--limit", "3", "--json")
        assert len(rows(as_json)) == 3
        assert "and 17 more" in as_json.stderr

    def test_is_made_ready_once_the_cause_is_mended(
        self, cli: Any, late: Any, database: Database
    ) -> None:
        late.simulator.simulator.faults.clear()
        planned = cli("tasks", "run", "--all", "--queue", "web", "--dry-run")
        assert "20 tasks would be made ready" in planned.stdout
        assert database.value("SELECT count(*) FROM tasks WHERE run_at > now()") == 20
        started = time.monotonic()

        result = cli(
            "tasks", "run", "--all", "--queue", "web", "--by", "eve", "--because", "mended"
        )

        assert (result.exit_code, result.stdout) == (0, "20 tasks are ready again\n")
        wait_until(lambda: database.value("SELECT count(*) FROM tasks") == 0, "they are done")
        assert time.monotonic() - started < 60  # and not 150
        told = database.all("SELECT DISTINCT detail FROM events WHERE name = 'task.hurried'")
        assert [row.detail for row in told] == [
            {"task": "converge", "by": "eve", "because": "mended"}
        ]

    def test_keeps_its_attempts_when_it_is_made_ready(
        self, cli: Any, late: Any, database: Database
    ) -> None:
        assert cli("tasks", "run", "k-3").exit_code == 0

        attempts = (
            "SELECT attempts, total_attempts FROM tasks AS t JOIN services AS s ON s.id = t.subject"
            " JOIN orders AS o ON o.id = s.order_id WHERE o.key = 'k-3'"
        )
        wait_until(lambda: database.all(attempts) == [(2, 2)], "it fails once more")
        assert database.value("SELECT count(*) FROM tasks WHERE attempts = 1") == 19

    def test_all_is_to_be_said(self, cli: Any, late: Any, database: Database) -> None:
        assert cli("tasks", "run", "--queue", "web").exit_code == 2
        assert cli("tasks", "run", "--all", "k-1").exit_code == 2
        assert database.value("SELECT count(*) FROM tasks WHERE run_at > now()") == 20

    def test_json_says_what_became_of_each(self, cli: Any, late: Any) -> None:
        (one,) = rows(cli("tasks", "run", "k-3", "--json"))

        assert (one["order"], one["became"]) == ("k-3", "ready")


def test_run_of_all_leaves_what_has_failed_unless_that_is_said(cli: Any, shop: Shop) -> None:
    assert cli("tasks", "run", "--all").stdout == "0 tasks are ready again\n"
    assert set(shop.states().values()) == {"failed"}
    shop.hold()

    result = cli("tasks", "run", "--all", "--state", "failed", "--queue", "cloud")

    assert "1 task is ready again" in result.stdout
    assert shop.states()["cloud", "converge"] == "ready"


def test_state_of_a_task_is_that_of_its_batch_and_lane(cli: Any, database: Database) -> None:
    database.place(*(order(f"k-{n}") for n in range(5)))
    (batch,) = [row.id for row in database.all("SELECT id FROM batches")]

    def states() -> set[str]:
        return {row["state"] for row in rows(cli("tasks", "list", "--json"))}

    assert states() == {"ready"}
    dispatch = "UPDATE batches SET state = :state, until = now() + interval '1 h' WHERE id = :id"
    database.run(dispatch, state="dispatched", id=batch)
    assert states() == {"dispatched"}
    cli("lanes", "pause", "orders", "--reason", "x")
    assert states() == {"paused"}
    assert len(rows(cli("tasks", "list", "--state", "paused", "--lane", "orders", "--json"))) == 5
    cli("lanes", "resume", "orders")
    assert database.value("SELECT until <= now() FROM batches")
    database.run(dispatch, state="leased", id=batch)
    assert states() == {"leased"}

    result = cli("tasks", "run", "k-1")

    assert result.exit_code == 1
    assert "no change, it is leased" in result.stderr
    database.run(dispatch, state="dispatched", id=batch)
    assert "1 task sent to the broker again" in cli("tasks", "run", "k-1").stdout
    assert database.value("SELECT until <= now() FROM batches")


def test_id_of_a_payment_request_or_an_email_is_opened_and_says_whose_it_is(
    cli: Any, life: Any
) -> None:
    world = life()
    first = world.order(line("site", domain="alice.example"))
    world.database.run("UPDATE customers SET email = 'alice@example.com'")
    world.fleet.mailbox.refuse("alice@*")
    world.click("mode", mode="manual")
    world.pass_until(first, -14.1)
    (mail,) = rows(cli("failed", "list", "--json"))
    assert (mail["task"], mail["customer"]) == ("remind", "alice")
    assert mail["services"] == [str(first.id)]
    assert "no such mailbox" in mail["error"]

    shown = cli("tasks", "show", mail["subject"], "--json", role="readonly")

    about, task, *history = rows(shown)
    assert (about["kind"], about["email"]) == ("e-mail", "alice@example.com")
    assert about["domains"] == ["alice.example"]
    assert task["subject"] == mail["subject"]
    assert "task.failed" in [event["event"] for event in history]
    (by_service,) = rows(cli("failed", "list", "--service", str(first.id), "--json"))
    assert by_service["subject"] == mail["subject"]
    request = world.database.value("SELECT id FROM payment_requests")
    assert "payment request" in cli("tasks", "show", str(request)).stdout
    assert cli("tasks", "show", NOBODY).exit_code == 2


def test_operator_is_whom_the_setting_names_or_the_user_of_the_system(
    cli: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.hold()
    cli("failed", "retry", "k-1")
    monkeypatch.setenv("AUTORENEW_OPERATOR", "night shift")
    cli("failed", "retry", "k-2")
    assert cli("failed", "retry", "k-3", "--by", " ").exit_code == 2
    assert cli("failed", "retry", "k-3", "--by", "a\x1bb").exit_code == 2

    first, second = (detail["by"] for detail in shop.told("task.retried"))
    assert first
    assert second == "night shift"


def test_command_of_a_customer_says_which_operator_gave_it(
    cli: Any, life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORENEW_CLOCK", "virtual")
    world = life()
    first = world.order()

    assert cli("service", "stop", str(first.id), "--by", "eve", "--because", "call").exit_code == 0

    (told,) = world.happened("mode.changed")
    assert told.detail == {"mode": "stop", "by": "eve", "because": "call"}
