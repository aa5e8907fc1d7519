"""Events are delivered to the endpoints that upstream has registered."""

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from standardwebhooks.webhooks import Webhook as Verifier

from producers.control import webhooks
from producers.events.composing import Composer
from schemas.tables import ROLES
from schemas.values import EndpointState
from tests.conftest import Database
from tests.support.given import line, order, wait_until
from tests.support.receiver import Receiver, Request
from workers.events import deliver
from workers.events.signing import new_secret

REALM = "upstream-shop"
QUICK = {
    "webhook_allowed_networks": ["127.0.0.0/8"],
    "breaker": {"failures": 1000, "seconds": 0.05},
    "retries": {"webhook": {"base_seconds": 0.05, "cap_seconds": 0.3, "attempts": 200}},
}


def register(database: Database, url: str, name: str = "shop", **fields: Any) -> str:
    """Returns its secret."""
    secret = new_secret()
    with database.engine("api").begin() as tx:
        webhooks.add(tx, name, url, fields.get("realm", REALM), fields.get("kinds", []), secret)
    return secret


def seen(database: Database, name: str = "shop") -> webhooks.Webhook:
    with database.engine("api").connect() as tx:
        return webhooks.find(tx, name)


def place(fleet: Any, key: str = "o-1", upstream: str = REALM, **changes: Any) -> None:
    document = order(key, line(), customer=f"customer-{key}", **changes)
    fleet.intake.place(upstream, "python", [json.dumps(document).encode()])


def kinds(receiver: Receiver) -> list[str]:
    return [json.loads(request.body)["type"] for request in receiver.requests]


def test_endpoint_is_sent_the_events_of_its_realm_signed(embedded: Any, database: Database) -> None:
    # Given an endpoint for some kinds, and orders of two realms
    with Receiver() as receiver:
        fleet = embedded(**QUICK)
        secret = register(database, receiver.url(), kinds=["order.*"])
        place(fleet, "theirs", upstream="upstream-other")
        place(fleet, "o-1")
        # When it has been told of its order
        wait_until(lambda: receiver.requests, "a delivery")
        fleet.wait_until_idle(20)
    # Then it was told of nothing else,
    (request,) = receiver.requests
    event = Verifier(secret).verify(request.body, request.headers)
    assert (event["type"], event["data"]["key"]) == ("autorenew.order.delivered", "o-1")
    # under the id of the event, which is the idempotency key.
    assert request.headers["webhook-id"] == event["id"]
    assert request.headers["content-type"] == "application/cloudevents+json"
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(new_secret()).verify(request.body, request.headers)


def test_endpoint_that_fails_is_tried_again_with_the_same_id(
    embedded: Any, database: Database
) -> None:
    # Given an endpoint that fails twice
    statuses = [500, 429, 204]
    with Receiver(lambda _: (statuses.pop(0), {})) as receiver:
        fleet = embedded(**QUICK)
        register(database, receiver.url(), kinds=["order.delivered"])
        place(fleet)
        wait_until(lambda: len(receiver.requests) == 3, "three attempts")
        wait_until(lambda: seen(database).waiting == 0, "it is recorded")
    # Then the event was the same each time, and the endpoint works again.
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert len({request.body for request in receiver.requests}) == 1
    assert seen(database).failing_since is None
    with database.engine("api").connect() as tx:
        (delivery,) = webhooks.deliveries(tx, seen(database).id, 10)
    assert (delivery.attempts, delivery.answer, delivery.outcome) == (3, "HTTP 204", "delivered")


