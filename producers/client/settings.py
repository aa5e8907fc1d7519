"""What both clients are told, and how they read an answer over AMQP."""

from typing import TypeVar

from producers.client import calls
from producers.client.calls import Call, Json
from producers.client.errors import NotOffered

T = TypeVar("T")
BATCH = 500
"""Orders in one request over HTTP, and under way at once over AMQP."""


class Settings:
    """
    Raises:
        ValueError: the URL or the key cannot be used.
    """

    def __init__(
        self, url: str, key: str | None, timeout: float, attempts: int, exchange: str
    ) -> None:
        self.is_http = url.startswith(("http://", "https://"))
        if not self.is_http and not url.startswith(("amqp://", "amqps://")):
            raise ValueError("the URL must begin with https://, http://, amqps:// or amqp://")
        if key is not None and not (key.isascii() and key.isprintable() and key):
            raise ValueError("the key must be printable ASCII")
        if key is not None and not self.is_http:
            raise ValueError("over AMQP there is no key: the URL names a user and a password")
        if attempts < 1 or timeout <= 0:
            raise ValueError("attempts must be 1 or more, and timeout more than 0")
        self.url = url.rstrip("/")
        self.key = key
        self.timeout = timeout
        self.attempts = attempts
        self.exchange = exchange


def result_of(call: Call[T], reply: Json) -> T:
    """What an answer over AMQP means.

    Raises:
        NotDone: it says that nothing was done.
    """
    if reply["verdict"] != "accepted":
        raise calls.reply_error(reply)
    assert call.read_reply is not None
    return call.read_reply(reply)


def not_offered(call: Call[T]) -> NotOffered:
    return NotOffered(f"{call.method} {call.path} is to be had over HTTP only")


def no_publishing() -> NotOffered:
    return NotOffered("a document is published over AMQP only; over HTTP it is placed")
