"""Events for upstream, from the history to the exchange."""

import json
import threading
from collections.abc import Sequence
from typing import Any

from producers.events.composing import Outgoing
from tests.conftest import Database
from tests.support.given import line, order, wait_until


class Kept:
    """An exchange that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Outgoing] = []

    def publish(self, events: Sequence[Outgoing]) -> None:
        self.events += events

    def idle(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def close(self) -> None:
        pass

    def documents(self) -> list[Any]:
        return [json.loads(event.body) for event in self.events]


def test_events_of_an_order(embedded: Any, database: Database) -> None:
    # Given an order of two services
    kept = Kept()
    fleet = embedded(exchange=kept)
    fleet.intake.place(
        "upstream-shop", "python", [json.dumps(order("o-1", line(quantity=2))).encode()]
    )
    # When it is delivered
    wait_until(lambda: len(kept.events) >= 4, "four events")
    invoiced, first, second, delivered = kept.documents()
    # Then each subject has a sequence of its own
    order_id = delivered["data"]["order"]
    assert [invoiced["type"], first["type"], second["type"], delivered["type"]] == [
        "autorenew.invoice.issued",
        "autorenew.service.delivered",
        "autorenew.service.delivered",
        "autorenew.order.delivered",
    ]
    assert [e["sequence"] for e in (invoiced, first, second, delivered)] == ["1", "1", "1", "2"]
    assert invoiced["subject"] == delivered["subject"] == f"order/{order_id}"
    # what they say is theirs,
    services = {first["data"]["service"], second["data"]["service"]}
    assert set(delivered["data"]["services"]) == set(invoiced["data"]["services"]) == services
    assert invoiced["data"]["total"] == {"amount": 9089, "currency": "EUR"}
    assert delivered["data"]["key"] == "o-1"
    # and the exchange is told whose it is.
    keys = [event.routing_key for event in kept.events]
    assert keys[-1] == "upstream-shop.order.delivered"