def test_dead_endpoint_delays_no_other_and_is_disabled(embedded: Any, database: Database) -> None:
    # Given an endpoint that nobody answers for, one that is gone, and one that works
    with Receiver() as works, Receiver(lambda _: (410, {})) as gone, Receiver() as dead:
        url = dead.url()
        dead.__exit__()
        fleet = embedded(**QUICK, webhook_disable_days=2 / 86_400)
        register(database, url, "dead")
        register(database, gone.url(), "gone")
        register(database, works.url(), "works")
        for number in range(3):
            place(fleet, f"o-{number}")
        # Then the one that works has its events although the other has not,
        wait_until(lambda: len(works.requests) == 9, "nine events")
        assert seen(database, "dead").failing_since is not None
        assert seen(database, "works").failing_since is None
        # the one that is gone was asked little, and is disabled at once,
        assert seen(database, "gone").state is EndpointState.DISABLED

        # and so is the dead one, after a while, and that is told.
        def look() -> bool:
            place(fleet, f"more-{len(works.requests)}")
            return seen(database, "dead").state is EndpointState.DISABLED

        wait_until(look, "the dead endpoint is disabled", 30)
    told = database.all("SELECT detail->>'reason' FROM events WHERE name = 'webhook.disabled'")
    assert sorted(row[0] for row in told) == ["failing", "gone"]
    wait_until(lambda: seen(database, "dead").waiting == 0, "what waited is dropped")


def test_events_are_replayed_by_time(embedded: Any, database: Database) -> None:
    # Given an endpoint that was disabled while an order was delivered
    with Receiver() as receiver:
        fleet = embedded(**QUICK)
        register(database, receiver.url(), kinds=["order.*", "service.*"])
        place(fleet, "o-1")
        wait_until(lambda: len(receiver.requests) == 2, "the first order")
        wait_until(lambda: seen(database).waiting == 0, "it is recorded")
        between = database.value("SELECT clock_timestamp()")
        set_state(database, EndpointState.DISABLED)
        place(fleet, "o-2")
        wait_until(lambda: database.value(DELIVERED) == 2, "the second order")
        fleet.wait_until_idle(20)
        wait_until(lambda: database.value(LEFT) == 0, "it is published")
        assert len(receiver.requests) == 2
        # When it works again, and what happened since is replayed
        set_state(database, EndpointState.ENABLED)
        replay(database, between)
        wait_until(lambda: len(receiver.requests) == 4, "the second order")
        # Then it is sent that, in order, and once more if it is asked for again.
        said = [json.loads(request.body) for request in receiver.requests]
        assert {event["data"]["key"] for event in said[2:]} == {"o-2"}
        replay(database, between - timedelta(hours=1))
        wait_until(lambda: len(receiver.requests) == 8, "both orders")
        fleet.wait_until_idle(20)
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert set(ids[4:]) == set(ids[:4])
    assert len(ids) == 8


@pytest.mark.parametrize("state", [EndpointState.DISABLED, EndpointState.REMOVED])
def test_what_has_failed_is_dropped_with_its_endpoint(
    embedded: Any, database: Database, state: EndpointState
) -> None:
    once = {"webhook": {"base_seconds": 0.05, "cap_seconds": 0.1, "attempts": 1}}
    fleet = embedded(**QUICK | {"retries": once})
    register(database, "http://127.0.0.1:1/nobody", kinds=["order.delivered"])
    place(fleet, "o-1")
    failed = "SELECT count(*) FROM tasks WHERE name = 'deliver' AND state = 'failed'"
    wait_until(lambda: database.value(failed) == 1, "it has failed")
    set_state(database, state)
    wait_until(lambda: not database.value("SELECT count(*) FROM tasks"), "nothing is left")
    assert database.value("SELECT outcome FROM webhook_deliveries") == "dropped"


