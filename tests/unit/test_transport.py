import uuid

import dramatiq
from dramatiq.brokers.stub import StubBroker
from hypothesis import given
from hypothesis import strategies as st

from producers.ledger.dispatching import Dispatch
from producers.relay.transport import LocalTransport, encode

names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)


@given(names, names, names, st.lists(st.uuids(), min_size=1, max_size=20))
def test_a_message_carries_nothing_but_its_subjects_and_their_lane(
    queue: str, name: str, lane: str, subjects: list[uuid.UUID]
) -> None:
    # When it has been over the wire
    sent = encode(Dispatch(queue, name, lane, tuple(subjects)))
    read = dramatiq.Message.decode(sent.encode())
    # Then a worker finds its queue, its actor and the subjects, and nothing to schedule by.
    assert read.queue_name == queue
    assert read.actor_name == f"{queue}.{name}"
    assert [uuid.UUID(subject) for subject in read.args[0]] == subjects
    assert len(read.args) == 1
    assert (read.kwargs, read.options) == ({"lane": lane}, {})


def test_message_with_a_full_batch_is_small() -> None:
    subjects = tuple(uuid.uuid4() for _ in range(500))
    dispatch = Dispatch("dedicated", "converge", "driver:metal", subjects)
    assert len(encode(dispatch).encode()) < 32_000


def test_local_transport_sends_a_message_to_its_queue() -> None:
    # Given a broker in this process
    broker = StubBroker(middleware=[])
    broker.declare_queue("orders")
    waited: list[float] = []
    transport = LocalTransport(broker, waited.append)
    subjects = (uuid.uuid4(), uuid.uuid4())
    # When
    batch = [
        Dispatch("orders", "price", "orders", subjects),
        Dispatch("orders", "end", "orders", subjects),
    ]
    # Then no queue is missing, and all of it is there.
    assert transport.publish(batch) == set()
    queue = broker.queues["orders"]
    first, second = (dramatiq.Message.decode(queue.get(timeout=1)) for _ in range(2))
    assert (first.actor_name, second.actor_name) == ("orders.price", "orders.end")
    assert first.args == ([str(subject) for subject in subjects],)
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
    assert transport.publish([Dispatch("nonsense", "price", "orders", (uuid.uuid4(),))]) == {
        "nonsense"
    }
