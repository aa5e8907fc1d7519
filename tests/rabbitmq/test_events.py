"""Events on a real broker: who may read which, and what becomes of them when it is away."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pytest
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq_event
from pika.exceptions import ChannelClosedByBroker
from sqlalchemy import text

from autorenew.local.fleet import PrivateFleet
from producers.control import webhooks
from producers.events.exchange import RabbitExchange
from producers.events.publisher import Publisher
from producers.intake import Intake
from producers.intake.realms import Realms
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.database import connect
from schemas.events import EXCHANGE
from schemas.settings import Settings
from tests.rabbitmq.test_transport import cut
from tests.support.given import body, line, order, wait_until
from workers.bootstrap import publisher

pytestmark = pytest.mark.rabbitmq

SHOP, OTHER = "upstream-shop", "upstream-other"
QUEUE = f"events.{SHOP}.all"


@pytest.fixture
def fleet(fleet_of: Callable[..., PrivateFleet]) -> PrivateFleet:
    fleet = fleet_of()
    fleet.setup_broker(SHOP, OTHER)
    return fleet


@contextmanager
def channel(fleet: PrivateFleet, user: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url(user)))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


def bind(fleet: PrivateFleet, user: str = SHOP, queue: str = QUEUE, key: str = f"{SHOP}.#") -> None:
    with channel(fleet, user) as opened:
        opened.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        opened.queue_bind(queue, EXCHANGE, key)


def read(fleet: PrivateFleet, user: str = SHOP, queue: str = QUEUE) -> list[Any]:
    """All events of a queue, as the library ``cloudevents`` reads them."""
    found = []
    with channel(fleet, user) as opened:
        while (got := opened.basic_get(queue, auto_ack=True))[0] is not None:
            _, properties, content = got
            message = RabbitMQMessage({}, properties.content_type, content)
            found.append(from_rabbitmq_event(message))
    return found


def refuse(fleet: PrivateFleet, *keys: str, upstream: str = SHOP) -> None:
    """Orders of a plan that there is not: an event each, and nobody has to work."""
    engine = connect(fleet.database_url("api"))
    documents = [body(order(key, line("none"), customer=f"customer-{key}")) for key in keys]
    Intake(engine, CatalogueCache(), SystemClock(), Realms({})).place(upstream, "amqp", documents)
    engine.dispose()


@contextmanager
def publishing(fleet: PrivateFleet) -> Iterator[Publisher]:
    engine = connect(fleet.database_url("events"))
    one = publisher(engine, RabbitExchange(fleet.broker_url("events")), Settings())
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.stop()
        thread.join(20)
        engine.dispose()


def waiting(fleet: PrivateFleet) -> int:
    with fleet.owner.connect() as tx:
        return int(webhooks.left(tx).waiting)


def test_upstream_reads_the_events_of_its_realm_with_any_library(fleet: PrivateFleet) -> None:
    # Given an upstream that has bound a queue of its own
    bind(fleet)
    with publishing(fleet):
        refuse(fleet, "ours")
        refuse(fleet, "theirs", upstream=OTHER)
        wait_until(lambda: waiting(fleet) == 0, "all is published")
    # Then it reads its own event, and no other.
    (event,) = read(fleet)
    assert event.get_type() == "autorenew.order.refused"
    assert event.get_specversion() == "1.0"
    assert event.get_extension("sequence") == "1"
    data = event.get_data()
    assert (data["key"], data["problems"][0]["code"]) == ("ours", "plan_unknown")


@pytest.mark.parametrize("key", ["#", "*.order.refused", f"{OTHER}.#", f"{SHOP}", f"#.{SHOP}.#"])
def test_upstream_may_bind_nothing_of_others(fleet: PrivateFleet, key: str) -> None:
    with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        bind(fleet, key=key)
    # Nor by way of an exchange of its own.
    with channel(fleet, SHOP) as opened:
        opened.exchange_declare(f"events.{SHOP}", "topic")
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            opened.exchange_bind(f"events.{SHOP}", EXCHANGE, key)


@pytest.mark.parametrize("name", ["webhooks", "orders", f"events.{OTHER}", "events", "intake"])
def test_upstream_reads_no_queue_of_others(fleet: PrivateFleet, name: str) -> None:
    bind(fleet, OTHER, f"events.{OTHER}", f"{OTHER}.#")
    with channel(fleet, SHOP) as opened, pytest.raises(ChannelClosedByBroker) as refused:
        opened.basic_get(name)
    # There is no queue `events`: the exchange of that name shares its permission with none.
    assert refused.value.reply_code == (404 if name == "events" else 403)


def test_upstream_cannot_publish_events(fleet: PrivateFleet) -> None:
    for user in (SHOP, "upstream"):
        with channel(fleet, user) as opened:
            opened.confirm_delivery()
            with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
                opened.basic_publish(EXCHANGE, f"{user}.order.delivered", b"{}")


def test_events_that_a_lost_connection_left_in_doubt_come_again(fleet: PrivateFleet) -> None:
    # Given a publisher whose connection is cut all the time
    bind(fleet)
    with publishing(fleet):
        for number in range(5):
            refuse(fleet, *(f"o-{number}-{n}" for n in range(20)))
            cut(fleet.rabbitmq, fleet.vhost)
        wait_until(lambda: waiting(fleet) == 0, "all is published", 60)
    # Then each event is there, at least once.
    events = read(fleet)
    assert len({event.get_data()["key"] for event in events}) == 100
    assert len({event.get_id() for event in events}) == 100


def test_events_wait_for_a_broker_that_is_blocked(fleet: PrivateFleet) -> None:
    bind(fleet)
    with publishing(fleet):
        fleet.rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
        try:
            refuse(fleet, "o-1")
            # Work goes on meanwhile, and nothing is taken for published.
            assert waiting(fleet) == 1
        finally:
            fleet.rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
        wait_until(lambda: waiting(fleet) == 0, "it is published", 60)
    assert {event.get_data()["key"] for event in read(fleet)} == {"o-1"}


def test_what_a_wiped_broker_lost_is_replayed(fleet: PrivateFleet) -> None:
    # Given events that were published, and a broker that lost all it had
    bind(fleet)
    with publishing(fleet):
        refuse(fleet, "o-1", "o-2")
        wait_until(lambda: waiting(fleet) == 0, "both are published")
        ids = {event.get_id() for event in read(fleet)}
        with fleet.owner.connect() as tx:
            since = tx.execute(text("SELECT min(at) FROM events")).scalar_one()
        fleet.rabbitmq.delete_vhost(fleet.vhost)
        fleet.rabbitmq.add_vhost(fleet.vhost)
        refuse(fleet, "o-3")
        fleet.setup_broker(SHOP, OTHER)
        bind(fleet)
        # When an operator asks for what happened since
        with fleet.owner.begin() as tx:
            now = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
            webhooks.replay_to_exchange(tx, since, now)
        wait_until(lambda: waiting(fleet) == 0, "the third is published", 60)
        done = text("SELECT count(*) FROM event_replays WHERE ended_at IS NULL")
        wait_until(lambda: fleet.scalar(done.text) == 0, "the replay has ended", 60)
    # Then the events are there again, with their ids.
    events = read(fleet)
    assert {event.get_data()["key"] for event in events} == {"o-1", "o-2", "o-3"}
    assert ids <= {event.get_id() for event in events}
