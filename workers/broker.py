"""A Dramatiq broker for workers with read permission only: it neither declares nor publishes.

Built from Dramatiq's public Broker, Consumer and MessageProxy. Dramatiq's own RabbitmqBroker
declares queues, which RabbitMQ refuses a worker without that permission, for ever. After a
reconnect it acknowledges on the new channel by the delivery tag of the old one, which settles
another message. Here a message is settled only on the channel it came from.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from dramatiq import Broker, ConnectionClosed, Consumer, DecodeError, Message, MessageProxy
from pika.exceptions import ConnectionWrongStateError

from monitoring import metrics
from producers.broker import LOST, BrokerUnreachable, Hosts, reason
from producers.failpoints import failpoint

log = logging.getLogger(__name__)


class ReadOnlyBroker(Broker):
    """Consumes from queues that exist already; one connection per queue and process.

    Args:
        urls: one URL, or several separated by commas: the first that answers is used.
    """

    def __init__(self, urls: str) -> None:
        super().__init__(middleware=[])
        self._hosts = Hosts(urls, name="autorenew worker")
        self._state = _State()

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        raise RuntimeError("workers do not publish: enqueue into the ledger")

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        return _Consumer(self._hosts, self._state, queue_name, self.actors, prefetch, timeout)


class _State:
    """Whether the broker answers, of all queues of this process: each change is one line.

    Dramatiq tells of every attempt of every queue, in two lines; the launcher leaves those out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost_at: float | None = None

    def lost(self, why: str) -> ConnectionClosed:
        with self._lock:
            if self._lost_at is None:
                self._lost_at = time.monotonic()
                log.warning("broker: %s; again every few seconds", why)
        return ConnectionClosed(why)  # type: ignore[no-untyped-call]

    def connected(self) -> None:
        with self._lock:
            if self._lost_at is not None:
                log.info("broker: connected again after %.0f s", time.monotonic() - self._lost_at)
                self._lost_at = None


class _Delivery(MessageProxy):
    """A message, and the consumer and tag it came with."""

    def __init__(self, message: Message[Any], origin: "_Consumer", tag: int) -> None:
        super().__init__(message)
        self.origin = origin
        self.tag = tag


class _Consumer(Consumer):
    def __init__(
        self,
        hosts: Hosts,
        state: _State,
        queue_name: str,
        actors: Collection[str],
        prefetch: int,
        timeout: int,
    ) -> None:
        self._queue_name = queue_name
        self._actors = actors
        self._state = state
        try:
            self._connection = hosts.connect()
        except BrokerUnreachable as error:
            raise state.lost(str(error)) from None
        try:
            self._channel = self._connection.channel()
            self._channel.basic_qos(prefetch_count=prefetch)
            self._deliveries = self._channel.consume(queue_name, inactivity_timeout=timeout / 1000)
        except LOST as error:
            self.close()
            raise state.lost(f"queue {queue_name}: {reason(error)}") from None
        state.connected()

    def __next__(self) -> _Delivery | None:
        try:
            method, _, body = next(self._deliveries)
        except StopIteration:
            raise self._state.lost(
                f"queue {self._queue_name}: the consumer was cancelled"
            ) from None
        except LOST as error:
            raise self._state.lost(f"queue {self._queue_name}: {reason(error)}") from None
        if method is None:
            return None
        try:
            message = Message.decode(body)
            # Each would harm the worker: another queue's name kills its threads, an eta makes it
            # publish, an unknown actor ends the consumer.
            if (
                message.queue_name != self._queue_name
                or message.actor_name not in self._actors
                or "eta" in message.options
            ):
                raise ValueError("not a message of this queue")
        except (DecodeError, TypeError, ValueError) as error:
            log.warning("refused a message on %s: %s", self._queue_name, error)
            metrics.refused_messages.labels(self._queue_name).inc()
            self._channel.basic_nack(method.delivery_tag, requeue=False)
            return None
        return _Delivery(message, self, method.delivery_tag)

    def ack(self, message: Any) -> None:
        failpoint("worker.before_ack")
        self._settle(message, lambda: self._channel.basic_ack(message.tag))
        failpoint("worker.after_ack")

    def nack(self, message: Any) -> None:
        self._settle(message, lambda: self._channel.basic_nack(message.tag, requeue=False))

    def _settle(self, message: Any, settle: Callable[[], None]) -> None:
        if message.origin is not self:
            return  # its channel is closed: the broker delivers it again
        try:
            self._connection.add_callback_threadsafe(settle)
        except ConnectionWrongStateError:
            log.info("connection lost before an acknowledgement: the message is delivered again")

    def close(self) -> None:
        try:
            if self._connection.is_open:
                self._settle_what_is_queued()
                self._connection.close()
        except LOST:
            log.debug("closing", exc_info=True)

    def _settle_what_is_queued(self) -> None:
        """Run the acknowledgements that wait: they are callbacks of the connection, in order."""
        settled = threading.Event()
        self._connection.add_callback_threadsafe(settled.set)
        end = time.monotonic() + 1
        while not settled.is_set() and time.monotonic() < end:
            self._connection.process_data_events(0.01)
