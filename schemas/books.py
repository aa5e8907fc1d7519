"""What the far sides' own books say, in the words that audit and reconciliation compare them by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from schemas.values import Money, ResourceState


@dataclass(frozen=True, slots=True)
class BookEntry:
    """Money that moved, as a gateway's book has it.

    Attributes:
        cursor: where the book goes on after this entry; what it looks like is the gateway's affair.
        kind: ``charge`` or ``refund``.
    """

    cursor: str
    kind: str
    key: str
    amount: Money
    customer: str | None = None


@dataclass(frozen=True, slots=True)
class ResourceEntry:
    """Something that exists at an infrastructure.

    Attributes:
        cursor: where the list goes on after this entry.
        service_id: the service it is known there to be; None: it is known by its own name only.
        paid_until: the day it lasts until there; None: the far side does not say.
    """

    cursor: str
    resource_id: str
    service_id: str | None
    state: ResourceState
    paid_until: date | None = None


class BookUnavailable(Exception):
    """A book cannot be read now; says why. Nothing can be concluded from a part of one."""


class MoneyBook(Protocol):
    """Of a gateway."""

    async def book(self, after: str | None) -> Sequence[BookEntry]:
        """A page: what follows the entry with that cursor (None: from the start); empty at the end.

        Raises:
            BookUnavailable: it cannot be read.
        """
        ...


class ResourceBook(Protocol):
    """Of a driver."""

    async def resources(self, after: str | None) -> Sequence[ResourceEntry]:
        """A page of what exists, as :meth:`MoneyBook.book` gives them."""
        ...


class FarSides(Protocol):
    """All books of the far sides that are configured, whole."""

    def money(self) -> Mapping[str, Sequence[BookEntry]]:
        """Gateway -> its book; raises BookUnavailable."""
        ...

    def resources(self) -> Mapping[str, Sequence[ResourceEntry]]:
        """Driver -> what exists there; raises BookUnavailable."""
        ...
