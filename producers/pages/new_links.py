"""A customer whose link is too old gets a new one, by e-mail to the address that is known."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine, text

from producers import ledger
from producers.steps import MAIL, SEND_LINK
from schemas.fields import email_address
from schemas.values import derived_id

MOST_ACCOUNTS = 20
"""Of one address that are sent a link at once."""

# Some upstreams name their customers by e-mail address: an account goes before an address.
_WHO = text("""
    SELECT c.id FROM customers AS c WHERE c.id = :account OR lower(c.email) = lower(:address)
    ORDER BY c.id <> :account, c.id LIMIT :most
""")
# One for a customer and hour.
_ASK = text("""
    INSERT INTO link_emails (id, customer_id, hour, asked_at)
    SELECT :id, c.id, :hour, :now FROM customers AS c WHERE c.id = :customer
    ON CONFLICT DO NOTHING RETURNING id
""")


def ask(engine: Engine, whom: str, now: datetime) -> int:
    """Have a new link sent, at most once for a customer and hour, to the address that is known.

    Args:
        engine: as the role ``api``.
        whom: a customer account, or an e-mail address: each account that has it gets one.

    Returns:
        How many will be sent; whoever asks must not be told.
    """
    hour = now.replace(minute=0, second=0, microsecond=0)
    who = {"account": whom, "address": _as_kept(whom), "most": MOST_ACCOUNTS}
    asked: list[uuid.UUID] = []
    with engine.begin() as tx:
        customers: Sequence[str] = tx.execute(_WHO, who).scalars().all()
        for customer in sorted(customers):
            parameters = {
                "id": email_id(customer, hour), "customer": customer, "hour": hour, "now": now,
            }  # fmt: skip
            asked += tx.execute(_ASK, parameters).scalars()
        if asked:
            ledger.enqueue(tx, SEND_LINK, [(one, MAIL) for one in asked])
    return len(asked)


def _as_kept(text: str) -> str | None:
    """An e-mail address as it is kept of customers; None: it is none."""
    try:
        return email_address(text)
    except ValueError:
        return None


def email_id(customer: str, hour: datetime) -> uuid.UUID:
    """The e-mail's id, and that of its task; it becomes the Message-ID."""
    return derived_id("link e-mail", customer, hour.isoformat())
