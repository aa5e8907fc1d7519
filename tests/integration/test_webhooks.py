"""Events are delivered to the endpoints that upstream has registered."""

import json
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from producers.control import webhooks
from tests.conftest import Database
from tests.support.given import line, order, wait_until
from tests.support.receiver import Receiver
from workers.events.signing import new_secret

REALM = "upstream-shop"
QUICK = {
    "webhook_allowed_networks": ["127.0.0.0/8"],
    "breaker": {"failures": 1000, "seconds": 0.05},
    "retries": {"webhook": {"base_seconds": 0.05, "attempts": 4}},
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
