"""Documents that were set aside on ``intake.dead``: counted, and put back."""

from pika.exceptions import ChannelClosedByBroker

from producers.broker import LOST, BrokerUnreachable, Hosts, reason
from producers.management import Management
from producers.topology import DEAD_INTAKE, INTAKE_EXCHANGE, unusable
from schemas.errors import AutorenewError, ConfigurationError

BATCH = 500
_REFUSED = 403


def count(urls: str) -> int:
    """How many documents are set aside.

    Raises:
        AutorenewError: the broker cannot be asked.
    """
    try:
        connection = Hosts(urls, name="autorenew cli", timeout=5.0).connect()
        try:
            declared = connection.channel().queue_declare(DEAD_INTAKE, passive=True)
            return int(declared.method.message_count)
        finally:
            if connection.is_open:
                connection.close()
    except BrokerUnreachable as error:
        raise AutorenewError(f"the broker cannot be asked: {error}") from None
    except ChannelClosedByBroker as error:
        hint = ": run `autorenew broker setup`" if error.reply_code == _REFUSED else ""
        raise AutorenewError(f"the broker does not say it: {reason(error)}{hint}") from None
    except LOST as error:
        raise AutorenewError(f"the broker cannot be asked: {reason(error)}") from None


def put_back(urls: str, management: Management, limit: int | None = None) -> tuple[int, int]:
    """Have the broker move documents back to the queue ``intake``, oldest first.

    They are rejected here, which moves them by the policy of ``intake.dead``: published anew they
    could not keep the property ``user_id`` of their upstream.

    Args:
        urls: as an administrator.
        limit: most documents; None: all that are there now.

    Returns:
        How many were put back, and how many are left.

    Raises:
        ConfigurationError: the policy is missing, without which they would be lost; or the broker
            cannot be reached or refuses.
    """
    definitions = {p["name"]: p["definition"] for p in management.policies()}
    moves = definitions.get("autorenew-intake-dead", {}).get("dead-letter-exchange")
    if moves != INTAKE_EXCHANGE:
        raise ConfigurationError(
            f"{DEAD_INTAKE} has no policy by which documents go back: run `autorenew broker setup`"
        )
    try:
        connection = Hosts(urls, name="autorenew cli").connect()
    except BrokerUnreachable as error:
        raise unusable(error) from None
    moved = 0
    try:
        channel = connection.channel()

        def left() -> int:
            return int(channel.queue_declare(DEAD_INTAKE, passive=True).method.message_count)

        there = left()
        most = there if limit is None else min(limit, there)
        while moved < most:
            tag = None
            for _ in range(min(BATCH, most - moved)):
                method, _, _ = channel.basic_get(DEAD_INTAKE)
                if method is None:
                    break
                tag = method.delivery_tag
                moved += 1
            if tag is None:
                break
            channel.basic_nack(tag, multiple=True, requeue=False)
        connection.process_data_events(0)
        remaining = left()
        connection.close()
        return moved, remaining
    except ChannelClosedByBroker as error:
        raise ConfigurationError(f"the broker refuses: {reason(error)}") from None
    except LOST as error:
        raise AutorenewError(f"the broker, after {moved} documents: {reason(error)}") from None
