"""Exchanges, queues, policies and users on RabbitMQ. Only an administrator sets them up."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pika.exceptions import ChannelClosedByBroker

from producers.broker import LOST, BrokerRefuses, BrokerUnreachable, Hosts, reason
from producers.management import Management
from producers.relay.transport import TASKS_EXCHANGE
from producers.steps import QUEUES, WEBHOOKS
from schemas.errors import ConfigurationError
from schemas.events import EXCHANGE, realm_word
from schemas.values import Universe

INTAKE_EXCHANGE = "intake"
INTAKE_QUEUE = "intake"
DEAD_INTAKE = "intake.dead"
REPLIES = "reply"
"""What the names of queues begin with that an upstream declares for answers."""
DEFAULT_EXCHANGE = "amq.default"
"""As permissions name it. It reaches a queue by its name, and whoever uses direct reply-to."""


def replies_of(upstream: str) -> str:
    """A regular expression: the queues for answers that belong to an upstream."""
    return rf"^{REPLIES}\.{re.escape(upstream)}\.[A-Za-z0-9_.-]{{1,100}}$"


# What the names of queues begin with that an upstream declares and binds for events.
_EVENT_QUEUES = r"events\.{}(\.[A-Za-z0-9_.-]{{1,100}})?"
# Such queues, as an example.
_OF_UPSTREAMS = (f"{REPLIES}.upstream-a.b", "events.upstream-a")


def _of_upstream(user: str) -> tuple[str, str, str]:
    """It publishes documents; it declares and reads queues of its own for answers, and declares,
    binds and reads others for events. Which events it may bind is in its topic permissions."""
    replies = replies_of(user)[1:-1]
    own = _EVENT_QUEUES.format(re.escape(user))
    intake = INTAKE_EXCHANGE if user == "upstream" else rf"{INTAKE_EXCHANGE}(\.{user})?"
    return (
        f"^({replies}|{own})$",
        f"^({intake}|{own})$",
        f"^({EXCHANGE}|{replies}|{own})$",
    )


_UNIVERSES = "|".join(Universe)
# How long a queue is, a passive declaration says. Before RabbitMQ 4.2.6 and 4.3 it needed no right;
# since 4.3.1 one of the three on that queue. For intake.dead that is to write, as it is the least:
# to read takes documents away and shows their secrets, to configure deletes the queue.
# user -> (configure, write, read): regular expressions over names.
PERMISSIONS = {
    "relay": ("^$", f"^{TASKS_EXCHANGE}$", "^$"),
    # Its own queue, and those of upstreams that have one; not intake.dead. Answers go over the
    # default exchange: where to is checked by producers/intake/replies.py.
    "intake": (
        "^$",
        rf"^({re.escape(DEFAULT_EXCHANGE)}|{re.escape(DEAD_INTAKE)})$",
        rf"^{INTAKE_QUEUE}(\.upstream-.+)?$",
    ),
    "orders": ("^$", "^$", "^orders$"),
    "billing": ("^$", "^$", "^billing$"),
    "reminders": ("^$", "^$", "^reminders$"),
    "provisioning": ("^$", "^$", f"^({_UNIVERSES})$"),
    "events": ("^$", f"^{EXCHANGE}$", f"^{WEBHOOKS}$"),
    "exporter": ("^$", rf"^{re.escape(DEAD_INTAKE)}$", "^$"),
    "upstream": _of_upstream("upstream"),
}


# Names that the user of an upstream may have: the name becomes part of a regular expression.
_UPSTREAM = re.compile(r"upstream-[A-Za-z0-9_-]+")


def queue_of(upstream: str) -> str:
    """The queue, and the exchange, of an upstream's own."""
    return f"{INTAKE_QUEUE}.{upstream}"


def permissions_of(user: str) -> tuple[str, str, str] | None:
    """The permissions of a user; None if there is no such user.

    Each upstream may have a user of its own, such as ``upstream-shop``, which may write to an
    exchange of its own as well.
    """
    if _UPSTREAM.fullmatch(user):
        return _of_upstream(user)
    return PERMISSIONS.get("upstream" if user.startswith("upstream-") else user)


def topics_of(user: str, realms: Mapping[str, str]) -> tuple[str, str] | None:
    """The topic permissions of an upstream's user on the exchange ``events`` (write, read): it may
    bind what begins with its realm. None: it is no upstream's.

    Args:
        realms: upstream -> realm, of those that share one.
    """
    if user != "upstream" and not user.startswith("upstream-"):
        return None
    return ("^$", rf"^{re.escape(realm_word(realms.get(user, user)))}\..+$")


