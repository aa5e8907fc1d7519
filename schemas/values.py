"""Money, periods, identifiers, and the states things go through."""

import calendar
import re
import uuid
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from hashlib import sha1
from typing import NewType

from schemas.fields import CURRENCY_DIGITS

# What must never meet: the type checker tells them apart, at run time they are what they are.
CustomerId = NewType("CustomerId", str)
OrderId = NewType("OrderId", uuid.UUID)
ServiceId = NewType("ServiceId", uuid.UUID)
RequestId = NewType("RequestId", uuid.UUID)  # of a payment request
ChargeKey = NewType("ChargeKey", uuid.UUID)


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in a currency's minor unit, so that cents never meet euros.

    It has no order: two amounts can be compared only where their currency is known to be one.

    >>> str(Money(4544, "EUR"))
    '45.44 EUR'
    """

    amount: int
    currency: str

    def __post_init__(self) -> None:
        if self.currency not in CURRENCY_DIGITS:
            raise ValueError(f"unknown currency {self.currency!r}")

    @classmethod
    def parse(cls, text: str, currency: str) -> "Money":
        """Read a decimal such as ``"37.87"``; more digits than the currency has are refused."""
        digits = CURRENCY_DIGITS.get(currency)
        if digits is None:
            raise ValueError(f"unknown currency {currency!r}")
        match = re.fullmatch(r"(-?[0-9]{1,12})(?:\.([0-9]+))?", text)
        if not match:
            raise ValueError(f"{text!r} is not an amount such as 37.87")
        # Digit by digit: decimal arithmetic would round what has more digits than its context.
        fraction = (match[2] or "").rstrip("0")
        if len(fraction) > digits:
            raise ValueError(f"{text!r} has more digits than {currency}'s minor unit ({digits})")
        return cls(int(match[1] + fraction.ljust(digits, "0")), currency)

    def __add__(self, other: "Money") -> "Money":
        if other.currency != self.currency:
            raise ValueError(f"cannot add {other.currency} to {self.currency}")
        return Money(self.amount + other.amount, self.currency)

    def __str__(self) -> str:
        digits = CURRENCY_DIGITS[self.currency]
        return f"{Decimal(self.amount).scaleb(-digits):,.{digits}f} {self.currency}"


def round_half_up(value: Decimal) -> int:
    """Round to a whole minor unit, halves away from zero (EN 16931, per line)."""
    return int(value.quantize(Decimal(1), rounding=ROUND_HALF_UP))


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """How long one payment lasts: whole months. ``P1Y`` is ``P12M``."""

    months: int

    @classmethod
    def parse(cls, text: str) -> "Period":
        """Read an ISO 8601 duration of months or years, up to ten years."""
        match = re.fullmatch(r"P([1-9][0-9]{0,2})([MY])", text)
        if not match:
            raise ValueError(f"{text!r} is not a period such as P1M or P12M")
        months = int(match[1]) * (12 if match[2] == "Y" else 1)
        if months > 120:
            raise ValueError(f"{text!r} is longer than ten years")
        return cls(months)

    def end(self, anchor: date, count: int) -> date:
        """Where the ``count``-th period after ``anchor`` ends.

        Always computed from the anchor and clamped to the month's last day, so that
        31 January gives 28 February and then 31 March again.
        """
        years, month0 = divmod(anchor.month - 1 + self.months * count, 12)
        year, month = anchor.year + years, month0 + 1
        return date(year, month, min(anchor.day, calendar.monthrange(year, month)[1]))

    def __str__(self) -> str:
        return f"P{self.months}M"


NAMESPACE = uuid.UUID("6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42")
_NAMESPACE_BYTES = NAMESPACE.bytes
_EPOCH = date(1970, 1, 1)
_LAST_DAY = 2**16 - 1  # in 2149
# uuid.UUID(version=8) is known to Python from 3.14.
_DATED = 8
_WITHOUT_VERSION = ~(0xF000 << 64 | 0xC000 << 48)
_VERSION = _DATED << 76 | 0x8000 << 48


def derived_id(*facts: object, near: date | uuid.UUID | None = None) -> uuid.UUID:
    """An identifier that follows from business facts alone (RFC 9562).

    A restored database, or an order sent again, derives the same one: nothing that leaves
    the house is ever named twice, and no name is ever used for another thing.

    Args:
        near: a day, or what is named by a day. The identifiers near a day stand together in an
            index, so that what is written in bulk on one day touches few of its pages.

    Returns:
        Of version 5; near a day of version 8, which begins with the days since 1970-01-01 in two
        bytes. What is near an identifier of version 5 has no day either.
    """
    name = "\x1f".join(map(str, facts)).encode()
    # As uuid.uuid5 does, without importing hashlib anew for each: there are five an order.
    digest = sha1(_NAMESPACE_BYTES + name, usedforsecurity=False).digest()
    if isinstance(near, uuid.UUID):
        day = near.bytes[:2] if near.version == _DATED else None
    else:
        day = min(max((near - _EPOCH).days, 0), _LAST_DAY).to_bytes(2, "big") if near else None
    if day is None:
        return uuid.UUID(bytes=digest[:16], version=5)
    value = int.from_bytes(day + digest[:14], "big")
    return uuid.UUID(int=value & _WITHOUT_VERSION | _VERSION)


def without_day(named: uuid.UUID) -> uuid.UUID | str:
    """What of an identifier follows from its facts alone, whatever day it is near."""
    return named.hex[4:] if named.version == _DATED else named


class Universe(StrEnum):
    WEB = "web"
    DEDICATED = "dedicated"
    CLOUD = "cloud"
    TELECOM = "telecom"


class OrderState(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    PRICED = "priced"
    PAID = "paid"
    DELIVERED = "delivered"
    PARTLY_DELIVERED = "partly_delivered"
    CANCELLED = "cancelled"


class ServiceState(StrEnum):
    PENDING = "pending"  # ordered, not yet paid
    DELIVERING = "delivering"  # paid, not yet there
    ACTIVE = "active"
    SUSPENDED = "suspended"
    TERMINATED = "terminated"
    CANCELLED = "cancelled"  # given up before it was delivered


DELIVERED = (ServiceState.ACTIVE, ServiceState.SUSPENDED)
"""The states of a service that was delivered and has not ended."""


class ResourceState(StrEnum):
    """What should be, or what a driver last confirmed, at the infrastructure."""

    ABSENT = "absent"
    ACTIVE = "active"
    SUSPENDED = "suspended"


class RenewalMode(StrEnum):
    AUTOMATIC = "automatic"
    MANUAL = "manual"
    STOP = "stop"


class RequestState(StrEnum):
    OPEN = "open"
    PAID = "paid"
    SPLIT = "split"
    VOIDED = "voided"


class ChargeState(StrEnum):
    STARTED = "started"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    UNKNOWN = "unknown"


class OperationState(StrEnum):
    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class TaskState(StrEnum):
    READY = "ready"
    FAILED = "failed"


class BatchState(StrEnum):
    READY = "ready"
    DISPATCHED = "dispatched"
    LEASED = "leased"


class OpenCause(StrEnum):
    """Why the lane of a far side is open."""

    FAILING = "failing"  # its calls keep failing or timing out
    ASKED = "asked"  # the far side asked to be left alone (429, Retry-After)


class PauseSource(StrEnum):
    """Who paused a lane."""

    OPERATOR = "operator"
    GUARD = "guard"


class OperatorRole(StrEnum):
    """What an operator may do in the console; each may do what those before may."""

    READER = "reader"
    OPERATOR = "operator"
    ADMINISTRATOR = "administrator"

    def may(self, needed: "OperatorRole") -> bool:
        """Whether it is that role or one that may do more."""
        order = list(OperatorRole)
        return order.index(self) >= order.index(needed)


class BulkKind(StrEnum):
    """What is done to failed tasks in bulk."""

    RETRY = "retry"
    CANCEL = "cancel"
    EDIT = "edit"  # the configuration is corrected, and it is retried
    DONE = "done"  # a person did it at the infrastructure
    SETTLE = "settle"  # a person found out, or saw to it, how a payment has ended

    @property
    def is_statement(self) -> bool:
        """Nothing is tried again: a person says what was done past the fleet."""
        return self in (BulkKind.DONE, BulkKind.SETTLE)

    @property
    def tries_again(self) -> bool:
        return self in (BulkKind.RETRY, BulkKind.EDIT)


class BulkState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"  # by a person
    HALTED = "halted"  # by itself: what it retried failed again in the same way


class BulkTaskState(StrEnum):
    """What became of a task of a bulk operation."""

    WAITING = "waiting"
    SENT = "sent"  # ready again, and not tried yet
    RETRYING = "retrying"  # tried, failed, and tried again by itself later
    DONE = "done"
    FAILED = "failed"  # again
    SKIPPED = "skipped"  # not failed any more, or in another way


class EndpointState(StrEnum):
    """Of an endpoint that events are sent to over HTTPS."""

    ENABLED = "enabled"
    DISABLED = "disabled"  # by a person, or because it has failed for too long
    REMOVED = "removed"


class DeliveryOutcome(StrEnum):
    """How the delivery of an event to an endpoint ended."""

    DELIVERED = "delivered"
    DROPPED = "dropped"  # its endpoint was disabled or removed, or a person gave it up
