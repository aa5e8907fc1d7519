"""Who may see what: a realm, and of it some brands or subsidiaries."""

import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from schemas.errors import AutorenewError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a reader may see. None stands for all.

    A customer without a realm, from before there were any, is seen by those who see all realms.

    Attributes:
        realm: whose customers, with all that is theirs.
        upstreams: whose orders: the upstreams of that realm.
        brands: of what is sold; what holds something of another brand as well is not seen.
        subsidiaries: where it was bought.
    """

    realm: str | None = None
    upstreams: tuple[str, ...] | None = None
    brands: tuple[str, ...] | None = None
    subsidiaries: tuple[str, ...] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """As statements take it."""
        return {
            "realm": self.realm,
            "upstreams": None if self.upstreams is None else list(self.upstreams),
            "brands": None if self.brands is None else list(self.brands),
            "subsidiaries": None if self.subsidiaries is None else list(self.subsidiaries),
        }

    @property
    def is_whole(self) -> bool:
        """It leaves nothing out."""
        return self == EVERYTHING


EVERYTHING = Scope()


class CursorInvalid(AutorenewError):
    """A cursor was not given out by the list that it is used with."""

    code = "cursor_invalid"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list.

    Attributes:
        items: fewer than asked for, where more are left, if many were looked at that do not fit.
        next: where the next part begins; None: this is the last one.
    """

    items: Sequence[T]
    next: str | None = None


def cursor_of(id: uuid.UUID) -> str:
    """Where a list goes on after this id."""
    return urlsafe_b64encode(id.bytes).decode().rstrip("=")


def after(cursor: str | None) -> uuid.UUID | None:
    """The id that a list goes on after.

    Raises:
        CursorInvalid: the text is no cursor.
    """
    if cursor is None:
        return None
    try:
        return uuid.UUID(bytes=urlsafe_b64decode(cursor + "=="))
    except ValueError:
        raise CursorInvalid("not a cursor that was given out") from None
