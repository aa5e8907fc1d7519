"""Signed links in e-mails: each stands for one of four commands, or leads to what its customer has,
and only we can make one.

A link says what it is for, and carries the command, the moment it was made and the moment until
which it can be opened. The command carries that moment too, as ``as_of``: what the customer decided
since then wins, see :mod:`producers.intake.commands`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from itsdangerous import BadData, URLSafeSerializer
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.errors import AutorenewError, ConfigurationError
from schemas.fields import Identifier
from schemas.messages import Moment, RenewCommand, ResumeCommand, StopCommand, moment_text
from schemas.secrecy import weakness
from schemas.settings import Settings
from schemas.urls import check_web

DAYS = 90
"""How long a link can be opened. The first reminder of a year comes 60 days before its end."""

# Signatures of one salt are not valid under another.
_SALT = "autorenew link 2"
_SALT_WITHOUT_PURPOSE = "autorenew link"
# Links without a purpose do not say when they were made: any decision since may be a later one.
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class LinkInvalid(AutorenewError):
    """A link was changed or truncated, is signed with another secret, or is for something else."""

    code = "link_invalid"


class LinkExpired(AutorenewError):
    """A link is too old to be opened."""

    code = "link_expired"


class Purpose(StrEnum):
    """What a link is for."""

    STOP = "stop"
    RESUME = "resume"
    RENEW = "renew"
    ACCEPT = "accept"
    """Accept contracts, and renew."""
    ACCOUNT = "account"
    """See all services; it carries no command."""


COMMANDING = tuple(purpose for purpose in Purpose if purpose is not Purpose.ACCOUNT)
"""The purposes of links that carry a command."""


_Opened = Annotated[StopCommand | ResumeCommand | RenewCommand, Field(discriminator="command")]
_OPENED: TypeAdapter[StopCommand | ResumeCommand | RenewCommand] = TypeAdapter(_Opened)


class _Content(BaseModel):
    """What is signed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    purpose: Literal["stop", "resume", "renew", "accept"]
    until: int  # seconds since 1970
    command: _Opened
    # Of one that a page has made: of the e-mail's link that led to that page.
    since: Moment | None = None
    end: int | None = None


class _Account(BaseModel):
    """What is signed where there is no command."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    purpose: Literal["account"]
    until: int
    customer: Identifier
    as_of: Moment


_SIGNED: TypeAdapter[_Content | _Account] = TypeAdapter(_Content | _Account)


@dataclass(frozen=True, slots=True)
class Origin:
    """The link of an e-mail from which pages were reached: what they lead to is worth no more.

    Attributes:
        made_at: when; a later change of the customer's address ends all that it led to.
        until: the first moment at which it is too old; None: it has no end.
    """

    made_at: datetime
    until: datetime | None

    def within(self, until: datetime) -> datetime:
        """That moment, or its own end if that comes before."""
        return until if self.until is None else min(until, self.until)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a link says that only we can have made.

    Attributes:
        command: its document, with ``as_of``; None: it leads to the customer's services.
        made_at: when; long ago, if it does not say.
        until: the first moment at which it is too old; None: it has no end.
        origin: itself; or the e-mail's link from which the page was reached that has made it.
    """

    purpose: Purpose
    customer: str
    command: dict[str, Any] | None
    made_at: datetime
    until: datetime | None
    origin: Origin

    def is_old(self, now: datetime) -> bool:
        return self.until is not None and now >= self.until