def check_upstreams(upstreams: Sequence[str]) -> None:
    """Whether these can have queues of their own.

    Raises:
        ConfigurationError: one is no user of an upstream's own.
    """
    for upstream in upstreams:
        if not _UPSTREAM.fullmatch(upstream):
            raise ConfigurationError(
                f"AUTORENEW_INTAKE_UPSTREAMS: {upstream!r} is no broker user upstream-NAME"
                " (letters, digits, - and _)"
            )


# A rejected document goes to intake.dead, and what is put back there comes to intake. At least
# once, which needs that a full queue refuses.
_INTAKE_ARGUMENTS = {
    "x-dead-letter-exchange": DEAD_INTAKE,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


def declare(urls: str, upstreams: Sequence[str] = ()) -> list[str]:
    """Declare exchanges and quorum queues; safe to repeat.

    Args:
        upstreams: those that get a queue of their own.

    Returns:
        The names of the queues.

    Raises:
        ConfigurationError: the broker cannot be reached, or a queue or an exchange of that name
            exists with other properties.
    """
    check_upstreams(upstreams)
    # Fanout, so that a document is not lost whatever routing key its sender chose.
    of_documents: dict[str, dict[str, str]] = {DEAD_INTAKE: {}, INTAKE_QUEUE: _INTAKE_ARGUMENTS}
    of_documents |= {queue_of(upstream): _INTAKE_ARGUMENTS for upstream in upstreams}
    try:
        connection = Hosts(urls, name="autorenew setup").connect()
        channel = connection.channel()
        channel.exchange_declare(TASKS_EXCHANGE, "direct", durable=True)
        for queue in QUEUES:
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(queue, TASKS_EXCHANGE, routing_key=queue)
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        for name, arguments in of_documents.items():
            channel.exchange_declare(name, "fanout", durable=True)
            channel.queue_declare(
                name, durable=True, arguments={"x-queue-type": "quorum", **arguments}
            )
            channel.queue_bind(name, name)
        connection.close()
    except ChannelClosedByBroker as error:
        raise ConfigurationError(f"the broker refuses: {error.reply_text}") from None
    except BrokerUnreachable as error:
        raise unusable(error) from None
    except LOST as error:
        raise ConfigurationError(f"the broker: {reason(error)}") from None
    return [*QUEUES, *of_documents]


def unusable(error: BrokerUnreachable) -> ConfigurationError:
    """For a command, which does not wait."""
    if isinstance(error, BrokerRefuses):
        return ConfigurationError(f"AUTORENEW_BROKER_URL: {error}")
    return ConfigurationError(f"cannot reach the broker: {error}")


# Above policies that others made for all queues.
PRIORITY = 10
MOST_EVENTS, MOST_EVENT_BYTES = 2_000_000, 2**30
EVENT_QUEUE_DAYS = 14
"""A queue of an upstream's for events that nobody has used for so long is deleted."""
MOST_REPLIES, MOST_REPLY_BYTES = 10_000, 64 * 1024 * 1024
REPLY_SECONDS = 24 * 3600
REPLY_QUEUE_SECONDS = 7 * 24 * 3600
"""A queue for answers that nobody has used for so long is deleted."""
LIMITED_FROM = (4,)
"""From this version on a quorum queue gives up what was delivered 20 times, unless a policy says
otherwise. Before it there was no limit."""
MOST_DELIVERIES = 1_000_000_000
"""Of a message, before its queue gives it up: never. Not -1, which means no limit: as a policy,
RabbitMQ 4.0 to 4.1.3 writes it into the log of each queue every five seconds, which grows without
end (rabbitmq-server 14202), and 4.1.4 to 4.2.5 may not see that it was changed (14458, 16035)."""


def policies(version: tuple[int, ...], most: int, most_bytes: int) -> dict[str, dict[str, Any]]:
    """Name -> policy. Unlike arguments of queues, policies change queues that exist.

    Args:
        version: of RabbitMQ.
        most, most_bytes: that may wait in each queue of documents; more is refused.
    """
    never_give_up: dict[str, Any] = (
        {"delivery-limit": MOST_DELIVERIES} if version >= LIMITED_FROM else {}
    )
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "autorenew-intake": (
            PERMISSIONS["intake"][2],
            {
                "max-length": most,
                "max-length-bytes": most_bytes,
                "overflow": "reject-publish",
                **never_give_up,
            },
        ),
        "autorenew-intake-dead": (
            rf"^{re.escape(DEAD_INTAKE)}$",
            {
                "dead-letter-exchange": INTAKE_EXCHANGE,
                "dead-letter-strategy": "at-least-once",
                "overflow": "reject-publish",
                **never_give_up,
            },
        ),
    }
    # An upstream that does not read its events must not fill the broker with them.
    found["autorenew-events"] = (
        r"^events\.upstream",
        {
            "max-length": MOST_EVENTS,
            "max-length-bytes": MOST_EVENT_BYTES,
            "overflow": "drop-head",
            "expires": EVENT_QUEUE_DAYS * 86_400_000,
            **never_give_up,
        },
    )
    # An upstream that reads no answers must not fill the broker with them.
    found["autorenew-replies"] = (
        rf"^{REPLIES}\.",
        {
            "max-length": MOST_REPLIES,
            "max-length-bytes": MOST_REPLY_BYTES,
            "overflow": "drop-head",
            "message-ttl": REPLY_SECONDS * 1000,
            "expires": REPLY_QUEUE_SECONDS * 1000,
        },
    )
    if never_give_up:
        found["autorenew-tasks"] = (f"^({'|'.join(QUEUES)})$", never_give_up)
    return {
        name: {
            "pattern": pattern,
            "definition": definition,
            "apply-to": "queues",
            "priority": PRIORITY,
        }
        for name, (pattern, definition) in found.items()
    }


