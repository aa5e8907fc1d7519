"""What a person did past the fleet is said by the role console, and written down by workers."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from autorenew.console import accounts, serving
from producers import history
from producers.control import bulk, stating
from producers.control.selection import Filters
from producers.history import Operator
from schemas.values import BulkKind, OperatorRole
from tests.conftest import Database
from tests.integration.test_console import PASSWORD, sign_in, token_in
from tests.integration.test_failed import cli, extend, fault  # noqa: F401
from tests.integration.test_left_out import failures
from tests.support import given
from tests.support.given import wait_until


@pytest.fixture
def console() -> Iterator[Any]:
    servers = []

    def serve(world: Any) -> httpx.Client:
        """The console, as the operator eve."""
        engine = world.fleet.engine("console")
        with engine.begin() as tx:
            accounts.add(tx, "eve", OperatorRole.OPERATOR, PASSWORD)
            accounts.add(tx, "rita", OperatorRole.READER, PASSWORD)
        server = serving.serve(
            engine, world.fleet.engine("readonly"), world.fleet.clock, world.fleet.settings,
            host="127.0.0.1", port=0,
        )  # fmt: skip
        server.start()
        client = httpx.Client(base_url=server.url, timeout=30)
        servers.append((server, client))
        sign_in(client, "eve")
        return client

    yield serve
    for server, client in servers:
        client.close()
        server.close()


def fields_of(page: httpx.Response) -> dict[str, str]:
    """What the form that changes something carries along."""
    form = page.text[page.text.index('<form method="post" action="/failed/') :]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))


def ended(world: Any) -> Any:
    """The last operation, once it has ended."""
    query = "SELECT * FROM bulk_operations ORDER BY created_at DESC LIMIT 1"
    wait_until(lambda: world.database.all(query)[0].ended_at is not None, "the operation ends")
    world.fleet.settle(30)
    return world.database.all(query)[0]


def first_of(world: Any, service: Any) -> Any:
    """A service as it is now."""
    return next(one for one in world.services() if one.id == service.id)


def test_services_that_a_filter_finds_are_done_by_hand(cli: Any) -> None:  # noqa: F811
    world, run = cli()
    first = world.order()
    fault(world, "refuse", "extend")
    world.pass_until(first, -2.5)
    fault(world, "refuse", "create")
    world.send(given.order("undelivered"))
    assert len(failures(world)) == 2

    unknown = run("console", "done", "--driver", "nosuch", "--because", "X-1", "--yes")
    assert (unknown.exit_code, "nosuch" in unknown.stderr) == (2, True)
    assert run("console", "done", "--driver", "web", "--yes").exit_code == 2  # why is missing
    dry = run("console", "done", "--driver", "web", "--because", "X-1", "--dry-run")
    assert "1 task would be told as done by hand" in dry.stdout
    assert "1 task would be refused" in dry.stdout
    refused = run("api", "done", "--driver", "web", "--because", "X-1", "--yes")
    assert refused.exit_code != 0
    assert len(failures(world)) == 2

    until = world.expiry(first_of(world, first)).isoformat()
    world.fleet.simulator.simulator.store._db.execute(
        "UPDATE resources SET paid_until = ?", (until,)
    )
    done = run("console", "done", "--driver", "web", "--because", "X-1", "--by", "eve", "--yes")

    assert done.exit_code == 1  # of two, one was not delivered
    assert "1 done, 1 refused" in done.stdout
    assert "is not delivered" in done.stdout
    (left,) = failures(world)
    assert left.subject != first.id
    mended = first_of(world, first)
    assert mended.confirmed_until == world.expiry(mended) > first.confirmed_until
    (told,) = [detail for _, detail in world.happened("task.done_by_hand")]
    operation = str(world.database.value("SELECT id FROM bulk_operations"))
    assert told == {"task": "converge", "because": "X-1", "by": "eve", "bulk": operation}
    world.clean()


def test_an_operator_says_in_the_console_what_was_done_and_a_reader_cannot(
    cli: Any, console: Any  # noqa: F811
) -> None:  # fmt: skip
    world, _ = cli()
    first = world.order()
    fault(world, "refuse", "extend")
    world.pass_until(first, -2.5)
    extend(world)
    client = console(world)

    assert "It was done by hand" in client.get(f"/failed/task/{first.id}").text
    asked = client.get("/failed/done", params={"task": f"converge:{first.id}"})
    form = fields_of(asked) | {"note": "ticket 4711"}
    for wrong in ({"csrf": "0" * 64}, {"note": ""}):
        assert client.post("/failed/done", data=form | wrong).status_code in (403, 422)
    with httpx.Client(base_url=client.base_url) as reader:
        sign_in(reader, "rita")
        mine = form | {"csrf": token_in(reader.get("/"))}
        assert reader.post("/failed/done", data=mine).status_code == 403
        assert reader.get("/failed/done", params={"task": f"converge:{first.id}"}).is_client_error
    assert len(failures(world)) == 1

    assert client.post("/failed/done", data=form).status_code == 303

    operation = ended(world)
    assert (operation.kind, operation.asked_by, operation.done) == ("done", "eve", 1)
    assert failures(world) == []
    assert "ticket 4711" in client.get("/history?by=eve").text
    world.clean()


def test_a_refund_is_settled_in_the_console_one_at_a_time(
    cli: Any, console: Any  # noqa: F811
) -> None:  # fmt: skip
    world, run = cli({"fault": "refuse", "operation": "create", "times": 10_000})
    fault(world, "decline", "refund")
    world.send(given.order("k-1"))
    world.send(given.order("k-2"))
    assert run("api", "cancel", "--all", "--yes").exit_code == 0
    mine, other = failures(world)
    assert {mine.name, other.name} == {"refund"}
    client = console(world)

    both = client.get(
        "/failed/settle", params={"task": [f"refund:{t.subject}" for t in (mine, other)]}
    )
    assert "one payment is settled at a time" in both.text
    form = fields_of(client.get("/failed/settle", params={"task": f"refund:{mine.subject}"}))
    form |= {"note": "the bank says so"}
    assert "reference of the payment is missing" in client.post("/failed/settle", data=form).text
    posted = client.post("/failed/settle", data=form | {"reference": "transfer_2026-118"})
    assert posted.status_code == 303

    operation = ended(world)
    assert (operation.kind, operation.done) == ("settle", 1)
    assert "transfer_2026-118" in client.get(posted.headers["location"]).text
    assert [task.subject for task in failures(world)] == [other.subject]
    refunds = world.database.all("SELECT reference, by_hand FROM refunds WHERE by_hand")
    assert refunds == [("transfer_2026-118", True)]

    # At the command line by another name, where it means one payment; and by no filter.
    key = {str(t.subject): t.about.order_key for t in (mine, other)}[str(other.subject)]
    settled = run("console", "settle", key, "--reference", "transfer-2", "--yes", "--json")
    assert (settled.exit_code, json.loads(settled.stdout)["done"]) == (0, 1)
    assert run("console", "settle", key, "--reference", "transfer-2", "--yes").exit_code == 2
    assert run("console", "settle", "--reason", "declined", "--yes").exit_code == 2
    assert failures(world) == []
    world.clean()


def test_what_was_tried_again_meanwhile_is_not_taken_for_done(database: Database) -> None:
    """No fleet runs: the failure that the operator saw is not there any more."""
    database.run(
        "INSERT INTO tasks (name, subject, queue, lane, state, run_at, reason, attempts,"
        " total_attempts, first_failed_at) VALUES ('converge', gen_random_uuid(), 'web',"
        " 'driver:web', 'failed', now(), 'driver_refused', 1, 1, now())"
    )
    with database.engine("console").begin() as tx, history.acting(Operator("eve", "x")):
        started = bulk.start(tx, BulkKind.DONE, Filters())
    database.run("UPDATE bulk_tasks SET state = 'sent'")
    database.run("UPDATE bulk_operations SET sent = 1")
    database.run("UPDATE tasks SET total_attempts = 2")

    with database.engine("scheduler").begin() as tx:
        looked = tx.execute(stating.LOOK, {"id": started.id, "after": 0, "limit": 10}).one()

    assert (looked.done, looked.failed) == (0, 1)
    assert "meanwhile" in database.value("SELECT outcome FROM bulk_tasks")


@pytest.mark.parametrize("kind", ["done", "settle"])
def test_no_door_of_upstream_or_customers_says_what_was_done(database: Database, kind: str) -> None:
    with (
        pytest.raises(ProgrammingError, match="role console"),
        database.engine("api").begin() as tx,
    ):
        tx.execute(
            text(
                "INSERT INTO bulk_operations (kind, asked_by, filters, all_at_once, total)"
                " VALUES (:kind, 'x', '{}', true, 0)"
            ),
            {"kind": kind},
        )