class Links:
    """Turns commands into links and back; safe to share between threads.

    A link is signed, not encrypted: anyone who has it can read the command in it.

    Args:
        base_url: where the links lead, e.g. ``https://my.example.com``.
        secret: signs them, at least 16 characters.
        previous: what signed them before; its links are still opened.
        days: how long a link can be opened, from the moment it is made.
        development: take a weak secret as well.

    Raises:
        ConfigurationError: a secret is weak, or the base is not an HTTP URL.
    """

    def __init__(
        self,
        base_url: str,
        secret: str,
        previous: str | None = None,
        *,
        days: int = DAYS,
        development: bool = False,
    ) -> None:
        secrets = [secret] if previous is None else [previous, secret]  # the last one signs
        for one in secrets if not development else ():
            if found := weakness(one):
                raise ConfigurationError(f"the secret of links {found}")
        try:
            check_web(base_url)
        except ValueError:
            raise ConfigurationError(
                f"{base_url!r} is not a base URL such as https://example.com"
            ) from None
        self._base = f"{base_url.rstrip('/')}/do/"
        self._lifetime = timedelta(days=days)
        self._serializer = serializer(secrets, _SALT)
        self._without_purpose = serializer(secrets, _SALT_WITHOUT_PURPOSE)

    @classmethod
    def of(cls, settings: Settings) -> "Links":
        """Those that the settings describe.

        Raises:
            ConfigurationError: a setting is missing or wrong.
        """
        previous = settings.link_secret_previous
        return cls(
            settings.need("link_base_url"),
            settings.need("link_secret"),
            None if previous is None else previous.get_secret_value(),
            days=settings.link_days,
            development=settings.development,
        )

    def url(
        self,
        purpose: Purpose,
        command: Mapping[str, Any],
        at: datetime,
        *,
        lifetime: timedelta | None = None,
        origin: Origin | None = None,
    ) -> str:
        """The link for a command, made from what was so at a moment.

        Args:
            command: its document, without ``as_of``.
            lifetime: how long it can be opened; None: as long as those of e-mails.
            origin: of a link that a page makes.

        Raises:
            ValueError: the command is not one that links of this purpose carry.
        """
        document = {**command, "as_of": moment_text(at)}
        if _purpose_of(_OPENED.validate_python(document)) is not purpose:
            raise ValueError(f"not what a link to {purpose} carries")
        until = at + (lifetime or self._lifetime)
        content: dict[str, Any] = {"purpose": str(purpose), "command": document}
        if origin is not None:
            until = origin.within(until)
            content |= signed_origin(origin)
        return self._signed(content | {"until": int(until.timestamp())})

    def account_url(self, customer: str, at: datetime) -> str:
        """The link to all services of a customer."""
        until = int((at + self._lifetime).timestamp())
        content = {"purpose": "account", "until": until, "customer": customer}
        return self._signed({**content, "as_of": moment_text(at)})

    def open(self, url_or_token: str, now: datetime) -> dict[str, Any]:
        """The document of the command a link stands for.

        Raises:
            LinkInvalid: it was made with another secret, or carries no command.
            LinkExpired: it was made too long ago.
        """
        opened = self.read(url_or_token)
        if opened.command is None:
            raise LinkInvalid("this link shows services; it stands for no command")
        if opened.is_old(now):
            raise LinkExpired("this link is too old: ask what the customer wants now")
        return opened.command

    def read(self, url_or_token: str) -> Opened:
        """What a link says, however old it is.

        Raises:
            LinkInvalid: it was made with another secret, changed, or is for something else.
        """
        token = url_or_token.strip().rpartition("/")[2]  # a token contains no slash
        signed = _loads(self._serializer, token)
        if signed is None:
            return self._without_a_purpose(token)
        try:
            content = _SIGNED.validate_python(signed)
            until = datetime.fromtimestamp(content.until, UTC)
            if isinstance(content, _Account):
                made_at = datetime.fromisoformat(content.as_of)
                origin = Origin(made_at, until)
                return Opened(Purpose.ACCOUNT, content.customer, None, made_at, until, origin)
            command = content.command
            if command.as_of is None or _purpose_of(command) != content.purpose:
                raise _invalid()
            made_at = datetime.fromisoformat(command.as_of)
            origin = Origin(made_at, until)
            if content.since is not None:
                origin = read_origin(content.since, content.end)
        except (ValidationError, ValueError, OverflowError, OSError):
            raise _invalid() from None
        document = command.model_dump(mode="json", exclude_defaults=True)
        purpose = Purpose(content.purpose)
        return Opened(purpose, command.customer, document, made_at, until, origin)

    def _without_a_purpose(self, token: str) -> Opened:
        """A link of the release before: the bare document, with neither a purpose nor an end.

        It counts as made long ago: it does nothing once the mode was changed.
        """
        try:
            command = _OPENED.validate_python(_loads(self._without_purpose, token))
        except ValidationError:
            raise _invalid() from None
        if command.as_of is not None:
            raise _invalid()
        document = command.model_dump(mode="json", exclude_defaults=True)
        document["as_of"] = moment_text(_LONG_AGO)
        origin = Origin(_LONG_AGO, None)
        return Opened(_purpose_of(command), command.customer, document, _LONG_AGO, None, origin)

    def _signed(self, content: dict[str, Any]) -> str:
        token = self._serializer.dumps(content)
        return self._base + (token if isinstance(token, str) else token.decode())


def _purpose_of(command: StopCommand | ResumeCommand | RenewCommand) -> Purpose:
    if isinstance(command, RenewCommand) and command.contracts:
        return Purpose.ACCEPT
    return Purpose(command.command)


def signed_origin(origin: Origin) -> dict[str, Any]:
    """An origin as it is signed, as ``since`` and ``end``."""
    end = None if origin.until is None else int(origin.until.timestamp())
    return {"since": moment_text(origin.made_at), "end": end}


def read_origin(since: str, end: int | None) -> Origin:
    """The same, read again.

    Raises:
        ValueError, OverflowError: it is none.
    """
    until = None if end is None else datetime.fromtimestamp(end, UTC)
    return Origin(datetime.fromisoformat(since), until)


def serializer(secrets: list[str], salt: str) -> URLSafeSerializer:
    """Signs with the last of the secrets, and opens what any of them signed.

    Args:
        salt: what signatures are for; those of one salt are not valid under another.
    """
    return URLSafeSerializer(
        secrets,
        salt=salt,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )


def _loads(serializer: URLSafeSerializer, token: str) -> Any:
    try:
        return serializer.loads(token)
    except (BadData, ValueError, RecursionError):
        return None


def _invalid() -> LinkInvalid:
    return LinkInvalid("this link is not valid: it was changed or is not complete")