def set_policies(management: Management, wanted: dict[str, dict[str, Any]]) -> list[str]:
    """Put policies in force.

    Returns:
        Those of others that win over them, one line each: RabbitMQ applies one policy to a queue.
    """
    for name, policy in wanted.items():
        management.put_policy(name, policy)
    return [
        f"the policy {other['name']} wins over {name}: give it a priority below {PRIORITY},"
        " or a pattern that leaves out Autorenew's queues"
        for other in management.policies()
        if other["name"] not in wanted and other["priority"] >= PRIORITY
        for name, policy in wanted.items()
        if _overlap(str(other["pattern"]), str(other["apply-to"]), str(policy["pattern"]))
    ]


def _overlap(pattern: str, applies_to: str, ours: str) -> bool:
    """Whether a policy applies to a queue that one of ours applies to."""
    if applies_to not in ("all", "queues", "quorum_queues"):
        return False
    try:
        theirs = re.compile(pattern)
    except re.error:
        return True  # it may: look at it
    names = (*QUEUES, INTAKE_QUEUE, DEAD_INTAKE, queue_of("upstream-a"), *_OF_UPSTREAMS)
    return any(theirs.search(name) and re.search(ours, name) for name in names)


def create_users(
    management: Management, passwords: dict[str, str], realms: Mapping[str, str]
) -> list[str]:
    """Create or update users with the least permissions.

    Args:
        passwords: user -> password; the users of :data:`PERMISSIONS` and ``upstream-NAME``.
        realms: upstream -> realm, of those that share one.

    Raises:
        ConfigurationError: a user is unknown, or the API cannot be reached or refuses.
    """
    check_users(passwords)
    for user, password in passwords.items():
        permissions = permissions_of(user)
        assert permissions is not None
        named = dict(zip(("configure", "write", "read"), permissions, strict=True))
        if (topics := topics_of(user, realms)) is not None:
            # First: without them it may bind whatever it likes, once it may read the exchange.
            management.put_user(user, password)
            management.put_topics(user, EXCHANGE, *topics)
        management.put_user(user, password, named)
    return list(passwords)


def check_users(users: Iterable[str]) -> None:
    """Whether there are users of these names.

    Raises:
        ConfigurationError: one is unknown.
    """
    if unknown := sorted(user for user in users if permissions_of(user) is None):
        raise ConfigurationError(
            f"AUTORENEW_BROKER_PASSWORDS: no user {', '.join(unknown)};"
            f" there are {', '.join(PERMISSIONS)} and upstream-NAME"
        )


def vhost_of(urls: str) -> str:
    """The virtual host that the setting names."""
    return Hosts(urls, name="").urls[0].vhost
