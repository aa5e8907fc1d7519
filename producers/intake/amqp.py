"""Takes documents from the AMQP queue ``intake``, in batches: plain JSON, one document a message.

A document is acknowledged after the commit that took it, accepted or not. The property ``user_id``,
which RabbitMQ verifies, names the upstream.
"""

import logging
from typing import Any

import pika
from pika import spec
from pika.exceptions import AMQPError

from producers.failpoints import failpoint
from producers.intake.intake import Intake
from producers.loop import Loop
from producers.topology import INTAKE_QUEUE
from schemas.messages import Problem

log = logging.getLogger(__name__)

BATCH = 200
# How long to wait for a document: also how long a stop may take.
POLL_SECONDS = 0.2
_Delivery = tuple[Any, Any, bytes]

ANONYMOUS = "(no user_id)"
_NO_USER = [
    Problem(
        code="user_id_missing",
        path="",
        message="publish with the property user_id, which must be your AMQP user",
    )
]


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


class AmqpIntake:
    """Takes documents from RabbitMQ until stopped."""

    def __init__(self, url: str, intake: Intake) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.heartbeat = 20
        self._parameters.client_properties = {"connection_name": "autorenew intake"}
        self._intake = intake
        self._connection: pika.BlockingConnection | None = None
        self._channel: Any = None
        causes = {AMQPError: "broker", ConsumerCancelled: "broker"}
        self._loop = Loop("intake", self._round, causes=causes)

    def stop(self) -> None:
        """Have :meth:`run` return after the batch it is in."""
        self._loop.stop()

    def run(self) -> None:
        """Work until :meth:`stop`."""
        # Where pika looks up the class of a content header's properties.
        spec.props[spec.Basic.INDEX] = TolerantProperties
        try:
            self._loop.run()
        finally:
            self._disconnect()

    def _round(self) -> float:
        """Take a batch; whatever fails, the broker delivers again what was not acknowledged."""
        try:
            if self._channel is None:
                self._connect()
            batch = self._collect()
            if batch:
                self._take(self._channel, batch)
        except BaseException:
            self._disconnect()
            raise
        return 0.0

    def _connect(self) -> None:
        self._connection = pika.BlockingConnection(self._parameters)
        self._channel = self._connection.channel()
        self._channel.basic_qos(prefetch_count=BATCH * 2)

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None and connection.is_open:
            try:
                connection.close()
            except AMQPError:
                pass  # it was lost meanwhile, which closes it as well

    def _collect(self) -> list[_Delivery]:
        """The documents that are there, up to a batch; none if none comes in ``POLL_SECONDS``.

        It does not wait for more: what comes while a batch is taken is the next one.
        """
        batch: list[_Delivery] = []
        while len(batch) < BATCH:
            delivery = self._next(0.0 if batch else POLL_SECONDS)
            if delivery is None:
                break
            batch.append(delivery)
        return batch

    def _next(self, seconds: float) -> _Delivery | None:
        """The next document; None if none comes in time.

        Raises:
            ConsumerCancelled: none will ever come.
        """
        # Called again on the same channel it goes on with the same consumer.
        for method, properties, body in self._channel.consume(
            INTAKE_QUEUE, inactivity_timeout=seconds
        ):
            return None if method is None else (method, properties, body)
        raise ConsumerCancelled(f"the broker has cancelled the consumer of queue {INTAKE_QUEUE}")

    def _take(self, channel: Any, batch: list[_Delivery]) -> None:
        by_upstream: dict[str, list[bytes]] = {}
        for _, properties, body in batch:
            by_upstream.setdefault(properties.user_id or ANONYMOUS, []).append(body)
        nameless = by_upstream.pop(ANONYMOUS, [])
        if nameless:
            self._intake.reject(ANONYMOUS, "amqp", nameless, _NO_USER)
        for upstream, bodies in by_upstream.items():
            self._intake.place(upstream, "amqp", bodies)
        failpoint("intake.before_ack")
        channel.basic_ack(batch[-1][0].delivery_tag, multiple=True)
        failpoint("intake.after_ack")
