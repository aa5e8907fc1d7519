"""Keys of the HTTP API: made, listed, revoked; found and checked when a request comes in.

A key is ``ark_PREFIX_SECRET``. The prefix finds it and is shown in lists; the secret has 256 random
bits, is shown once, and is kept as its SHA-256. A slow hash, as passwords need, would protect
nothing here: nobody guesses 256 random bits, and each request would pay for it.
"""

import hashlib
import hmac
import secrets
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from producers import history
from producers.api.buckets import Buckets
from producers.history import Event
from producers.intake.realms import Realms
from producers.views.scope import Scope
from schemas.errors import AutorenewError
from schemas.fields import is_identifier


class KeyScope(StrEnum):
    """What a key may be used for."""

    ORDERS_WRITE = "orders:write"
    ORDERS_READ = "orders:read"
    CUSTOMERS_WRITE = "customers:write"
    CUSTOMERS_READ = "customers:read"
    SERVICES_WRITE = "services:write"
    SERVICES_READ = "services:read"
    INVOICES_READ = "invoices:read"
    CATALOGUE_READ = "catalogue:read"
    FORECAST_READ = "forecast:read"
    OPS_READ = "ops:read"
    OPS_WRITE = "ops:write"


# A newer release may have more.
_KNOWN = frozenset(scope.value for scope in KeyScope)
WHOLE_FLEET = frozenset({KeyScope.FORECAST_READ, KeyScope.OPS_READ, KeyScope.OPS_WRITE})
"""What is about all realms together: no key of one realm has these."""
OF_AN_UPSTREAM = frozenset({KeyScope.ORDERS_WRITE})
"""What is done as an upstream: no key of all realms has these."""

PREFIX = "ark"
DEFAULT_PER_SECOND = 100
SECRET_BYTES = 32


class KeyInvalid(AutorenewError):
    """A key cannot be made so, or there is none of that name."""

    code = "key_invalid"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept; of its secret there is only the hash.

    Attributes:
        upstream: whose orders it places and whose realm it sees; None: all realms, an operator's.
        brands, subsidiaries: what it is narrowed to; None: it is not.
        per_second: requests, and orders of batches, that a group of processes answers in a second.
    """

    id: uuid.UUID
    name: str
    prefix: str
    hash: bytes
    upstream: str | None
    scopes: frozenset[KeyScope]
    brands: tuple[str, ...] | None
    subsidiaries: tuple[str, ...] | None
    per_second: int
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def scope(self, realms: Realms) -> Scope:
        """What it sees."""
        if self.upstream is None:
            return Scope(brands=self.brands, subsidiaries=self.subsidiaries)
        realm = realms.of(self.upstream, "api")
        assert realm is not None
        upstreams = realms.upstreams_of(realm)
        return Scope(realm, upstreams, self.brands, self.subsidiaries)


_COLUMNS = (
    "id, name, prefix, hash, upstream, scopes, brands, subsidiaries, per_second, created_at,"
    " created_by, expires_at, revoked_at, last_used_at"
)
_INSERT = text(f"""
    INSERT INTO api_keys (name, prefix, hash, upstream, scopes, brands, subsidiaries, per_second,
        created_by, expires_at)
    VALUES (:name, :prefix, :hash, :upstream, :scopes, :brands, :subsidiaries, :per_second, :by,
        :expires_at)
    RETURNING {_COLUMNS}
""")
_LIST = text("""
    SELECT id, name, prefix, ''::bytea AS hash, upstream, scopes, brands, subsidiaries, per_second,
        created_at, created_by, expires_at, revoked_at, last_used_at
    FROM api_keys ORDER BY created_at, name LIMIT 10000
""")
_BY_PREFIX = text(f"SELECT {_COLUMNS} FROM api_keys WHERE prefix = :prefix")
_REVOKE = text("""
    UPDATE api_keys SET revoked_at = clock_timestamp()
    WHERE (name = :name OR prefix = :name) AND revoked_at IS NULL RETURNING id, name
""")
_IS_KNOWN = text("SELECT 1 FROM api_keys WHERE name = :name OR prefix = :name")
_USED = text("""
    UPDATE api_keys SET last_used_at = clock_timestamp()
    WHERE id = ANY(:ids)
      AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '50 seconds')
