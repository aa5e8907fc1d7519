"""One connection of the intake, from its opening to its loss: what came, and what is settled."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import pika
from pika import spec
from pika.exceptions import ChannelClosedByBroker

from monitoring import metrics
from producers.broker import LOST, Hosts, reason
from producers.intake.documents import Document
from producers.intake.replies import address
from producers.intake.turns import TURN, Delivery, Turns
from producers.topology import DEAD_INTAKE

log = logging.getLogger(__name__)

PREFETCH = 2 * TURN
LEAST_PREFETCH = 50
MEASURE_EVERY_SECONDS = 15.0
READ_AT_ONCE_BYTES = 8 * 1024
"""Larger documents are read when their turn comes: read, one may take ten times its size."""


class TolerantProperties(pika.BasicProperties):  # type: ignore[misc]
    """Message properties that never fail to decode.

    For headers such as a timestamp in milliseconds, pika raises inside its connection: it is lost,
    the broker delivers the message again, and the same happens for ever. Here properties that
    cannot be read are left out; a document without ``user_id`` is then rejected, and kept.
    """

    def decode(self, encoded: bytes, offset: int = 0) -> pika.BasicProperties:
        try:
            super().decode(encoded, offset)
        except Exception:
            log.warning("a document's properties cannot be decoded", exc_info=True)
            self.user_id = None
        return self


class ConsumerCancelled(Exception):
    """The broker ended our subscription, as it does when the queue is deleted."""


class Link:
    """Consumes from queues of documents until it is lost; what is not settled then comes again.

    For one thread, but for :meth:`wake`.

    Raises:
        BrokerUnreachable: no broker lets us in.
    """

    def __init__(self, hosts: Hosts, queues: Sequence[str]) -> None:
        # Where pika looks up the class of a content header's properties.
        spec.props[spec.Basic.INDEX] = TolerantProperties
        self.turns = Turns()
        self._queues = queues
        self._unsettled: dict[int, None] = {}  # tags, in the order they came
        self._cancelled = ""
        self._next_measure = 0.0
        self._unmeasured: set[str] = set()
        self._connection = hosts.connect()
        try:
            self._channel = self._connection.channel()
            self._channel.basic_qos(prefetch_count=max(LEAST_PREFETCH, PREFETCH // len(queues)))
            self._channel.add_on_cancel_callback(self._on_cancel)
            for queue in queues:
                self._channel.basic_consume(queue, self._on_document, consumer_tag=queue)
        except BaseException:
            self.close()
            raise

    def serve(self, seconds: float) -> None:
        """Receive documents and answer heartbeats until something happened, or for that long.

        Raises:
            ConsumerCancelled: no document will ever come from a queue.
        """
        self._connection.process_data_events(seconds)
        if self._cancelled:
            raise ConsumerCancelled(
                f"the broker has cancelled the consumer of queue {self._cancelled};"
                " if it was deleted, run `autorenew broker setup`"
            )

    def wake(self) -> None:
        """Have :meth:`serve` return; from any thread."""
        try:
            self._connection.add_callback_threadsafe(lambda: None)
        except LOST:
            pass  # it returns by itself

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            del self._unsettled[delivery.tag]
        oldest = next(iter(self._unsettled), None)
        # All older ones are settled: one frame for as many as possible.
        whole = [d.tag for d in deliveries if oldest is None or d.tag < oldest]
        if whole:
            self._channel.basic_ack(max(whole), multiple=True)
        for delivery in deliveries:
            if oldest is not None and delivery.tag > oldest:
                self._channel.basic_ack(delivery.tag)

    def set_aside(self, delivery: Delivery) -> None:
        """Have the broker move a document to ``intake.dead``."""
        del self._unsettled[delivery.tag]
        self._channel.basic_nack(delivery.tag, requeue=False)

    def measure(self) -> None:
        """Show how many documents wait, and how many were set aside; from time to time."""
        now = time.monotonic()
        if now < self._next_measure:
            return
        self._next_measure = now + MEASURE_EVERY_SECONDS
        channel = self._connection.channel()
        for queue in (*self._queues, DEAD_INTAKE):
            try:
                declared = channel.queue_declare(queue, passive=True)
                metrics.intake_waiting().labels(queue).set(declared.method.message_count)
            except ChannelClosedByBroker as error:  # of this channel only
                self._say_unmeasured(queue, reason(error))
                channel = self._connection.channel()
        channel.close()

    def _say_unmeasured(self, queue: str, why: str) -> None:
        """Once for each queue: it is missing from what is watched."""
        level = logging.DEBUG if queue in self._unmeasured else logging.WARNING
        log.log(level, "cannot see how long the queue %s is: %s", queue, why)
        self._unmeasured.add(queue)

    def close(self) -> None:
        """Give back what is not settled; never raises."""
        try:
            if self._connection.is_open:
                self._connection.close()
        except LOST:
            pass  # it was lost meanwhile, which closes it as well

    def _on_document(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._unsettled[method.delivery_tag] = None
        upstream, type_ = properties.user_id or None, properties.type
        document = _read_ahead(body, type_)
        self.turns.add(
            Delivery(
                upstream,
                method.delivery_tag,
                body,
                type=type_,
                trace=_header(properties.headers, "traceparent"),
                document=document,
                answer_to=address(upstream, properties.reply_to, properties.correlation_id),
            )
        )

    def _on_cancel(self, frame: Any) -> None:
        self._cancelled = frame.method.consumer_tag


def _read_ahead(body: bytes, type_: str | None) -> Document | None:
    """A short document is read here, while the other thread waits for the database.

    A defect that one brings to light comes up when it is taken, where its neighbours are spared.
    """
    if len(body) > READ_AT_ONCE_BYTES:
        return None
    try:
        return Document.read(body, None, type_)
    except Exception:
        return None


def _header(headers: Any, name: str) -> str | None:
    value = headers.get(name) if headers else None
    return value if isinstance(value, str) else None
