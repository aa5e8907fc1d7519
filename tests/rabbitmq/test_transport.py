"""How a relay hands messages to RabbitMQ, and what it is told."""

import uuid

import pika
import pytest

from autorenew.local.fleet import PrivateFleet
from autorenew.local.rabbitmq import PrivateRabbitMQ
from producers.ledger.dispatching import Dispatch
from producers.relay.transport import RabbitTransport, TransportLost
from tests.support.given import wait_until

pytestmark = pytest.mark.rabbitmq


def messages(count: int, queue: str = "web") -> list[Dispatch]:
    return [Dispatch(queue, "converge", f"driver:{queue}", uuid.uuid4(), 1) for _ in range(count)]


def depth(fleet: PrivateFleet, queue: str) -> int:
    """As the administrator: a user of the fleet may not ask about every queue."""
    url = fleet.rabbitmq.url(vhost=fleet.vhost)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        declared = connection.channel().queue_declare(queue, passive=True)
        return int(declared.method.message_count)
    finally:
        connection.close()


@pytest.fixture
def broker(fleet_of: object) -> PrivateFleet:
    return fleet_of()  # type: ignore[operator,no-any-return]


def test_confirmed_messages_survive_a_broker_that_is_killed(
    broker: PrivateFleet, rabbitmq: PrivateRabbitMQ
) -> None:
    transport = RabbitTransport(broker.broker_url("relay"))
    transport.publish(messages(500))

    rabbitmq.kill()
    rabbitmq.start()

    wait_until(lambda: depth(broker, "web") == 500, "all 500 are there")
    transport.close()


def test_transport_works_again_after_its_connection_was_lost(
    broker: PrivateFleet, rabbitmq: PrivateRabbitMQ
) -> None:
    transport = RabbitTransport(broker.broker_url("relay"))
    transport.publish(messages(1))
    cut(rabbitmq, broker.vhost)

    with pytest.raises(TransportLost):
        transport.publish(messages(1))
    transport.publish(messages(1))

    wait_until(lambda: depth(broker, "web") >= 2, "two messages are there")
    transport.close()


def cut(rabbitmq: PrivateRabbitMQ, vhost: str) -> None:
    rabbitmq.ctl("close_all_connections", "--vhost", vhost, "test")


def test_unknown_queue_is_reported_and_the_others_get_their_messages(
    broker: PrivateFleet,
) -> None:
    transport = RabbitTransport(broker.broker_url("relay"))

    unroutable = transport.publish([*messages(2), *messages(1, "no-such-queue"), *messages(2)])

    assert unroutable == {"no-such-queue"}
    wait_until(lambda: depth(broker, "web") == 4, "four messages are there")
    transport.close()


def publish_on(transport: RabbitTransport) -> None:
    while True:
        transport.publish(messages(1))


def test_blocked_broker_is_given_up_within_the_timeout(
    broker: PrivateFleet, rabbitmq: PrivateRabbitMQ
) -> None:
    transport = RabbitTransport(broker.broker_url("relay"), timeout=1.0)
    transport.publish(messages(1))
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        with pytest.raises(TransportLost, match="no answer"):
            publish_on(transport)  # the alarm takes a moment
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.6")

    def publishes() -> bool:
        try:
            transport.publish(messages(1))
        except TransportLost:
            return False
        return True

    wait_until(publishes, "publishing works again")
    transport.close()


def test_unreachable_broker_raises_transport_lost(broker: PrivateFleet) -> None:
    transport = RabbitTransport("amqp://nobody:nothing@127.0.0.1:1/")

    with pytest.raises(TransportLost):
        transport.publish(messages(1))
