"""Over AMQP: documents go out with confirms and ``mandatory``, answers come by direct reply-to.

A thread serves the connection, so that it lives while nobody sends. Many documents may be under
way.
"""

import json
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError

from producers.broker import Hosts, reason
from producers.client.errors import ClientError, Misrouted, Overloaded, Uncertain, Unreachable
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

EXCHANGE = "intake"
DIRECT_REPLY = "amq.rabbitmq.reply-to"
MOST_UNDER_WAY = 10_000

Reply = dict[str, Any]


@dataclass(slots=True, eq=False)
class Sent:
    """A document under way.

    Attributes:
        wants_answer: else its confirm is enough.
    """

    document: bytes
    kind: str
    wants_answer: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    future: "Future[Reply]" = field(default_factory=Future)
    is_published: bool = False
    is_confirmed: bool = False
    forget: "Callable[[Sent], None] | None" = None

    def give_up(self) -> ClientError:
        """Wait no more; what is to be raised instead."""
        if self.forget is not None:
            self.forget(self)
        if not self.is_published:
            return Unreachable("the broker did not let us in in time")
        if self.is_confirmed:
            return Uncertain("the broker has it; it was not answered in time", confirmed=True)
        return Uncertain("the broker has not confirmed it in time")

    def fail(self, error: ClientError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def lost(self, why: str) -> None:
        if not self.is_published:
            self.fail(Unreachable(why))
        elif self.is_confirmed:
            self.fail(Uncertain(f"confirmed, and not answered: {why}", confirmed=True))
        else:
            self.fail(Uncertain(why))


class Amqp:
    """Sends documents; for several threads. It connects when it is first used, and again when the
    connection was lost.

    Raises:
        ValueError: a URL cannot be used.
    """

    def __init__(self, urls: str, exchange: str = EXCHANGE) -> None:
        try:
            self._hosts = Hosts(urls, name="autorenew client")
        except ConfigurationError as error:
            raise ValueError(str(error).removeprefix("AUTORENEW_BROKER_URL: ")) from None
        self._exchange = exchange
        self._lock = threading.Lock()
        self._line: Line | None = None

    def send(self, document: bytes, kind: str, *, wants_answer: bool = True) -> Sent:
        """Have a document published.

        Returns:
            Its ``future`` has the answer, or an empty one once the broker has confirmed.
        """
        sent = Sent(document, kind, wants_answer)
        with self._lock:
            if self._line is None or self._line.is_over:
                self._line = Line(self._hosts, self._exchange)
            self._line.send(sent)
        return sent

    def close(self) -> None:
        """What is under way is given up."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.close()


class Line:
    """One connection, from its opening to its loss."""

    def __init__(self, hosts: Hosts, exchange: str) -> None:
        self._hosts = hosts
        self._exchange = exchange
        self._waiting: deque[Sent] = deque()
        self._by_id: dict[str, Sent] = {}
        self._by_tag: dict[int, Sent] = {}  # in their order
        self._tag = 0
        self._lock = threading.Lock()
        self._connection: pika.SelectConnection | None = None
        self._channel: Channel | None = None
        self._user: str = ""
        self._errors: list[BaseException] = []
        self._is_ready = False
        self._is_closing = False
        self._why = "closed"  # what ended it
        self.is_over = False
        self._thread = threading.Thread(target=self._run, name="autorenew client", daemon=True)
        self._thread.start()

    def send(self, sent: Sent) -> None:
        with self._lock:
            if self.is_over:
                sent.fail(Unreachable(self._why))
                return
            if len(self._waiting) + len(self._by_id) >= MOST_UNDER_WAY:
                sent.fail(Overloaded(f"{MOST_UNDER_WAY} documents are under way"))
                return
            self._waiting.append(sent)
            sent.forget = self._forget
        self._soon(self._publish_waiting)

    def close(self) -> None:
        self._is_closing = True
        self._soon(self._close)
        self._thread.join(5.0)

    def _soon(self, what: Callable[[], None]) -> None:
        connection = self._connection
        if connection is not None and self._is_ready:
            try:
                connection.ioloop.add_callback_threadsafe(what)
            except (AMQPError, OSError, AttributeError):
                log.debug("the connection has just ended", exc_info=True)

    def _close(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _run(self) -> None:
        """One host after the other, until one lets us in; then until that ends."""
        why = self._why
        try:
            for parameters, url in zip(self._hosts.parameters, self._hosts.urls, strict=True):
                self._user = url.user
                self._connection = pika.SelectConnection(
                    parameters,
                    on_open_callback=self._on_open,
                    on_open_error_callback=self._on_closed,
                    on_close_callback=self._on_closed,
                )
                self._connection.ioloop.start()
                self._connection.ioloop.close()
                if self._is_ready or self._is_closing:
                    break
            if self._errors:
                why = str(
                    reason(self._errors[-1])
                    if self._is_ready
                    else self._hosts.unreachable(self._errors)
                )
        except Exception as error:
            why = repr(error)
            log.debug("the connection of the client has failed", exc_info=True)
        finally:
            with self._lock:
                self._why, self.is_over = why, True
                left = [*self._waiting, *self._by_id.values()]
            for sent in left:
                sent.lost(why)

    def _on_open(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self._on_channel)

    def _on_closed(self, connection: pika.SelectConnection, error: BaseException) -> None:
        self._errors.append(error)
        connection.ioloop.stop()

    def _on_channel(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_returned)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._listen(channel))

    def _listen(self, channel: Channel) -> None:
        channel.basic_consume(
            DIRECT_REPLY, self._on_reply, auto_ack=True, callback=lambda _: self._start()
        )

    def _start(self) -> None:
        self._is_ready = True
        if self._is_closing:
            self._close()
        else:
            self._publish_waiting()

    def _on_channel_closed(self, _channel: Channel, error: BaseException) -> None:
        self._errors.append(error)
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _publish_waiting(self) -> None:
        channel = self._channel
        while self._is_ready and channel is not None and channel.is_open:
            with self._lock:
                if not self._waiting:
                    return
                sent = self._waiting.popleft()
                self._by_id[sent.id] = sent
            self._tag += 1
            self._by_tag[self._tag] = sent
            sent.is_published = True
            channel.basic_publish(
                self._exchange,
                "",
                sent.document,
                pika.BasicProperties(
                    content_type="application/json",
                    delivery_mode=2,
                    user_id=self._user,
                    type=sent.kind,
                    correlation_id=sent.id,
                    reply_to=DIRECT_REPLY if sent.wants_answer else None,
                ),
                mandatory=True,
            )

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        is_ack = isinstance(method, pika.spec.Basic.Ack)
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._by_tag if tag <= method.delivery_tag]
        for tag in tags:
            sent = self._by_tag.pop(tag, None)
            if sent is None:
                continue
            if not is_ack:
                self._forget(sent)
                sent.fail(Overloaded("the broker has no room for the document"))
                continue
            sent.is_confirmed = True
            if not sent.wants_answer:
                self._forget(sent)
                if not sent.future.done():
                    sent.future.set_result({})

    def _on_returned(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        sent = self._by_id.get(properties.correlation_id)
        if sent is not None:
            self._forget(sent)
            sent.fail(Misrouted(f"the broker has no queue for it: {method.reply_text}"))

    def _on_reply(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        sent = self._by_id.get(properties.correlation_id)
        if sent is None:
            return  # nobody waits for it any more
        self._forget(sent)
        try:
            reply = json.loads(body)
            if not isinstance(reply, dict) or "verdict" not in reply:
                raise ValueError
        except ValueError:
            sent.fail(Uncertain("it was answered, and the answer cannot be read", confirmed=True))
        else:
            if not sent.future.done():
                sent.future.set_result(reply)

    def _forget(self, sent: Sent) -> None:
        with self._lock:
            self._by_id.pop(sent.id, None)
            if sent in self._waiting:
                self._waiting.remove(sent)
