"""How a relay hands messages over: to RabbitMQ with confirms, or to a broker in this process."""

import select
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import dramatiq
import pika

from producers.confirms import Confirming, Parcel, TransportLost
from producers.ledger.dispatching import Dispatch

TASKS_EXCHANGE = "tasks"

__all__ = ["TASKS_EXCHANGE", "LocalTransport", "RabbitTransport", "Transport", "TransportLost"]


class Transport(Protocol):
    def publish(self, batch: Sequence[Dispatch]) -> set[str]:
        """Hand over; returns when all of it is safe, with the queues that do not exist.

        Raises:
            TransportLost: it is not known what became of the batch.
        """
        ...

    def idle(self, seconds: float, wake: int | None = None) -> None:
        """Wait, and meanwhile keep the connection alive.

        Args:
            wake: a file descriptor; what becomes readable there ends the wait.
        """
        ...

    def close(self) -> None: ...


def encode(dispatch: Dispatch) -> dramatiq.Message[Any]:
    """The message of a dispatch: actor ``queue.task``, told a batch, its lane and its size."""
    return dramatiq.Message(
        queue_name=dispatch.queue,
        actor_name=f"{dispatch.queue}.{dispatch.name}",
        args=([str(dispatch.batch)],),
        kwargs={"lane": dispatch.lane, "size": dispatch.size},
        options={},
    )


class LocalTransport:
    """For a broker in this process, such as Dramatiq's StubBroker."""

    def __init__(self, broker: dramatiq.Broker, wait: Callable[[float], object]) -> None:
        self._broker = broker
        self._wait = wait

    def publish(self, batch: Sequence[Dispatch]) -> set[str]:
        unroutable = set()
        for dispatch in batch:
            try:
                self._broker.enqueue(encode(dispatch))
            except dramatiq.QueueNotFound:
                unroutable.add(dispatch.queue)
        return unroutable

    def idle(self, seconds: float, wake: int | None = None) -> None:
        if wake is None:
            self._wait(seconds)
        else:
            select.select([wake], [], [], seconds)

    def close(self) -> None:
        pass


class RabbitTransport:
    """Mandatory publishes to the exchange ``tasks``, confirmed in batches; for one thread."""

    def __init__(self, urls: str, *, timeout: float = 10.0) -> None:
        """
        Args:
            urls: one URL, or several separated by commas: the first that answers is used.
            timeout: seconds to connect, and to wait for a batch's confirms.

        Raises:
            ConfigurationError: a URL cannot be used.
        """
        self._confirming = Confirming(
            urls, name="autorenew relay", before_confirm="relay.before_confirm", timeout=timeout
        )

    def publish(self, batch: Sequence[Dispatch]) -> set[str]:
        return self._confirming.send(_parcel(dispatch) for dispatch in batch) if batch else set()

    def idle(self, seconds: float, wake: int | None = None) -> None:
        self._confirming.idle(seconds, wake)

    def close(self) -> None:
        self._confirming.close()


def _parcel(dispatch: Dispatch) -> Parcel:
    properties = pika.BasicProperties(delivery_mode=2, content_type="application/json")
    return Parcel(TASKS_EXCHANGE, dispatch.queue, encode(dispatch).encode(), properties, True)
