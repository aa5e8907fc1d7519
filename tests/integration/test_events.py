"""Events for upstream, from the history to the exchange."""

import json
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq_event
from sqlalchemy import text

from producers.events.composing import Composer, Outgoing
from producers.events.publisher import CursorLost, Publisher
from producers.events.reading import facts, first_since, read
from schemas.events import CONTENT_TYPE, Kind, envelope
from schemas.settings import Settings
from tests.conftest import Database
from tests.support.everything import Everything
from tests.support.given import line, order, wait_until
from workers.bootstrap import publisher


class Kept:
    """An exchange that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Outgoing] = []

    def publish(self, events: Sequence[Outgoing]) -> None:
        self.events += events

    def idle(self, seconds: float, wake: int | None = None) -> None:
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


def from_structured(body: bytes) -> BaseCloudEvent:
    """As any consumer reads it, with the library ``cloudevents``."""
    return from_rabbitmq_event(RabbitMQMessage({}, CONTENT_TYPE, body))


def everything_told(everything: Everything) -> list[Outgoing]:
    """All events of a fleet to which everything has happened."""
    composer = Composer("/test", lambda upstream: upstream)
    with everything.database.engine("events").connect() as tx:
        happened = read(tx, 0, 10**9, 100_000)
        told, untold = composer.compose(happened, facts(tx, happened))
    assert untold == []
    return told


def test_every_event_is_as_its_contract_says(everything: Everything) -> None:
    events = everything_told(everything)
    sequences: dict[str, list[int]] = {}
    for event in events:
        document = envelope(event.kind).model_validate_json(event.body)
        assert document.type == f"autorenew.{event.kind}"
        read_by_others = from_structured(event.body)
        assert read_by_others.get_id() == str(event.id)
        assert read_by_others.get_extension("realm") == event.realm
        sequences.setdefault(event.subject, []).append(event.sequence)
    # Each subject has a sequence of its own, without gaps,
    for subject, numbers in sequences.items():
        assert numbers == list(range(1, len(numbers) + 1)), subject
    # and all kinds have happened, but for one that needs a contract of a new version.
    assert set(Kind) - {event.kind for event in events} <= {
        Kind.WEBHOOK_TEST,
        Kind.CONTRACT_AWAITED,
    }
    assert len({event.id for event in events}) == len(events)


def test_no_event_holds_a_secret_or_what_is_a_customers(everything: Everything) -> None:
    database = everything.database
    secret = [row[0] for row in database.all("SELECT token FROM payment_methods")]
    secret += [row[0] for row in database.all("SELECT email FROM customers")]
    secret += [row[0] for row in database.all("SELECT secret FROM webhook_endpoints")]
    secret += [row[0] for row in database.all("SELECT held_because FROM services") if row[0]]
    assert len(secret) > 20
    for event in everything_told(everything):
        told = event.body.decode()
        assert not [one for one in secret if one in told], told
        assert "@" not in told


def test_reason_is_told_as_a_code_and_an_operators_words_are_not(everything: Everything) -> None:
    suspended = [e for e in everything_told(everything) if e.kind is Kind.SERVICE_SUSPENDED]
    reasons = {json.loads(event.body)["data"]["reason"] for event in suspended}
    assert {"operator", "unpaid"} <= reasons


def test_event_that_commits_late_is_not_skipped(database: Database) -> None:
    # Given a transaction that has taken an id of the history and goes on
    kept, subject = Kept(), database.place(order("o-1", line("none")))[0].order_id
    one = publisher(database.engine("events"), kept, Settings())
    rounds(one)
    assert len(kept.events) == 1
    with database.owner.connect() as late:
        late.execute(text("INSERT INTO events (subject, name) VALUES (:s, 'order.cancelled')"),
                     {"s": subject})  # fmt: skip
        # When others happen and commit meanwhile
        database.place(order("o-2", line("none"), customer="bob"))
        rounds(one)
        # Then nothing behind it goes out before it
        assert len(kept.events) == 1
        late.commit()
    rounds(one)
    # and all of it does after that, in the order of the history.
    kinds = [event.kind for event in kept.events]
    assert kinds == [Kind.ORDER_REFUSED, Kind.ORDER_CANCELLED, Kind.ORDER_REFUSED]
    assert [event.sequence for event in kept.events] == [1, 2, 1]


def test_ids_of_the_history_are_taken_after_a_transaction_id(database: Database) -> None:
    # An id without a transaction would be invisible to who asks which transactions are open.
    with database.owner.connect() as tx:
        taken = tx.execute(text("""
            INSERT INTO events (subject, name) VALUES (gen_random_uuid(), 'x')
            RETURNING id, CAST(CAST(pg_current_xact_id() AS text) AS bigint)
        """)).one()  # fmt: skip
        assert taken
        triggers = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'events'::regclass"
        names = [row[0] for row in tx.execute(text(triggers))]
        assert "events_transaction" in names


def test_second_publisher_waits_and_takes_over(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.events.publisher.HOLD_SECONDS", 0.5)
    first, second = Kept(), Kept()
    one = publisher(database.engine("events"), first, Settings())
    two = publisher(database.engine("events"), second, Settings())
    rounds(one)
    database.place(order("o-1", line("none")))
    rounds(two)
    assert second.events == []
    rounds(one)
    # When the first one is seen no more
    database.place(order("o-2", line("none"), customer="bob"))
    wait_until(lambda: rounds(two) or second.events, "the other one goes on", 10)
    assert [e.kind for e in (*first.events, *second.events)] == [Kind.ORDER_REFUSED] * 2


def test_publisher_that_lost_the_cursor_moves_nothing(database: Database) -> None:
    # Given one that is overtaken between publishing and moving the cursor
    class Overtaken(Kept):
        def publish(self, events: Sequence[Outgoing]) -> None:
            super().publish(events)
            database.run("UPDATE event_cursor SET holder = gen_random_uuid()")

    one = publisher(database.engine("events"), Overtaken(), Settings())
    rounds(one)
    database.place(order("o-1", line("none")))
    with pytest.raises(CursorLost):
        rounds(one)
    assert database.value("SELECT count(*) FROM event_stretches") == 0
    # Then the other one publishes it again, under the same id.
    database.run("UPDATE event_cursor SET holder = NULL")
    kept = Kept()
    rounds(publisher(database.engine("events"), kept, Settings()))
    assert len(kept.events) == 1


def test_publisher_whose_listening_connection_is_cut_listens_again(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """That connection alone: what it asks on the others goes well."""

    class Resting(Kept):
        def idle(self, seconds: float, wake: int | None = None) -> None:
            threading.Event().wait(0.01)

    kept = Resting()
    one = publisher(database.engine("events"), kept, Settings())
    listening = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'"
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    try:
        cut = f"SELECT count(pg_terminate_backend(pid)) {listening}"
        wait_until(lambda: database.value(cut) == 1, "it listens")
        wait_until(lambda: "events: " in caplog.text, "it has noticed")
        database.place(order("o-1", line("none")))
        wait_until(lambda: len(kept.events) == 1, "it publishes")
        count = f"SELECT count(*) {listening}"
        wait_until(lambda: database.value(count) == 1, "it listens again")
    finally:
        one.stop()
        thread.join(20)
    assert "ERROR" not in {record.levelname for record in caplog.records}


def rounds(one: Publisher, count: int = 30) -> None:
    for _ in range(count):
        one.round()


@pytest.mark.parametrize(
    ("happened", "rests"), [("now()", True), ("now() - interval '1 hour'", False)]
)
def test_publisher_gives_way_unless_it_is_far_behind(
    database: Database, happened: str, rests: bool
) -> None:
    database.run(f"""
        INSERT INTO events (subject, name, at)
        SELECT gen_random_uuid(), 'service.resumed', {happened} FROM generate_series(1, 1200)
    """)
    one = publisher(database.engine("events"), Kept(), Settings(poll_seconds=0.001))
    cursor = "SELECT last_id FROM event_cursor"
    pauses = []
    while database.value(cursor) < 1000:
        started, before = time.monotonic(), database.value(cursor)
        pause = one.round()
        if database.value(cursor) > before:
            pauses.append((pause, time.monotonic() - started))
    assert len(pauses) == 2
    for pause, took in pauses:
        assert (min(took, 0.4) < pause < 4 * took) if rests else pause == 0.0


def test_replay_begins_before_what_a_long_transaction_wrote_late(database: Database) -> None:
    """Given a hundred events, of which four are eight minutes older than those around them."""
    database.run("""
        INSERT INTO events (subject, name, at)
        SELECT gen_random_uuid(), 'service.resumed', timestamptz '2026-03-02 08:00 UTC'
            + make_interval(mins => n, secs => CASE WHEN n % 25 = 1 THEN -500 ELSE 0 END)
        FROM generate_series(1, 100) AS n
    """)
    newest = database.value("SELECT max(id) FROM events")
    for minute in (20, 55, 60, 74, 90):
        since = datetime(2026, 3, 2, 8, tzinfo=UTC) + timedelta(minutes=minute)
        with database.owner.connect() as tx:
            after = first_since(tx, since, newest)
        missed = database.value(
            "SELECT count(*) FROM events WHERE id <= :after AND at >= :since",
            after=after, since=since,
        )  # fmt: skip
        assert missed == 0, minute
