"""An event that cannot be composed is seen by people, and is told once that is mended."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from monitoring.audit import audit
from monitoring.exporter import fleet
from monitoring.exporter.families import UNTOLD
from schemas.events import Kind
from schemas.settings import Settings
from tests.conftest import Database
from tests.integration.test_events import Kept, rounds
from tests.integration.test_webhooks import register
from tests.support.given import line, order
from workers.bootstrap import publisher


def asked(database: Database, *command: str) -> Result:
    url = database.engine("api").url.set(drivername="postgresql")
    environment = {"AUTORENEW_DATABASE_URL": url.render_as_string(hide_password=False)}
    return CliRunner().invoke(main, ["events", *command], env=environment, prog_name="autorenew")


def broken(database: Database) -> list[str]:
    with database.engine("readonly").connect() as tx:
        (found,) = (one for one in audit(tx) if one.code == "events.told")
    return found.ids


def test_event_that_cannot_be_composed_is_named_until_a_replay_has_told_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(database, "https://127.0.0.1:9/", name="shop")
    database.run("UPDATE webhook_endpoints SET realm = 'shop'")
    database.place(order("o-1", line("none")))
    database.place(order("o-2", line("none"), customer="bob"))
    told = database.value("SELECT problems FROM orders WHERE key = 'o-1'")
    database.run("""UPDATE orders SET problems = '[{"coed": "plan_unknown"}]' WHERE key = 'o-1'""")
    kept = Kept()
    one = publisher(database.engine("events"), kept, Settings())

    rounds(one)

    # The other one is told, to the exchange and to the endpoint,
    assert [json.loads(event.body)["data"]["key"] for event in kept.events] == ["o-2"]
    assert database.value("SELECT count(*) FROM webhook_deliveries") == 1
    # and people are told of this one.
    event = database.value("SELECT min(id) FROM events WHERE name = 'order.refused'")
    assert broken(database) == [str(event)]
    with database.engine("exporter").connect() as tx:
        assert fleet.untold(tx) == {UNTOLD: {(): 1.0}}
    shown = asked(database, "status", "--json")
    (left_out,) = json.loads(shown.stdout)["untold"]
    assert (left_out["event_id"], left_out["kind"]) == (event, "order.refused")
    assert left_out["error"] == "KeyError"
    assert shown.exit_code == 1
    assert f"{event}" in asked(database, "status").stdout

    # A replay before it is mended leaves it there;
    assert asked(database, "replay", "--since", "1h", "--by", "ann").exit_code == 0
    chores(one)
    assert broken(database) == [str(event)]
    # one after that tells it, to the endpoint, too.
    kept.events.clear()
    database.run("UPDATE orders SET problems = :told WHERE key = 'o-1'", told=json.dumps(told))
    assert asked(database, "replay", "--since", "1h", "--by", "ann").exit_code == 0
    chores(one)
    told_now = [json.loads(event.body) for event in kept.events]
    assert [said["data"]["key"] for said in told_now] == ["o-1", "o-2"]
    assert {said["type"] for said in told_now} == {f"autorenew.{Kind.ORDER_REFUSED}"}
    assert database.value("SELECT count(*) FROM webhook_deliveries") == 2
    assert broken(database) == []
    assert asked(database, "status").exit_code == 0


def test_stretch_of_events_that_all_cannot_be_composed_is_counted(database: Database) -> None:
    database.place(order("o-1", line("none")))
    database.run("UPDATE orders SET problems = '[{}]' WHERE key = 'o-1'")
    one = publisher(database.engine("events"), Kept(), Settings())
    rounds(one)
    database.place(order("o-2", line("none"), customer="bob"))
    rounds(one)
    with database.engine("readonly").connect() as tx:
        found = {one.code: one.broken for one in audit(tx)}
    assert found["events.handed_over"] == 0
    assert found["events.told"] == 1


def chores(one: Any) -> None:
    one._next_chores = 0.0
    rounds(one, 3)
