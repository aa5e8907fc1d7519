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


class Gateway(Protocol):
    """Faults of the far side are answers, never exceptions. Keys make every call repeatable."""

    immediate: bool
    """Answers at once in this process, without waiting for anything."""

    def charge(self, charge: Charge) -> GatewayAnswer: ...

    def find_charge(self, key: str) -> GatewayAnswer: ...

    def refund(self, refund: Refund) -> GatewayAnswer: ...

    def find_refund(self, key: str) -> GatewayAnswer: ...
