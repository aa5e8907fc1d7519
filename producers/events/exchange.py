"""How events reach RabbitMQ: the topic exchange ``events``, with confirms."""

import select
from collections.abc import Callable, Sequence
from typing import Protocol

import pika

from producers.confirms import Confirming, Parcel
from producers.events.composing import Outgoing
from schemas.events import CONTENT_TYPE, EXCHANGE


class Exchange(Protocol):
    def publish(self, events: Sequence[Outgoing]) -> None:
        """Hand over, in order; returns when all of it is safe.

        Raises:
            TransportLost: it is not known what became of it.
        """
        ...

    def idle(self, seconds: float, wake: int | None = None) -> None:
        """Wait, and meanwhile keep the connection alive.

        Args:
            wake: a file descriptor; what becomes readable there ends the wait.
        """
        ...

    def close(self) -> None: ...


class RabbitExchange:
    """The exchange of a broker; for one thread. What nobody has bound a queue for is dropped.

    Args:
        urls: one URL, or several separated by commas: the first that answers is used.

    Raises:
        ConfigurationError: a URL cannot be used.
    """

    def __init__(self, urls: str) -> None:
        self._confirming = Confirming(
            urls, name="autorenew events", before_confirm="events.before_confirm"
        )

    def publish(self, events: Sequence[Outgoing]) -> None:
        self._confirming.send(map(_parcel, events))

    def idle(self, seconds: float, wake: int | None = None) -> None:
        self._confirming.idle(seconds, wake)

    def close(self) -> None:
        self._confirming.close()


class NoExchange:
    """Where there is no broker: events go to endpoints only.

    Args:
        wait: for so many seconds.
    """

    def __init__(self, wait: Callable[[float], object]) -> None:
        self._wait = wait

    def publish(self, events: Sequence[Outgoing]) -> None:
        pass

    def idle(self, seconds: float, wake: int | None = None) -> None:
        if wake is None:
            self._wait(seconds)
        else:
            select.select([wake], [], [], seconds)

    def close(self) -> None:
        pass


def _parcel(event: Outgoing) -> Parcel:
    properties = pika.BasicProperties(
        content_type=CONTENT_TYPE,
        delivery_mode=2,
        message_id=str(event.id),
        type=event.kind,
    )
    return Parcel(EXCHANGE, event.routing_key, event.body, properties, False)
