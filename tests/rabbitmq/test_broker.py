"""Workers only read: what our Dramatiq broker does, and what RabbitMQ permits each user."""

import json
from typing import Any

import dramatiq
import pika
import pytest
from dramatiq import ConnectionClosed
from pika.exceptions import ChannelClosedByBroker

from autorenew.local.fleet import PrivateFleet
from autorenew.local.rabbitmq import PrivateRabbitMQ
from producers.intake import dead
from producers.relay.transport import TASKS_EXCHANGE
from tests.rabbitmq.test_transport import cut, depth
from tests.support.given import wait_until
from workers.broker import ReadOnlyBroker

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def broker(fleet_of: Any) -> PrivateFleet:
    return fleet_of()  # type: ignore[no-any-return]


def reader(fleet: PrivateFleet) -> ReadOnlyBroker:
    """A broker with the actor ``web.converge``, as a provisioning worker."""
    broker = ReadOnlyBroker(fleet.broker_url("provisioning"))
    dramatiq.actor(lambda _: None, broker=broker, actor_name="web.converge", queue_name="web")
    return broker


def publish(fleet: PrivateFleet, *bodies: bytes, queue: str = "web") -> None:
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url("relay")))
    channel = connection.channel()
    channel.confirm_delivery()
    for body in bodies:
        channel.basic_publish(TASKS_EXCHANGE, queue, body)
    connection.close()


def message(**changes: Any) -> bytes:
    fields = {
        "queue_name": "web",
        "actor_name": "web.converge",
        "args": [[]],
        "kwargs": {},
        "options": {},
        "message_id": "m",
        "message_timestamp": 1,
    }
    return json.dumps(fields | changes).encode()


def take(consumer: Any) -> Any:
    """The next message, if one comes soon."""
    for _ in range(20):
        found = next(consumer)
        if found is not None:
            return found
    return None


def read_on(consumer: Any) -> None:
    while True:
        next(consumer)


def test_an_old_delivery_tag_settles_nothing_on_a_new_connection(
    broker: PrivateFleet, rabbitmq: PrivateRabbitMQ
) -> None:
    """Dramatiq acknowledges by the old tag on the new channel: another message is settled."""
    publish(broker, message(message_id="first"))
    consumer = reader(broker).consume("web", timeout=100)
    old = take(consumer)
    assert old.message_id == "first"
    cut(rabbitmq, broker.vhost)
    with pytest.raises(ConnectionClosed):
        read_on(consumer)
    consumer.close()
    again = reader(broker).consume("web", timeout=100)
    redelivered = take(again)
    assert (redelivered.message_id, redelivered.tag) == ("first", old.tag)

    again.ack(old)
    assert next(again) is None  # lets the connection do what it was told
    again.close()

    wait_until(lambda: depth(broker, "web") == 1, "it is still on the queue")


def test_an_acknowledged_message_is_gone(broker: PrivateFleet) -> None:
    publish(broker, message())
    consumer = reader(broker).consume("web", timeout=100)

    consumer.ack(take(consumer))
    consumer.close()

    assert depth(broker, "web") == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        message(queue_name="orders"),
        message(queue_name=None),
        message(actor_name="web.nothing"),
        message(actor_name=[]),
        message(options={"eta": 1}),
        message(options=None),
    ],
)
def test_message_that_would_hurt_a_worker_is_refused_and_not_redelivered(
    broker: PrivateFleet, body: bytes
) -> None:
    publish(broker, body, message(message_id="good"))
    consumer = reader(broker).consume("web", timeout=100)

    found = take(consumer)

    assert found.message_id == "good"
    consumer.ack(found)
    consumer.close()
    assert depth(broker, "web") == 0


def test_a_worker_declares_and_publishes_nothing(broker: PrivateFleet) -> None:
    ours = reader(broker)

    ours.declare_queue("never-declared")
    with pytest.raises(RuntimeError, match="do not publish"):
        ours.enqueue(dramatiq.Message("web", "web.converge", (), {}, {}))

    assert "never-declared" not in queues(broker)


def queues(fleet: PrivateFleet) -> str:
    return fleet.rabbitmq.ctl("list_queues", "--vhost", fleet.vhost, "name")


def refused(fleet: PrivateFleet, user: str, act: Any) -> bool:
    connection = pika.BlockingConnection(pika.URLParameters(fleet.broker_url(user)))
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        act(channel)
    except ChannelClosedByBroker as closed:
        return bool(closed.reply_code == 403)
    finally:
        connection.close()
    return False


def publishes_to(exchange: str, key: str = "web") -> Any:
    return lambda channel: channel.basic_publish(exchange, key, b"{}")


def reads(queue: str) -> Any:
    return lambda channel: channel.basic_get(queue)


WORKERS = ["orders", "billing", "provisioning"]


@pytest.mark.parametrize("user", WORKERS)
def test_a_worker_may_neither_publish_nor_declare(broker: PrivateFleet, user: str) -> None:
    for exchange in ("", "tasks", "intake", "amq.direct"):
        assert refused(broker, user, publishes_to(exchange))
    assert refused(broker, user, lambda channel: channel.queue_declare("mine"))
    assert refused(broker, user, lambda channel: channel.exchange_declare("mine"))
    assert refused(broker, user, lambda channel: channel.queue_delete("web"))


def test_a_worker_reads_its_own_queues_only(broker: PrivateFleet) -> None:
    for user, own in (
        ("orders", {"orders"}),
        ("billing", {"billing"}),
        ("provisioning", {"web", "dedicated", "cloud", "telecom"}),
        ("intake", {"intake"}),
    ):
        for queue in ("orders", "billing", "web", "dedicated", "cloud", "telecom", "intake"):
            assert refused(broker, user, reads(queue)) == (queue not in own), (user, queue)


def test_upstream_may_write_to_intake_only(broker: PrivateFleet) -> None:
    assert not refused(broker, "upstream", publishes_to("intake"))
    for exchange in ("", "tasks", "amq.topic"):
        assert refused(broker, "upstream", publishes_to(exchange))
    for queue in ("intake", "orders", "billing", "web"):
        assert refused(broker, "upstream", reads(queue))
    assert refused(broker, "upstream", lambda channel: channel.queue_declare("mine"))


def test_exporter_counts_what_is_set_aside_and_sees_none_of_it(broker: PrivateFleet) -> None:
    url = broker.rabbitmq.url(vhost=broker.vhost)
    admin = pika.BlockingConnection(pika.URLParameters(url))
    admin.channel().basic_publish("intake.dead", "", b"set aside")
    wait_until(lambda: depth(broker, "intake.dead") == 1, "it is there")
    admin.close()

    assert dead.count(broker.broker_url("exporter")) == 1
    assert dead.count(broker.broker_url("intake")) == 1
    for queue in ("intake", "intake.dead", "web"):
        assert refused(broker, "exporter", reads(queue))
        assert refused(broker, "exporter", lambda channel, q=queue: channel.queue_purge(q))
        assert refused(broker, "exporter", lambda channel, q=queue: channel.queue_delete(q))
    for exchange in ("", "tasks", "intake", "events"):
        assert refused(broker, "exporter", publishes_to(exchange))


def test_a_relay_writes_tasks_and_reads_nothing(broker: PrivateFleet) -> None:
    assert not refused(broker, "relay", publishes_to("tasks"))
    assert refused(broker, "relay", publishes_to("intake"))
    assert refused(broker, "relay", reads("web"))


def test_setting_the_broker_up_again_changes_nothing(broker: PrivateFleet) -> None:
    publish(broker, message())

    broker.setup_broker()

    wait_until(lambda: depth(broker, "web") == 1, "the message is there")
