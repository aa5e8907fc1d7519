"""The port to a payment gateway: what billing asks, and what may be answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from schemas.books import BookEntry
from schemas.values import Money
from workers.outside.health import GOOD, Health


class GatewayState(StrEnum):
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    NOT_FOUND = "not_found"  # of a question: nothing under this key, so far
    UNKNOWN = "unknown"  # it may or may not have been done
    UNAVAILABLE = "unavailable"  # certainly not done


@dataclass(frozen=True, slots=True)
class Charge:
    """Money to be taken. The same key may be sent any number of times.

    Attributes:
        token: the gateway's name for the payment method.
    """

    key: str
    amount: Money
    token: str
    customer: str


@dataclass(frozen=True, slots=True)
class Refund:
    """Money to be given back, of the charge with that key."""

    key: str
    charge_key: str
    amount: Money


@dataclass(frozen=True, slots=True)
class GatewayAnswer:
    """
    Attributes:
        reference: the gateway's, of what it has done.
        reason: why not: its code, or what happened to the call.
        words: what it says to a person about it.
        retry_after: seconds for which it asks not to be called at all.
    """

    state: GatewayState
    reference: str | None = None
    reason: str | None = None
    words: str | None = None
    retry_after: float | None = None

    @property
    def is_decided(self) -> bool:
        """Whether money was taken or given back, or certainly never will be under this key."""
        return self.state in (GatewayState.SUCCEEDED, GatewayState.DECLINED)


class Gateway(Protocol):
    """See :class:`workers.outside.attempts.Port`. A new one passes ``workers.conformance``."""

    immediate: bool

    async def perform(self, operation: Charge | Refund) -> GatewayAnswer: ...

    async def ask(self, operation: Charge | Refund) -> GatewayAnswer:
        """What became of it: a success is of just this amount, in this currency."""
        ...

    async def book(self, after: str | None) -> Sequence[BookEntry]:
        """See :class:`schemas.books.MoneyBook`."""
        ...

    async def close(self) -> None: ...


def health_of(answer: GatewayAnswer) -> Health:
    """Whether a gateway works: whatever it declines, it does."""
    if answer.state in (GatewayState.UNKNOWN, GatewayState.UNAVAILABLE):
        return Health(False, said(answer) or answer.state, answer.retry_after)
    return GOOD


def said(answer: GatewayAnswer) -> str:
    """What a person reads of an answer."""
    return ": ".join(filter(None, dict.fromkeys((answer.reason, answer.words))))
