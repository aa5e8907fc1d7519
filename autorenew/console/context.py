"""What every page needs: the databases, the clock, and who looks at it."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from urllib.parse import urlencode

from sqlalchemy import Connection, Engine

from autorenew.console.sessions import Limits, Session
from autorenew.console.today import (
    READ_SECONDS,
    Audit,
    Kept,
    Today,
    audit,
    today,
    workers,
)
from producers.web.addresses import Network
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.database import limit
from schemas.errors import AutorenewError
from schemas.settings import Settings


class BadInput(AutorenewError):
    """What was typed in cannot be used."""

    code = "bad_input"


@dataclass(frozen=True, slots=True)
class Console:
    """
    Attributes:
        engine: as the role ``console``: what operators do, and what they have to see as it is now.
        reader: as the role ``readonly``; may be a standby, and a little behind.
        secure: browsers reach it by HTTPS: their cookies are sent by nothing else.
        proxies: networks of our own reverse proxies, whose ``X-Forwarded-For`` is believed.
    """

    engine: Engine
    reader: Engine
    catalogue: CatalogueCache
    clock: Clock
    settings: Settings
    limits: Limits
    secure: bool
    proxies: Sequence[Network] = ()
    today: Kept[Today] = field(default_factory=lambda: Kept(today, 20.0))
    workers: Kept[dict[str, int]] = field(default_factory=lambda: Kept(workers, 5.0))
    audit: Kept[Audit] = field(default_factory=lambda: Kept(audit, 20.0))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """For what a page shows; the role reads for hours if it may, and nobody waits that long."""
        with self.reader.begin() as tx:
            limit(tx, READ_SECONDS)
            yield tx


@dataclass(frozen=True, slots=True)
class Values:
    """Fields of a query or of a form: name -> what was given, in order."""

    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def get(self, name: str) -> str | None:
        """The field, without blanks at its ends; None: it is missing, or says nothing."""
        said = (self.fields.get(name) or [""])[-1].strip()
        return said or None

    def need(self, name: str, what: str) -> str:
        """
        Raises:
            BadInput: it is missing.
        """
        said = self.get(name)
        if said is None:
            raise BadInput(f"{what} is missing")
        return said

    def all(self, name: str) -> list[str]:
        return [said for said in self.fields.get(name, ()) if said]

    def number(self, name: str, default: int, *, most: int = 1_000_000) -> int:
        """
        Raises:
            BadInput: it is no number from 1 to ``most``.
        """
        said = self.get(name)
        if said is None:
            return default
        digits = said.isascii() and said.isdigit() and len(said) <= 20
        if not (digits and 1 <= int(said) <= most):
            raise BadInput(f"{name}: {said!r} is not a number from 1 to {most:,}")
        return int(said)

    def query(self, *without: str, **changed: str | None) -> str:
        """As the query of a URL, with some fields left out or changed."""
        kept = [
            (name, value)
            for name, values in self.fields.items()
            if name not in without and name not in changed
            for value in values
            if value
        ]
        kept += [(name, value) for name, value in changed.items() if value is not None]
        return urlencode(kept)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request: what is asked for, and by whom.

    Attributes:
        path: parameters of its path.
        session: None: nobody has signed in.
        is_refresh: a page that refreshes itself asks.
        token: what the cookie of the session holds; empty: it has none.
        pre_token: what the cookie of the form for signing in holds.
        url: path and query, to come back to.
    """

    console: Console
    method: str
    url: str
    address: str
    query: Values
    form: Values
    path: Mapping[str, str]
    session: Session | None
    is_refresh: bool
    token: str
    pre_token: str
    cookies: Mapping[str, str]
    base_url: str
    origin: str | None
    fetch_site: str | None
    host: str

    @property
    def who(self) -> str:
        assert self.session is not None
        return self.session.operator

    @property
    def now(self) -> datetime:
        """The fleet's time."""
        return self.console.clock.now()


def check_characters(value: str) -> str:
    """
    Raises:
        BadInput: it has characters that the database cannot keep, or no one sees.
    """
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\r\t" for c in value):
        raise BadInput("what was entered has characters that cannot be kept")
    return value


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
