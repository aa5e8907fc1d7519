"""Kinds of notice: what a customer can be told about a renewal, and what each counts for.

A new kind is one entry here, and the sentences of its situation if it has one of its own. It ends
nothing unless it says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple


class End(StrEnum):
    """What may happen to a service only after its customer was told of it."""

    UNPAID = "unpaid"  # suspended, or terminated under a policy without grace
    SUSPENDED = "suspended"  # terminated after its suspension
    STOPPED = "stopped"  # terminated because its customer stopped it
    CONTRACT = "contract"  # terminated because its contract was not accepted


class Situation(StrEnum):
    """What a mail says about a service; the most urgent first."""

    SUSPENDED = "suspended"  # suspended, will be deleted `on`; a payment resumes it
    BEHIND = "behind"  # expired so long ago that it is not charged by itself
    DECLINED = "declined"  # a charge failed; retried `on` (None: not retried)
    METHOD = "method"  # the payment method is missing or expired, so nothing can be charged
    ACCEPT = "accept"  # ends `on` unless the customer accepts a contract
    DEARER = "dearer"  # costs more than was announced; charged `on`
    CONVERTED = "converted"  # is paid in another currency than was announced; charged `on`
    PAY = "pay"  # manual: the customer has to pay before it expires
    RENEWS = "renews"  # automatic: charged `on`, nothing to do
    STOPS = "stops"  # ends `on`, as the customer asked
    # Of an order that was paid; in e-mails of their own.
    UNDELIVERED = "undelivered"  # given up before it was delivered; its money goes back
    DELIVERED = "delivered"  # is there


# There is one of each, and comparing them by identity halves the time of deciding what is next.
@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """
    Attributes:
        counts_for: the ends that it is the notice of.
        collapses: of several that are due only the last one is said.
        situation: what an e-mail says because of it; None: what is true of the service when the
            e-mail is sent.
    """

    name: str
    counts_for: frozenset[End] = frozenset()
    collapses: bool = False
    situation: Situation | None = None


_ANY = frozenset({End.UNPAID, End.STOPPED})

BEFORE = Kind("before", _ANY, collapses=True)  # -N: N days before the expiry
CONTRACT = Kind("contract", _ANY | {End.CONTRACT})  # -V: of the version that is to be accepted
BEHIND = Kind("behind", _ANY)  # more periods are unpaid than are charged by itself
DECLINED = Kind("declined", _ANY)  # -N: of the N-th declined charge
SUSPENDED = Kind("suspended", _ANY | {End.SUSPENDED})
# -N: it was found for the N-th time to cost more than was announced. It ends nothing.
DEARER = Kind("dearer", situation=Situation.DEARER)
STOP = Kind("stop", frozenset({End.STOPPED}))

KINDS = {kind.name: kind for kind in (BEFORE, BEHIND, CONTRACT, DECLINED, SUSPENDED, DEARER, STOP)}


class Notice(NamedTuple):
    """One notice of one expiry; as text, ``before-30`` or ``stop``."""

    kind: Kind
    number: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Notice":
        """Read its text. A kind that is not known, of a later release, counts for nothing.

        >>> Notice.parse("before-30") == Notice(BEFORE, 30)
        True
        """
        return _parsed(text)

    def __str__(self) -> str:
        return self.kind.name if self.number is None else f"{self.kind.name}-{self.number}"


@lru_cache(maxsize=1024)
def _unknown(name: str) -> Kind:
    return Kind(name)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Notice:
    name, dash, digits = text.rpartition("-")
    if not dash or not digits.isdecimal():
        name, digits = text, ""
    kind = KINDS.get(name) or _unknown(name)
    return Notice(kind, int(digits) if digits else None)


def situation(notices: Iterable[Notice], by_state: Situation) -> Situation:
    """What an e-mail says about a service: what is true of it, or what a notice is there to say,
    whichever is more urgent."""
    said = [notice.kind.situation for notice in notices if notice.kind.situation is not None]
    return min([by_state, *said], key=list(Situation).index)
