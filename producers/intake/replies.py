"""Answers over AMQP: the outcome of a document is published where its properties ask for it.

``reply_to`` names a queue, reached over the default exchange. As that exchange reaches every queue,
only two kinds of names are used: direct reply-to, a name that RabbitMQ itself makes for whoever
publishes; and ``reply.USER.…`` of the user that RabbitMQ verified, which nobody else may declare or
read. Anything else is not answered.

An answer is published after the commit, by a thread and a connection of its own: a broker that
blocks publishers, refuses, or is gone holds up no document. It may therefore be lost. Whoever needs
it sends the same document again.
"""

import logging
import re
import threading
import time
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import NamedTuple

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from monitoring import metrics
from producers.broker import LOST, BrokerLost, BrokerUnreachable, Hosts, reason
from producers.intake.documents import Answer
from producers.loop import Loop
from producers.topology import replies_of
from schemas.errors import ConfigurationError
from schemas.replies import REPLY_TYPE, Reply

log = logging.getLogger(__name__)

MOST_WAITING = 20_000
"""Answers; what comes on top is lost."""
BATCH = 500
POLL_SECONDS = 1.0
CLOSE_SECONDS = 2.0

# RabbitMQ replaces `amq.rabbitmq.reply-to` by such a name, which only the receiver of the message
# learns.
_DIRECT = re.compile(r"amq\.rabbitmq\.reply-to\.[!-~]{1,200}")
_CORRELATION = re.compile(r"[ -~]{1,255}")


class Address(NamedTuple):
    """Where an answer goes, and what its receiver knows it by."""

    queue: str
    correlation_id: str


def address(upstream: str | None, reply_to: object, correlation_id: object) -> Address | None:
    """Where the answer to a message goes; None: it asks for none, or may not have it there.

    Args:
        upstream: the user that RabbitMQ verified; None: the message does not say.
        reply_to, correlation_id: the message's properties.
    """
    if reply_to is None:
        return None
    if (
        isinstance(reply_to, str)
        and isinstance(correlation_id, str)
        and _CORRELATION.fullmatch(correlation_id)
        and (_DIRECT.fullmatch(reply_to) or _own(upstream).fullmatch(reply_to))
    ):
        return Address(reply_to, correlation_id)
    metrics.replies.labels("refused").inc()
    return None


@lru_cache(1000)
def _own(upstream: str | None) -> re.Pattern[str]:
    return re.compile(r"(?!)" if upstream is None else replies_of(upstream))


def reply_of(answer: Answer) -> Reply:
    """An answer as upstream reads it."""
    return Reply(
        verdict=answer.verdict.value,
        key=answer.key,
        order_id=None if answer.order_id is None else str(answer.order_id),
        repeated=answer.repeated,
        problems=answer.problems,
    )


class Replies:
    """Publishes answers; it connects when there is a first one.

    Args:
        urls: of the broker, as for the intake.
    """

    def __init__(self, urls: str) -> None:
        self._hosts = Hosts(urls, name="autorenew replies")
        self._waiting: SimpleQueue[tuple[Address, Answer]] = SimpleQueue()
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None
        self._thread: threading.Thread | None = None
        self._is_idle = threading.Event()
        causes = dict.fromkeys((BrokerLost, BrokerUnreachable), "broker")
        self._loop = Loop("replies", self._round, causes=causes)

    def send(self, to: Address, answer: Answer) -> None:
        """Have an answer published soon; never waits."""
        if self._waiting.qsize() >= MOST_WAITING:
            metrics.replies.labels("lost").inc()
            return
        self._is_idle.clear()
        self._waiting.put((to, answer))
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run, name="replies", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Publish what waits, if that is possible soon, and end; never raises."""
        if self._thread is None:
            return
        self._is_idle.wait(CLOSE_SECONDS)
        self._loop.stop()
        self._thread.join(2 * POLL_SECONDS)
        self._disconnect()

    def _round(self) -> float:
        batch = self._next()
        try:
            if self._connection is None:
                if not batch:
                    return 0.0
                self._connection = self._hosts.connect()
            if self._channel is None or not self._channel.is_open:
                self._channel = self._connection.channel()
            for to, answer in batch:
                _publish(self._channel, to, answer)
            if batch:
                # It returns when the broker has had all of them, and raises if it closed the
                # channel, as it does where the user may not write.
                self._channel.basic_qos(prefetch_count=1)
                metrics.replies.labels("sent").inc(len(batch))
            self._connection.process_data_events(0)  # heartbeats
        except BaseException as error:
            metrics.replies.labels("lost").inc(len(batch))
            self._disconnect()
            if isinstance(error, ChannelClosedByBroker):  # no outage, which may have been told
                raise ConfigurationError(
                    f"answers to upstream are refused: {reason(error)};"
                    " run `autorenew broker setup`"
                ) from error
            if isinstance(error, LOST):
                raise BrokerLost(f"answers to upstream: {reason(error)}") from error
            raise
        if self._waiting.empty():
            self._is_idle.set()
        return 0.0

    def _next(self) -> list[tuple[Address, Answer]]:
        """The answers that wait; empty if there is none for a while."""
        batch: list[tuple[Address, Answer]] = []
        try:
            batch.append(self._waiting.get(timeout=POLL_SECONDS))
            while len(batch) < BATCH:
                batch.append(self._waiting.get_nowait())
        except Empty:
            pass
        return batch

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        try:
            if connection is not None and connection.is_open:
                connection.close()
        except LOST:
            pass  # it was lost meanwhile


def _publish(channel: BlockingChannel, to: Address, answer: Answer) -> None:
    properties = pika.BasicProperties(
        content_type="application/json",
        type=REPLY_TYPE,
        correlation_id=to.correlation_id,
        delivery_mode=1,
        timestamp=int(time.time()),
    )
    # Not mandatory: nobody is helped by an answer that comes back.
    channel.basic_publish("", to.queue, reply_of(answer).as_json(), properties)
