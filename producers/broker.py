"""The one way to reach RabbitMQ: which hosts, how they are tried, and what is said if none will."""

import logging
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AMQPHeartbeatTimeout,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from schemas.broker_urls import BrokerUrl, parse
from schemas.errors import ConfigurationError, first_line

log = logging.getLogger(__name__)

# AssertionError: pika raises it when a blocking channel is closed during a call.
LOST = (AMQPError, AMQPConnectorException, OSError, AssertionError)
CONNECT_SECONDS = 10.0
_NOT_FOUND = 404


class BrokerUnreachable(Exception):
    """No broker could be connected to; the message is one line that says why, of each."""


class BrokerLost(Exception):
    """A connection to the broker, or what it was used for, has ended; the message says why."""


class BrokerRefuses(BrokerUnreachable):
    """Every broker answers, and none lets us in: waiting does not help."""


class Hosts:
    """The brokers of a setting, as pika wants them; the first that answers is used.

    Args:
        urls: one URL, or several separated by commas.
        name: what RabbitMQ shows of the connection.
        heartbeat: seconds.
        timeout: seconds for each host, to connect and while it is blocked.

    Raises:
        ConfigurationError: a URL cannot be used, or a file that it names.
    """

    def __init__(
        self, urls: str, *, name: str, heartbeat: int = 10, timeout: float = CONNECT_SECONDS
    ) -> None:
        try:
            self.urls = parse(urls)
        except ValueError as error:
            raise ConfigurationError(f"AUTORENEW_BROKER_URL: {error}") from None
        self.parameters = tuple(
            pika.ConnectionParameters(
                host=url.host,
                port=url.port,
                virtual_host=url.vhost,
                credentials=pika.PlainCredentials(url.user, url.password),
                ssl_options=_tls(url),
                heartbeat=heartbeat,
                socket_timeout=timeout,
                stack_timeout=timeout * 1.5,
                blocked_connection_timeout=timeout,
                client_properties={"connection_name": name},
            )
            for url in self.urls
        )

    def connect(self) -> pika.BlockingConnection:
        """A connection to the first host that answers.

        Raises:
            BrokerUnreachable: none does.
            BrokerRefuses: all do, and none lets us in.
        """
        errors: list[BaseException] = []
        for parameters in self.parameters:
            try:
                return pika.BlockingConnection(parameters)
            except LOST as error:
                errors.append(error)
        raise self.unreachable(errors)

    def unreachable(self, errors: Sequence[BaseException]) -> BrokerUnreachable:
        """What to raise when the hosts, in their order, ended with these errors."""
        said = [f"{u.place}: {reason(e, u)}" for u, e in zip(self.urls, errors, strict=False)]
        refused = all(is_refusal(error) for error in errors)
        return (BrokerRefuses if refused else BrokerUnreachable)("; ".join(said))


def _tls(url: BrokerUrl) -> pika.SSLOptions | None:
    if not url.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=url.cafile)
    except (ssl.SSLError, OSError):
        raise ConfigurationError(
            f"AUTORENEW_BROKER_URL: cafile {url.cafile} holds no certificate in PEM"
        ) from None
    if url.certfile is not None:
        try:
            context.load_cert_chain(url.certfile, url.keyfile, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ConfigurationError(
                f"AUTORENEW_BROKER_URL: certfile {url.certfile} and its key cannot be used:"
                f" {first_line(error)}"
            ) from None
    return pika.SSLOptions(context, url.server_name or url.host)


def _no_password() -> str:
    """Instead of asking for one at the terminal."""
    raise ValueError("the key is encrypted")


def check(urls: str) -> None:
    """At the start of a process: whether the brokers of a setting let us in.

    One that cannot be reached may come later, and is no error: whoever needs it then says so.

    Raises:
        ConfigurationError: a URL cannot be used, or every broker refuses us.
    """
    try:
        Hosts(urls, name="autorenew start", timeout=5.0).connect().close()
    except BrokerRefuses as error:
        raise ConfigurationError(f"AUTORENEW_BROKER_URL: {error}") from None
    except (BrokerUnreachable, *LOST) as error:
        log.debug("no broker can be reached yet: %s", first_line(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those it is made of: pika wraps them in several ways."""
    yield error
    inner: list[Any] = [*error.args, getattr(error, "exception", None)]
    inner += list(getattr(error, "exceptions", ()))
    for one in inner:
        if isinstance(one, BaseException) and one is not error:
            yield from _causes(one)


def is_refusal(error: BaseException) -> bool:
    """Whether a broker answered that it does not want us, and will say the same again."""
    for cause in _causes(error):
        if isinstance(cause, ProbableAuthenticationError):
            return True
        if isinstance(cause, ProbableAccessDeniedError):
            return " is down" not in str(cause)
        if isinstance(cause, ssl.SSLError):
            # One without a reason, or cut off: it was going down.
            return cause.reason is not None and "EOF" not in cause.reason
    return False


def reason(error: BaseException, url: BrokerUrl | None = None) -> str:
    """Why a connection failed or was lost, as one line for people."""
    causes = list(_causes(error))
    for cause in causes:
        match cause:
            case ProbableAuthenticationError():
                who = f" for the user {url.user}" if url else ""
                return f"refused: wrong user name or password{who}"
            case ProbableAccessDeniedError():
                return f"refused: {_quoted_reply(causes)}"
            case ssl.SSLCertVerificationError():
                return f"its certificate is not trusted: {cause.verify_message}"
            case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
                return "does not speak TLS on that port: amqp://, or another port"
            case ssl.SSLError():
                return f"TLS: {cause.reason or first_line(cause)}"
            case IncompatibleProtocolError():
                return "does not speak AMQP without TLS on that port, or was cut off"
            case AMQPHeartbeatTimeout():
                return "no heartbeat came"
    for cause in causes:
        if isinstance(cause, ConnectionClosedByBroker | ChannelClosedByBroker):
            is_missing = cause.reply_code == _NOT_FOUND
            return f"{cause.reply_text}{': run `autorenew broker setup`' if is_missing else ''}"
    for cause in reversed(causes):
        if isinstance(cause, OSError):
            return cause.strerror or first_line(cause)
    if any("imeout" in type(cause).__name__ for cause in causes):
        return "no answer in time"
    innermost = causes[-1]
    if isinstance(error, AMQPConnectionError) and not str(innermost):
        return "the connection was lost"
    return first_line(innermost)


def _quoted_reply(causes: Sequence[BaseException]) -> str:
    """What RabbitMQ replied, such as ``vhost x not found``, of which pika keeps a text only."""
    text = str(causes[0].args[0] if causes[0].args else causes[0])
    _, _, reply = text.partition("NOT_ALLOWED - ")
    return reply.removesuffix(")")[:-1] or first_line(causes[0])
