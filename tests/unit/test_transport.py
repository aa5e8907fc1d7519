import uuid

import dramatiq
from dramatiq.brokers.stub import StubBroker
from hypothesis import given
from hypothesis import strategies as st

from producers.ledger.dispatching import Dispatch
from producers.relay.transport import LocalTransport, encode

names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)


@given(names, names, names, st.uuids())
def test_message_carries_the_id_of_its_batch_its_lane_and_its_size(
    queue: str, name: str, lane: str, batch: uuid.UUID
) -> None:
    # When it has been over the wire
    sent = encode(Dispatch(queue, name, lane, batch, 500))
    read = dramatiq.Message.decode(sent.encode())
    # Then a worker finds its queue, its actor and the batch, and nothing to schedule by.
    assert read.queue_name == queue
    assert read.actor_name == f"{queue}.{name}"
    assert [uuid.UUID(one) for one in read.args[0]] == [batch]
    assert len(read.args) == 1
    assert (read.kwargs, read.options) == ({"lane": lane, "size": 500}, {})


def test_message_with_a_full_batch_is_small() -> None:
    dispatch = Dispatch("dedicated", "converge", "driver:metal", uuid.uuid4(), 500)
    assert len(encode(dispatch).encode()) < 1_000


def test_local_transport_sends_a_message_to_its_queue() -> None:
    # Given a broker in this process
    broker = StubBroker(middleware=[])
    broker.declare_queue("orders")
    waited: list[float] = []
    transport = LocalTransport(broker, waited.append)
    one = uuid.uuid4()
    # When
    batch = [
        Dispatch("orders", "price", "orders", one, 2),
        Dispatch("orders", "end", "orders", uuid.uuid4(), 2),
    ]
    # Then no queue is missing, and all of it is there.
    assert transport.publish(batch) == set()
    queue = broker.queues["orders"]
    first, second = (dramatiq.Message.decode(queue.get(timeout=30)) for _ in range(2))
    assert (first.actor_name, second.actor_name) == ("orders.price", "orders.end")
    assert first.args == ([str(one)],)
    assert queue.empty()
    broker.close()


def test_local_transport_idles_by_waiting() -> None:
    waited: list[float] = []
    transport = LocalTransport(StubBroker(middleware=[]), waited.append)
    transport.idle(0.25)
    transport.close()
    assert waited == [0.25]


def test_unknown_queue_is_reported_and_not_created() -> None:
    transport = LocalTransport(StubBroker(middleware=[]), lambda _: None)
    assert transport.publish([Dispatch("nonsense", "price", "orders", uuid.uuid4(), 1)]) == {
        "nonsense"
    }
