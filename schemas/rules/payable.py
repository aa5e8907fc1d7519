"""Whether a payment method can be charged on a day."""

import uuid
from dataclasses import dataclass
from datetime import date
from enum import StrEnum


class Obstacle(StrEnum):
    """Why a charge would be declined without asking the gateway: a stable code."""

    MISSING = "payment_method_missing"
    EXPIRED = "payment_method_expired"


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """
    Attributes:
        expires_on: the last day on which it can be charged; None: no such day is known.
    """

    id: uuid.UUID
    expires_on: date | None = None


def obstacle(method: PaymentMethod | None, on: date) -> Obstacle | None:
    """What keeps a method from being charged on a day; None: it can be charged.

    Args:
        on: the subsidiary's local date.

    >>> card = PaymentMethod(uuid.UUID(int=1), date(2026, 6, 30))
    >>> obstacle(card, date(2026, 6, 30)) is None
    True
    >>> str(obstacle(card, date(2026, 7, 1)))
    'payment_method_expired'
    """
    if method is None:
        return Obstacle.MISSING
    if method.expires_on is not None and method.expires_on < on:
        return Obstacle.EXPIRED
    return None
