"""What the addresses of pages carry beside links: whose services are seen, and how a click ended.

Both are signed with the secret of the links, under salts of their own, and are good for an hour;
but no longer than the e-mail's link from which they were reached, and not beyond a change of the
customer's address.
There are no cookies: who has the address has what it allows, and who has not has nothing. So no
other site can have a browser act for its user, whatever it sends.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from itsdangerous import BadData, URLSafeSerializer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producers.intake.links import (
    COMMANDING,
    LinkInvalid,
    Origin,
    Purpose,
    read_origin,
    serializer,
    signed_origin,
)
from schemas.fields import Identifier
from schemas.messages import Moment
from schemas.settings import Settings

LIFETIME = timedelta(hours=1)
"""How long pages that were reached from a link can be used."""


class _Signed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    customer: Identifier
    until: int
    since: Moment
    end: int | None


class _Session(_Signed):
    kind: Literal["session"]


class _Ended(_Signed):
    kind: Literal["ended"]
    purpose: Purpose
    verdict: Literal["done", "already", "refused"]
    services: list[uuid.UUID] = Field(max_length=1000)
    problems: dict[str, str]


@dataclass(frozen=True, slots=True)
class Session:
    """Whose services are seen.

    Attributes:
        until: the first moment at which it is too old.
    """

    customer: str
    until: datetime
    origin: Origin

    def is_old(self, now: datetime) -> bool:
        return now >= self.until


@dataclass(frozen=True, slots=True)
class Ended:
    """How a click ended.

    Attributes:
        verdict: done; already: it was so before; refused: nothing was changed.
        problems: service, or nothing where it is about none -> a code, where it was refused.
    """

    customer: str
    purpose: Purpose
    verdict: Literal["done", "already", "refused"]
    services: tuple[uuid.UUID, ...]
    problems: Mapping[str, str]
    until: datetime
    origin: Origin

    def is_old(self, now: datetime) -> bool:
        return now >= self.until


class Tokens:
    """Signs and opens them; safe to share between threads."""

    def __init__(self, secret: str, previous: str | None = None) -> None:
        secrets = [secret] if previous is None else [previous, secret]
        self._sessions = serializer(secrets, "autorenew pages: session")
        self._endings = serializer(secrets, "autorenew pages: ended")

    @classmethod
    def of(cls, settings: Settings) -> "Tokens":
        """Those that the settings describe.

        Raises:
            ConfigurationError: a setting is missing.
        """
        previous = settings.link_secret_previous
        return cls(
            settings.need("link_secret"), None if previous is None else previous.get_secret_value()
        )

    def session(self, customer: str, origin: Origin, now: datetime) -> str:
        content = {"kind": "session", "customer": customer, **_bounds(origin, now)}
        return _text(self._sessions.dumps(content))

    def read_session(self, token: str) -> Session:
        """
        Raises:
            LinkInvalid: we have not made it.
        """
        content = _read(self._sessions, _Session, token)
        until = datetime.fromtimestamp(content.until, UTC)
        return Session(content.customer, until, read_origin(content.since, content.end))

    def ended(
        self,
        customer: str,
        purpose: Purpose,
        verdict: Literal["done", "already", "refused"],
        services: list[str],
        problems: Mapping[str, str],
        origin: Origin,
        now: datetime,
    ) -> str:
        content = {
            "kind": "ended",
            "customer": customer,
            "purpose": str(purpose),
            "verdict": verdict,
            "services": services,
            "problems": dict(problems),
            **_bounds(origin, now),
        }
        return _text(self._endings.dumps(content))

    def read_ended(self, token: str) -> Ended:
        """
        Raises:
            LinkInvalid: we have not made it.
        """
        content = _read(self._endings, _Ended, token)
        if content.purpose not in COMMANDING:
            raise _not_ours()
        return Ended(
            content.customer,
            content.purpose,
            content.verdict,
            tuple(content.services),
            content.problems,
            datetime.fromtimestamp(content.until, UTC),
            read_origin(content.since, content.end),
        )


def _bounds(origin: Origin, now: datetime) -> dict[str, Any]:
    until = origin.within(now + LIFETIME)
    return {"until": int(until.timestamp()), **signed_origin(origin)}


_Content = TypeVar("_Content", bound=_Signed)


def _read(signer: URLSafeSerializer, content: type[_Content], token: str) -> _Content:
    try:
        return content.model_validate(signer.loads(token))
    except (BadData, ValidationError, ValueError, RecursionError):
        raise _not_ours() from None


def _not_ours() -> LinkInvalid:
    return LinkInvalid("this address is not valid: it was changed or is not complete")


def _text(token: str | bytes) -> str:
    return token if isinstance(token, str) else token.decode()
