"""The AMQP door: orders as plain JSON on the exchange ``intake``, taken in batches.

A document is acknowledged after the commit that took it in, accepted or not. The broker has
verified the ``user_id`` property: it names the upstream.
"""

import logging
import threading
import time
from typing import Any

import pika
from pika import spec
from pika.exceptions import AMQPError
from sqlalchemy.exc import SQLAlchemyError

from producers.failpoints import failpoint
from producers.intake.intake import Intake
from producers.topology import INTAKE_QUEUE
from schemas.errors import ConfigurationError
from schemas.messages import Problem

log = logging.getLogger(__name__)

BATCH = 200
# How long a batch waits for company once its first document is there.
LINGER_SECONDS = 0.005
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

    pika raises from within its connection for headers such as a timestamp in milliseconds: the
    connection is lost, the broker delivers the message again, and so for ever. Here what cannot
    be read is left out; without its ``user_id`` the document is rejected, and kept.
    """

    def decode(self, encoded: bytes, offset: int = 0) -> pika.BasicProperties:
        try:
            super().decode(encoded, offset)
        except Exception:
            log.warning("a document's properties cannot be decoded", exc_info=True)
            self.user_id = None
        return self


class AmqpIntake:
    """Takes documents from RabbitMQ until stopped."""

    def __init__(self, url: str, intake: Intake) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.heartbeat = 20
        self._parameters.client_properties = {"connection_name": "autorenew intake"}
        self._intake = intake
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        # Where pika looks up the class of a content header's properties.
        spec.props[spec.Basic.INDEX] = TolerantProperties
        pause = 0.2
        while not self._stopping.is_set():
            try:
                self._consume()
                pause = 0.2
            except (AMQPError, OSError, SQLAlchemyError, ConfigurationError) as error:
                # Nothing was acknowledged: the broker delivers it all again.
                line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
                log.warning("%s: %s; again in %.1f s", type(error).__name__, line, pause)
                self._stopping.wait(pause)
                pause = min(pause * 2, 5.0)

    def _consume(self) -> None:
        connection = pika.BlockingConnection(self._parameters)
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=BATCH * 2)
            deliveries = channel.consume(INTAKE_QUEUE, inactivity_timeout=LINGER_SECONDS)
            batch: list[tuple[Any, Any, bytes]] = []
            since = 0.0
            while not self._stopping.is_set():
                method, properties, body = next(deliveries)
                if method is not None:
                    since = since if batch else time.monotonic()
                    batch.append((method, properties, body))
                waited = time.monotonic() - since
                if batch and (method is None or len(batch) >= BATCH or waited > LINGER_SECONDS):
                    self._take(channel, batch)
                    batch = []
            if batch:
                self._take(channel, batch)
        finally:
            if connection.is_open:
                connection.close()

    def _take(self, channel: Any, batch: list[tuple[Any, Any, bytes]]) -> None:
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
