"""The port to a payment gateway: what billing asks, and what may be answered."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from schemas.values import Money


class GatewayState(StrEnum):
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    NOT_FOUND = "not_found"  # of a question: nothing under this key, so far
    UNKNOWN = "unknown"  # it may or may not have been done
    UNAVAILABLE = "unavailable"  # certainly not done


@dataclass(frozen=True, slots=True)
class Charge:
    key: str
    amount: Money
    token: str
    customer: str


@dataclass(frozen=True, slots=True)
class Refund:
    key: str
    charge_key: str
    amount: Money


@dataclass(frozen=True, slots=True)
class GatewayAnswer:
    state: GatewayState
    reference: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class BookEntry:
    """Money that moved, as the gateway's own book has it.

    Attributes:
        number: grows with every entry.
        kind: ``charge`` or ``refund``.
    """

    number: int
    kind: str
    key: str
    amount: Money
    customer: str | None


class BookUnavailable(Exception):
    """The gateway's book cannot be read now; says why."""


class Gateway(Protocol):
    """Faults of calls are answers, never exceptions. Keys make every call repeatable."""

    immediate: bool
    """Answers at once in this process, without waiting for anything."""

    def charge(self, charge: Charge) -> GatewayAnswer: ...

    def find_charge(self, key: str) -> GatewayAnswer: ...

    def refund(self, refund: Refund) -> GatewayAnswer: ...

    def find_refund(self, key: str) -> GatewayAnswer: ...

    def book(self, after: int) -> list[BookEntry]:
        """A page of the gateway's book: what follows entry ``after``; empty at its end.

        Raises:
            BookUnavailable: for once a fault is an exception; nothing can be concluded from a part.
        """
        ...