""")


def create(
    tx: Connection,
    name: str,
    scopes: Collection[KeyScope],
    *,
    upstream: str | None,
    brands: Sequence[str] | None = None,
    subsidiaries: Sequence[str] | None = None,
    per_second: int = DEFAULT_PER_SECOND,
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """Make a key, on behalf of the operator who acts.

    Returns:
        The key, and its whole text, which is kept nowhere.

    Raises:
        KeyInvalid: the name is taken or cannot be kept; or a scope does not go with its realm.
    """
    if not is_identifier(name):
        raise KeyInvalid("a name has 1 to 100 printable characters")
    if not scopes:
        raise KeyInvalid("name at least one scope")
    wrong = sorted(WHOLE_FLEET & set(scopes)) if upstream is not None else []
    if wrong:
        raise KeyInvalid(f"{', '.join(wrong)}: about all realms; not for a key of one")
    if upstream is None and (lacking := sorted(OF_AN_UPSTREAM & set(scopes))):
        raise KeyInvalid(f"{', '.join(lacking)}: name the realm or the upstream it is for")
    if (brands or subsidiaries) and WHOLE_FLEET & set(scopes):
        raise KeyInvalid("what is about the whole fleet cannot be narrowed")
    if upstream is not None and not is_identifier(upstream):
        raise KeyInvalid("an upstream has 1 to 100 printable characters")
    prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
    who = history.operator()
    try:
        row = tx.execute(
            _INSERT,
            {
                "name": name,
                "prefix": prefix,
                "hash": _hash(secret),
                "upstream": upstream,
                "scopes": sorted(scopes),
                "brands": list(brands) if brands else None,
                "subsidiaries": list(subsidiaries) if subsidiaries else None,
                "per_second": per_second,
                "by": who.by if who is not None else "",
                "expires_at": expires_at,
            },
        ).one()
    except IntegrityError:
        raise KeyInvalid(f"there is a key named {name!r} already") from None
    detail = {"key": name, "upstream": upstream, "scopes": sorted(scopes)}
    history.record(tx, [Event(row.id, "key.created", detail)])
    return _key(row), f"{PREFIX}_{prefix}_{secret}"


def list_keys(tx: Connection) -> list[Key]:
    """All keys, the oldest first; without their hashes."""
    return [_key(row) for row in tx.execute(_LIST)]


def revoke(tx: Connection, name: str) -> bool:
    """Take no more requests with the key of this name or prefix.

    Returns:
        False: it was revoked already.

    Raises:
        KeyInvalid: there is none.
    """
    if tx.execute(_IS_KNOWN, {"name": name}).first() is None:
        raise KeyInvalid(f"there is no key {name!r}; see `autorenew keys list`")
    revoked = tx.execute(_REVOKE, {"name": name}).all()
    history.record(tx, (Event(row.id, "key.revoked", {"key": row.name}) for row in revoked))
    return bool(revoked)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _key(row: Any) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        hash=bytes(row.hash),
        upstream=row.upstream,
        scopes=frozenset(KeyScope(scope) for scope in row.scopes if scope in _KNOWN),
        brands=None if row.brands is None else tuple(row.brands),
        subsidiaries=None if row.subsidiaries is None else tuple(row.subsidiaries),
        per_second=row.per_second,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


# How long a key is known for without a look: a revoked one works for so long, at most.
HELD_SECONDS = 2.0
# Prefixes that are remembered, known ones and others: what is guessed costs no memory.
MOST_HELD = 10_000
NOTE_SECONDS = 60.0
_NOBODY = b"\0" * 32


class KeyRing:
    """Finds keys, remembers them for a moment, limits them, and notes when they are used.

    For all threads. ``find`` asks the database; ``held`` never does.

    Args:
        buckets: shared with the other processes of a group; None: those of this one alone.
    """

    def __init__(self, engine: Engine, buckets: Buckets | None = None) -> None:
        self._engine = engine
        self._buckets = buckets or Buckets()
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[float, Key | None]] = OrderedDict()
        self._used: set[uuid.UUID] = set()
        self._note_at = time.monotonic() + NOTE_SECONDS

    def held(self, given: str) -> tuple[bool, Key | None]:
        """Whether it is known without a look, and then the key if it is valid now."""
        parts = _parts(given)
        if parts is None:
            return True, None
        entry = self._held.get(parts[0])
        if entry is None or entry[0] < time.monotonic():
            return False, None
        return True, self._check(entry[1], parts[1])

    def find(self, given: str) -> Key | None:
        """The key, if it is valid now.

        Raises:
            SQLAlchemyError: the database cannot be asked.
        """
        parts = _parts(given)
        if parts is None:
            return None
        with self._engine.begin() as tx:
            row = tx.execute(_BY_PREFIX, {"prefix": parts[0]}).first()
        key = None if row is None else _key(row)
        with self._lock:
            self._held[parts[0]] = (time.monotonic() + HELD_SECONDS, key)
            self._held.move_to_end(parts[0])
            while len(self._held) > MOST_HELD:
                self._held.popitem(last=False)
        return self._check(key, parts[1])

    @staticmethod
    def _check(key: Key | None, secret: str) -> Key | None:
        """As long for a prefix that nobody has as for one that somebody has."""
        fits = hmac.compare_digest(_hash(secret), _NOBODY if key is None else key.hash)
        if key is None or not fits or key.revoked_at is not None:
            return None
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            return None
        return key

    def wait(self, key: Key, cost: int = 1) -> float:
        """Take from what a key may ask for in a second.

        Args:
            cost: 1, or how many orders a batch has: a batch is taken whole, and then waited for.

        Returns:
            0: go on; else after how many seconds to come again.
        """
        seconds = self._buckets.take(key.id, key.per_second, cost)
        if not seconds:
            with self._lock:
                self._used.add(key.id)
        return seconds

    def is_to_note(self) -> bool:
        return bool(self._used) and time.monotonic() >= self._note_at

    def note(self) -> None:
        """Write which keys were used since the last time; does so once a minute at most."""
        with self._lock:
            used, self._used = self._used, set()
            self._note_at = time.monotonic() + NOTE_SECONDS
        if used:
            with self._engine.begin() as tx:
                tx.execute(_USED, {"ids": sorted(used)})


def _parts(given: str) -> tuple[str, str] | None:
    """The prefix and the secret in a key's text."""
    kind, _, rest = given.partition("_")
    prefix, _, secret = rest.partition("_")
    if kind != PREFIX or not 0 < len(prefix) <= 32 or not 0 < len(secret) <= 200:
        return None
    return (prefix, secret) if given.isascii() else None
