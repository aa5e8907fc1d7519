"""Exchanges, queues and users on RabbitMQ. Only an administrator sets them up."""

import json
from urllib.parse import quote, urlsplit

import pika
import urllib3
from pika.exceptions import AMQPError, ChannelClosedByBroker

from producers.relay.transport import TASKS_EXCHANGE
from producers.steps import QUEUES
from schemas.errors import ConfigurationError
from schemas.values import Universe

INTAKE_EXCHANGE = "intake"
INTAKE_QUEUE = "intake"
DEAD_INTAKE = "intake.dead"

_UNIVERSES = "|".join(Universe)
# user -> (configure, write, read): regular expressions over names.
PERMISSIONS = {
    "relay": ("^$", f"^{TASKS_EXCHANGE}$", "^$"),
    "intake": ("^$", "^$", f"^{INTAKE_QUEUE}$"),
    "orders": ("^$", "^$", "^orders$"),
    "billing": ("^$", "^$", "^billing$"),
    "reminders": ("^$", "^$", "^reminders$"),
    "provisioning": ("^$", "^$", f"^({_UNIVERSES})$"),
    "upstream": ("^$", f"^{INTAKE_EXCHANGE}$", "^$"),
}


def permissions_of(user: str) -> tuple[str, str, str] | None:
    """The permissions of a user; None if there is no such user.

    Each upstream may have a user of its own, such as ``upstream-shop``.
    """
    return PERMISSIONS.get("upstream" if user.startswith("upstream-") else user)


def declare(url: str) -> list[str]:
    """Declare exchanges and quorum queues; safe to repeat.

    No delivery limit is set: messages that a stopping worker never started count as delivered.
    RabbitMQ 4 has a limit by default; documents it removes from ``intake`` go to ``intake.dead``.

    Returns:
        The names of the queues.

    Raises:
        ConfigurationError: the broker cannot be reached, or a queue or an exchange of that name
            exists with other properties.
    """
    try:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        channel.exchange_declare(TASKS_EXCHANGE, "direct", durable=True)
        for queue in QUEUES:
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(queue, TASKS_EXCHANGE, routing_key=queue)
        # Fanout, so that a document is not lost whatever routing key its sender chose.
        for name, arguments in (
            (DEAD_INTAKE, {}),
            (
                INTAKE_QUEUE,
                {
                    "x-dead-letter-exchange": DEAD_INTAKE,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                },
            ),
        ):
            channel.exchange_declare(name, "fanout", durable=True)
            channel.queue_declare(
                name, durable=True, arguments={"x-queue-type": "quorum", **arguments}
            )
            channel.queue_bind(name, name)
        connection.close()
    except ChannelClosedByBroker as error:
        raise ConfigurationError(f"the broker refuses: {error.reply_text}") from None
    except (AMQPError, OSError) as error:
        raise ConfigurationError(f"cannot reach the broker: {error!r}") from None
    return [*QUEUES, INTAKE_QUEUE, DEAD_INTAKE]


def create_users(management_url: str, vhost: str, passwords: dict[str, str]) -> list[str]:
    """Create or update users with the least permissions, over the management plugin's HTTP API.

    Args:
        management_url: with an administrator's name and password.
        passwords: user -> password; the users of :data:`PERMISSIONS` and ``upstream-NAME``.

    Raises:
        ConfigurationError: a user is unknown, or the API cannot be reached or refuses.
    """
    unknown = sorted(user for user in passwords if permissions_of(user) is None)
    if unknown:
        raise ConfigurationError(
            f"AUTORENEW_BROKER_PASSWORDS: no user {', '.join(unknown)};"
            f" there are {', '.join(PERMISSIONS)} and upstream-NAME"
        )
    parts = urlsplit(management_url)
    headers = urllib3.make_headers(basic_auth=f"{parts.username}:{parts.password}")
    headers["Content-Type"] = "application/json"
    base = f"{parts.scheme}://{parts.hostname}:{parts.port or 15672}/api"
    http = urllib3.PoolManager(retries=False, timeout=10)
    for user, password in passwords.items():
        permissions = permissions_of(user)
        assert permissions is not None
        for path, body in (
            (f"/users/{user}", {"password": password, "tags": ""}),
            (
                f"/permissions/{quote(vhost, safe='')}/{user}",
                dict(zip(("configure", "write", "read"), permissions, strict=True)),
            ),
        ):
            try:
                answer = http.request("PUT", base + path, body=json.dumps(body), headers=headers)
            except urllib3.exceptions.HTTPError as error:
                raise ConfigurationError(f"cannot reach the management API: {error}") from None
            if answer.status >= 300:
                raise ConfigurationError(f"the management API answers {answer.status} to {path}")
    return list(passwords)


def vhost_of(url: str) -> str:
    """The virtual host an AMQP URL names."""
    return str(pika.URLParameters(url).virtual_host)