def test_replay_of_what_is_being_sent_sends_it_again(embedded: Any, database: Database) -> None:
    # Given an endpoint that takes its time over the first event
    is_asked, may_answer = threading.Event(), threading.Event()

    def slowly(_: Request) -> tuple[int, dict[str, str]]:
        is_asked.set()
        assert may_answer.wait(10)
        return 204, {}

    with Receiver(slowly) as receiver:
        fleet = embedded(**QUICK, call_seconds=10)
        register(database, receiver.url(), kinds=["order.delivered"])
        place(fleet)
        assert is_asked.wait(20)
        # When that event is replayed before it has answered
        replay(database, database.value("SELECT clock_timestamp() - interval '1 hour'"))
        wait_until(lambda: database.value(REPLAYED) == 1, "the replay has ended")
        may_answer.set()
        # Then it is sent once more, and both are recorded.
        wait_until(lambda: len(receiver.requests) == 2, "the event again")
        wait_until(lambda: seen(database).waiting == 0, "it is recorded")
        fleet.wait_until_idle(20)
    assert database.value("SELECT attempts FROM webhook_deliveries") == 2


REPLAYED = "SELECT count(*) FROM event_replays WHERE ended_at IS NOT NULL"
DELIVERED = "SELECT count(*) FROM orders WHERE state = 'delivered'"
LEFT = """SELECT count(*) FROM events AS e, event_cursor AS c
    WHERE e.id > c.last_id AND event_kind(e.id, e.name, e.detail) IS NOT NULL"""


def set_state(database: Database, state: EndpointState) -> None:
    with database.engine("api").begin() as tx:
        assert webhooks.set_state(tx, webhooks.find(tx, "shop"), state, None)


def replay(database: Database, since: Any) -> None:
    with database.engine("api").begin() as tx:
        now = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
        webhooks.replay(tx, webhooks.find(tx, "shop"), since, now)


def test_secret_before_signs_beside_the_new_one_for_a_while(database: Database) -> None:
    # Given an operator, who may read neither
    first = register(database, "https://shop.example/events")
    second = new_secret()
    with database.engine("api").begin() as tx:
        webhooks.rotate(tx, webhooks.find(tx, "shop"), second, 3600)
        id_ = webhooks.send_test(
            tx, webhooks.find(tx, "shop"), Composer("/test", str), datetime.now(UTC)
        )
    # Then both sign until the time is over, and the new one after that.
    read = {"ids": [id_], "test": "webhook.test"}
    with database.engine("events").connect() as tx:
        row = tx.execute(deliver._READ, read).one()
    assert (row.secret, row.previous_secret) == (second, first)
    database.run("UPDATE webhook_endpoints SET previous_until = now() - interval '1 s'")
    with database.engine("events").connect() as tx:
        assert tx.execute(deliver._READ, read).one().previous_secret is None


def test_secret_is_read_by_nobody_but_who_signs(database: Database) -> None:
    register(database, "https://shop.example/events")
    for role in set(ROLES) - {"events"}:
        for column in ("secret", "previous_secret"):
            with (
                database.engine(role).connect() as tx,
                pytest.raises(ProgrammingError, match="permission denied"),
            ):
                tx.execute(text(f"SELECT {column} FROM webhook_endpoints"))
    with database.engine("events").connect() as tx:
        assert tx.execute(text("SELECT secret FROM webhook_endpoints")).scalar_one()


@pytest.mark.parametrize(
    ("name", "url", "kinds", "said"),
    [
        ("Shop", "https://a.example", [], "no name"),
        ("shop", "ftp://a.example", [], "not a URL"),
        ("shop", "https://", [], "not a URL"),
        ("shop", "https://u:p@a.example/", [], "without user"),
        ("shop", "https://a.example/#x", [], "without blanks and #"),
        ("shop", "https://a.example/ b", [], "without blanks"),
        ("shop", "https://a.example:99999/", [], "not a URL"),
        ("shop", "https://a.example/é", [], "ASCII"),
        ("shop", "https://a.example", ["order.lost"], "no kind order.lost"),
    ],
)
def test_endpoint_that_cannot_be_used_is_refused(
    name: str, url: str, kinds: list[str], said: str
) -> None:
    with pytest.raises(webhooks.WebhookInvalid, match=said):
        webhooks.check(name, url, kinds)
