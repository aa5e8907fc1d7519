"""Pauses of a lane stand beside each other; each ends by itself, and leaves who and why."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from producers.control import guard, lanes
from producers.control.witness import Witness
from schemas.clock import SystemClock
from schemas.settings import load_settings
from tests.conftest import Database
from tests.support.given import order, wait_until

VIRTUAL = load_settings(clock="virtual")


@pytest.fixture
def cli(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    url = database.engine("api").url.set(drivername="postgresql")
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.render_as_string(hide_password=False))

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["lanes", *words])

    return run


def paused(database: Database, lane: str = "gateway") -> list[tuple[str, str]]:
    return [
        tuple(row)
        for row in database.all(
            "SELECT paused_by, reason FROM lane_pauses WHERE lane = :lane ORDER BY id", lane=lane
        )
    ]


def history(database: Database) -> list[tuple[str, Any]]:
    return [
        (row.name, row.detail)
        for row in database.all(
            "SELECT name, detail FROM events WHERE name LIKE 'lane.%' ORDER BY id"
        )
    ]


def lose_track(database: Database) -> None:
    """The guard pauses charges, requests and ends."""
    with database.engine("relay").begin() as tx:
        guard.beat(tx, SystemClock(), VIRTUAL, Witness())
    database.run("UPDATE heartbeat SET beat_at = beat_at - interval '7 h'")
    with database.engine("relay").begin() as tx:
        assert guard.beat(tx, SystemClock(), VIRTUAL, Witness())


def test_second_pause_keeps_the_first_and_one_resume_does_not_end_both(
    cli: Any, database: Database
) -> None:
    assert cli("pause", "gateway", "--reason", "bank upgrade", "--by", "alice").exit_code == 0
    second = cli("pause", "gateway", "--reason", "a fraud", "--by", "bob")
    assert "alice" in second.stdout
    assert paused(database) == [("alice", "bank upgrade"), ("bob", "a fraud")]

    unclear = cli("resume", "gateway")
    assert unclear.exit_code == 2
    assert "say which ends" in unclear.stderr
    assert len(paused(database)) == 2

    ended = cli("resume", "gateway", "--paused-by", "alice", "--by", "carol", "--because", "done")
    assert ended.exit_code == 0
    assert "gateway is still paused" in ended.stdout
    assert "a fraud" in ended.stdout
    assert paused(database) == [("bob", "a fraud")]

    assert "gateway is resumed" in cli("resume", "gateway", "--by", "alice").stdout
    assert paused(database) == []
    again = cli("resume", "gateway")
    assert (again.exit_code, again.stdout) == (0, "gateway was not paused\n")


def test_same_operator_may_have_two_reasons(cli: Any, database: Database) -> None:
    for reason in ("one", "two", "one"):
        assert cli("pause", "gateway", "--reason", reason, "--by", "alice").exit_code == 0
    assert paused(database) == [("alice", "one"), ("alice", "two")]
    first, _ = database.all("SELECT id FROM lane_pauses ORDER BY id")

    assert cli("resume", "gateway", "--pause", str(first.id)).exit_code == 0
    assert paused(database) == [("alice", "two")]
    assert cli("resume", "gateway", "--pause", str(first.id)).exit_code == 2
    assert cli("resume", "gateway", "--paused-by", "bob").exit_code == 2
    assert paused(database) == [("alice", "two")]


def test_commands_say_as_json_what_they_did_and_what_holds_the_lane(
    cli: Any, database: Database
) -> None:
    def said(*words: str) -> dict[str, Any]:
        result = cli(*words, "--json")
        document: dict[str, Any] = json.loads(result.stdout)
        return document | {"code": result.exit_code}

    def held(document: dict[str, Any]) -> list[str]:
        return [pause["reason"] for pause in document["pauses"]]

    first = said("pause", "gateway", "--because", "x", "--by", "ann")
    again = said("pause", "gateway", "--because", "x", "--by", "ann")
    both = said("pause", "gateway", "--because", "y", "--by", "bob")
    assert [(d["changed"], held(d)) for d in (first, again, both)] == [
        (True, ["x"]), (False, ["x"]), (True, ["x", "y"])
    ]  # fmt: skip
    none = said("resume", "gateway", "--guard")
    assert (none["changed"], none["ended"], none["code"]) == (False, [], 1)
    one = said("resume", "gateway", "--paused-by", "ann")
    assert ([p["paused_by"] for p in one["ended"]], held(one), one["code"]) == (["ann"], ["y"], 0)
    assert said("limit", "gateway", "--at-once", "3")["limit"]["at_once"] == 3
    assert said("limit", "gateway", "--at-once", "3")["changed"] is False
    assert said("limit", "gateway", "--none")["limit"] is None
    closed = said("close", "gateway")
    assert (closed["changed"], closed["open"], closed["code"]) == (False, None, 1)
    assert said("try", "gateway")["code"] == 1


def test_who_paused_and_who_resumed_are_in_the_history(cli: Any, database: Database) -> None:
    cli("pause", "gateway", "--reason", "bank upgrade", "--by", "alice")
    cli("resume", "gateway", "--by", "bob", "--because", "the bank is back")

    (pausing, first), (resuming, second) = history(database)
    assert (pausing, first["by"], first["because"]) == ("lane.paused", "alice", "bank upgrade")
    assert (resuming, second["by"], second["because"]) == (
        "lane.resumed", "bob", "the bank is back",
    )  # fmt: skip
    assert (second["paused_by"], second["paused_because"]) == ("alice", "bank upgrade")
    shown = cli("show", "gateway")
    assert "the bank is back" in shown.stdout
    document = json.loads(cli("show", "gateway", "--json").stdout)
    assert [event["name"] for event in document["history"]] == ["lane.paused", "lane.resumed"]


def test_pause_of_the_guard_does_not_end_by_accident(cli: Any, database: Database) -> None:
    lose_track(database)
    cli("pause", "gateway", "--reason", "bank upgrade", "--by", "alice")
    both = [("guard", "guard: nothing was seen of the fleet for 7.0 h"), ("alice", "bank upgrade")]
    assert paused(database) == both

    ended = cli("resume", "gateway")
    assert ended.exit_code == 0
    assert "gateway is still paused" in ended.stdout
    assert paused(database) == both[:1]

    for words in (["resume", "gateway"], ["resume", "gateway", "--all"]):
        refused = cli(*words)
        assert refused.exit_code == 1
        assert "--guard" in refused.stderr
    assert paused(database) == both[:1]

    assert cli("resume", "gateway", "--guard", "--by", "alice").exit_code == 0
    assert paused(database) == []
    assert history(database)[0][1]["by"] == "guard"


def test_guard_finds_more_than_what_it_paused_for_before(database: Database) -> None:
    lose_track(database)
    with database.engine("scheduler").begin() as tx:
        few = load_settings(destructive_most=5)
        assert guard.count_ends(tx, 6, SystemClock().now(), few)
        assert guard.count_ends(tx, 6, SystemClock().now(), few)

    first, second = paused(database, "destructive")
    assert "nothing was seen" in first[1]
    assert "6 services would be" in second[1]


def test_operators_resume_does_not_restart_the_count_of_ends(cli: Any, database: Database) -> None:
    with database.engine("scheduler").begin() as tx:
        assert not guard.count_ends(tx, 5, SystemClock().now(), load_settings(destructive_most=5))
    cli("pause", "destructive", "--reason", "x")
    cli("resume", "destructive")
    assert database.value("SELECT sum(services) FROM destructions") == 5

    with database.engine("scheduler").begin() as tx:
        assert guard.count_ends(tx, 1, SystemClock().now(), load_settings(destructive_most=5))
    cli("resume", "destructive", "--guard")
    assert database.value("SELECT count(*) FROM destructions") == 0


@pytest.mark.parametrize("words", [["pause", "nosuch", "--reason", "x"], ["resume", "nosuch"],
                                   ["show", "nosuch"]])  # fmt: skip
def test_lane_that_is_not_known_is_refused(cli: Any, words: list[str]) -> None:
    result = cli(*words)
    assert result.exit_code == 2
    assert "there is no lane 'nosuch'" in result.stderr


def test_list_tells_what_waits_from_what_has_failed(cli: Any, database: Database) -> None:
    database.place(*(order(f"k-{n}") for n in range(6)))
    database.run("UPDATE tasks SET batched = false WHERE subject IN"
                 " (SELECT subject FROM tasks ORDER BY subject LIMIT 3)")  # fmt: skip
    database.run("UPDATE batches SET subjects = ARRAY(SELECT subject FROM tasks WHERE batched"
                 " ORDER BY subject), size = 3, state = 'leased'")  # fmt: skip
    loose = "(SELECT subject FROM tasks WHERE NOT batched ORDER BY subject LIMIT 1)"
    database.run(f"UPDATE tasks SET state = 'failed' WHERE subject = {loose}")
    other = "(SELECT subject FROM tasks WHERE NOT batched AND state = 'ready' LIMIT 1)"
    database.run(f"UPDATE tasks SET run_at = now() + interval '1 h' WHERE subject = {other}")

    (lane,) = [one for one in map(json.loads, cli("list", "--json").stdout.splitlines())
               if one["lane"] == "orders"]  # fmt: skip

    assert (lane["tasks"], lane["later"], lane["leased"], lane["failed"]) == (5, 1, 3, 1)


def test_two_who_resume_at_once_leave_nothing_behind(database: Database) -> None:
    for reason in ("one", "two"):
        with database.engine("api").begin() as tx:
            lanes.pause(tx, "orders", reason)
    database.place(order("k-1"))
    database.run("UPDATE batches SET state = 'dispatched', until = now() + interval '1 h'")
    first, second = (row.id for row in database.all("SELECT id FROM lane_pauses ORDER BY id"))

    def end_second() -> None:
        with database.engine("api").begin() as tx:
            lanes.resume(tx, "orders", numbers=[second])

    other = threading.Thread(target=end_second)
    with database.engine("api").begin() as tx:
        lanes.resume(tx, "orders", numbers=[first])
        other.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: database.value(waiting), "the other one waits")
    other.join(10)

    assert paused(database, "orders") == []
    assert database.value("SELECT until <= now() FROM batches")
