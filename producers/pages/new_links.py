"""A customer whose link is too old gets a new one, by e-mail to the address that is known."""

import uuid
from datetime import datetime

from sqlalchemy import Engine, text

from producers import ledger
from producers.steps import MAIL, SEND_LINK
from schemas.values import derived_id

# One for a customer and hour; of a customer that does not exist none.
_ASK = text("""
    INSERT INTO link_emails (id, customer_id, hour, asked_at)
    SELECT :id, c.id, :hour, :now FROM customers AS c WHERE c.id = :customer
    ON CONFLICT DO NOTHING RETURNING id
""")


def ask(engine: Engine, customer: str, now: datetime) -> bool:
    """Have a new link sent, at most once for a customer and hour.

    Args:
        engine: as the role ``api``.

    Returns:
        Whether one will be sent; whoever asks must not be told.
    """
    hour = now.replace(minute=0, second=0, microsecond=0)
    parameters = {
        "id": email_id(customer, hour), "customer": customer, "hour": hour, "now": now,
    }  # fmt: skip
    with engine.begin() as tx:
        asked: uuid.UUID | None = tx.execute(_ASK, parameters).scalar()
        if asked is None:
            return False
        ledger.enqueue(tx, SEND_LINK, [(asked, MAIL)])
    return True


def email_id(customer: str, hour: datetime) -> uuid.UUID:
    """The e-mail's id, and that of its task; it becomes the Message-ID."""
    return derived_id("link e-mail", customer, hour.isoformat())
