"""Who may use the console: operators, their roles and their passwords (argon2id)."""

import hashlib
import secrets
import threading
import unicodedata
from dataclasses import dataclass
from datetime import datetime

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import Connection, Engine, text

from producers import history
from producers.history import Event
from schemas.errors import AutorenewError
from schemas.values import OperatorRole, derived_id

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 1000
LONGEST_NAME = 100
ONE_TIME_SECONDS = 15 * 60.0
"""How long a link that signs in once may be opened."""

# RFC 9106, second recommended option: 64 MiB, three passes. About 60 ms.
_HASHER = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1)
# So many at once: whoever tries passwords takes no more of the machine than this.
_AT_ONCE = threading.BoundedSemaphore(2)
_QUEUE_SECONDS = 5.0
# And so many wait for it: each keeps a thread, of which pages need some, too.
_WAITING = threading.BoundedSemaphore(8)
# The password of an unknown operator is compared with this hash, so that the answer takes as long.
_NOBODY = _HASHER.hash(secrets.token_urlsafe(16))


class WrongOperator(AutorenewError):
    """A name, role or password cannot be taken, or there is no such operator."""

    code = "wrong_operator"


class Busy(AutorenewError):
    """Passwords take the machine's time, and more of it is not given."""

    code = "busy"


@dataclass(frozen=True, slots=True)
class Account:
    """An operator.

    Attributes:
        issuer: who vouches for them instead of a password: the issuer of OpenID Connect.
        signed_in_at: when last; None: never.
    """

    name: str
    role: OperatorRole
    has_password: bool
    issuer: str | None
    created_at: datetime
    signed_in_at: datetime | None
    sessions: int = 0


def check_name(name: str) -> str:
    """
    Raises:
        WrongOperator: it is empty, too long, has characters that no one sees, or is the guard's.
    """
    said = unicodedata.normalize("NFC", name).strip()
    if not said or len(said) > LONGEST_NAME:
        raise WrongOperator(f"a name has 1 to {LONGEST_NAME} characters")
    if not said.isprintable():
        raise WrongOperator(f"the name {said!a} has characters that cannot be shown")
    if said.casefold() == "guard":
        raise WrongOperator("the guard is no person")
    return said


def check_password(password: str, name: str = "") -> str:
    """
    Raises:
        WrongOperator: it is too short or too long, or says the name.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise WrongOperator(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    if len(set(password)) < 5 or (name and password.casefold() == name.casefold()):
        raise WrongOperator("that password is too easy to guess")
    return password


def subject_of(name: str) -> object:
    """What the history of an operator is kept under."""
    return derived_id("operator", name)


def _record(tx: Connection, name: str, happened: str, **detail: object) -> None:
    id_ = derived_id("operator", name)
    history.record(tx, [Event(id_, happened, {"operator": name, **detail})])


_ADD = text("""
    INSERT INTO operators (name, role, password_hash, issuer)
    VALUES (:name, :role, :password_hash, :issuer) ON CONFLICT DO NOTHING RETURNING name
""")
_LIST = text("""
    SELECT o.name, o.role, o.password_hash IS NOT NULL AS has_password, o.issuer, o.created_at,
        o.signed_in_at, (SELECT count(*) FROM console_sessions AS s WHERE s.operator = o.name)
        AS sessions
    FROM operators AS o WHERE CAST(:name AS text) IS NULL OR o.name = :name ORDER BY o.name
""")
_REMOVE = text("DELETE FROM operators WHERE name = :name RETURNING name")
_SET_ROLE = text("""
    UPDATE operators SET role = :role, changed_at = now() WHERE name = :name RETURNING name
""")
_SET_PASSWORD = text("""
    UPDATE operators SET password_hash = :password_hash, changed_at = now()
    WHERE name = :name AND issuer IS NULL RETURNING name
""")
_END_SESSIONS = text("DELETE FROM console_sessions WHERE operator = :name")
_END_LINKS = text("DELETE FROM one_time_logins WHERE operator = :name")
_PASSWORD = text("SELECT password_hash FROM operators WHERE name = :name")
_REHASH = text("UPDATE operators SET password_hash = :password_hash WHERE name = :name")
_LINK = text("""
    INSERT INTO one_time_logins (token_hash, operator, expires_at)
    VALUES (:token_hash, :name, clock_timestamp() + make_interval(secs => :seconds))
""")
_USE_LINK = text("""
    DELETE FROM one_time_logins WHERE token_hash = :token_hash
    RETURNING operator, expires_at > clock_timestamp() AS is_valid
""")
_FORGET_LINKS = text("DELETE FROM one_time_logins WHERE expires_at < clock_timestamp()")


def add(
    tx: Connection,
    name: str,
    role: OperatorRole,
    password: str | None = None,
    *,
    issuer: str | None = None,
) -> Account:
    """Add an operator.

    Args:
        password: None: only a link that signs in once, or the issuer, opens it.

    Raises:
        WrongOperator: there is one of that name, or name or password cannot be taken.
    """
    name = check_name(name)
    hashed = None if password is None else _HASHER.hash(check_password(password, name))
    parameters = {"name": name, "role": role, "password_hash": hashed, "issuer": issuer}
    if tx.execute(_ADD, parameters).first() is None:
        raise WrongOperator(f"there is an operator {name!r} already")
    _record(tx, name, "operator.added", role=role)
    return get(tx, name)


def get(tx: Connection, name: str) -> Account:
    """
    Raises:
        WrongOperator: there is none.
    """
    found = accounts(tx, name)
    if not found:
        raise WrongOperator(f"there is no operator {name!r}; see `autorenew operators list`")
    return found[0]


def accounts(tx: Connection, name: str | None = None) -> list[Account]:
    """All operators, or the one of that name."""
    return [
        Account(r.name, OperatorRole(r.role), *r[2:]) for r in tx.execute(_LIST, {"name": name})
    ]


def remove(tx: Connection, name: str) -> None:
    """Remove an operator; all their sessions end.

    Raises:
        WrongOperator: there is none.
    """
    if tx.execute(_REMOVE, {"name": name}).first() is None:
        raise WrongOperator(f"there is no operator {name!r}; see `autorenew operators list`")
    _record(tx, name, "operator.removed")


def set_role(tx: Connection, name: str, role: OperatorRole) -> None:
    """Change what they may do; all their sessions end.

    Raises:
        WrongOperator: there is none.
    """
    if tx.execute(_SET_ROLE, {"name": name, "role": role}).first() is None:
        raise WrongOperator(f"there is no operator {name!r}; see `autorenew operators list`")
    end_sessions(tx, name)
    _record(tx, name, "operator.changed", role=role)


def set_password(tx: Connection, name: str, password: str) -> None:
    """Give them another password; all their sessions end.

    Raises:
        WrongOperator: there is none, they sign in elsewhere, or it cannot be taken.
    """
    hashed = _HASHER.hash(check_password(password, name))
    if tx.execute(_SET_PASSWORD, {"name": name, "password_hash": hashed}).first() is None:
        raise WrongOperator(f"there is no operator {name!r} who signs in with a password")
    end_sessions(tx, name)
    _record(tx, name, "operator.changed", password="changed")


def end_sessions(tx: Connection, name: str) -> None:
    """End all sessions of an operator, and the links that would open one."""
    tx.execute(_END_SESSIONS, {"name": name})
    tx.execute(_END_LINKS, {"name": name})


def is_password(engine: Engine, name: str, password: str) -> bool:
    """Whether an operator of that name has that password. Takes as long if there is none.

    No connection is held meanwhile.

    Raises:
        Busy: too many try at once.
    """
    with engine.begin() as tx:
        stored = tx.execute(_PASSWORD, {"name": name}).scalar()
    if not _WAITING.acquire(blocking=False):
        raise _busy()
    try:
        has_turn = _AT_ONCE.acquire(timeout=_QUEUE_SECONDS)
    finally:
        _WAITING.release()
    if not has_turn:
        raise _busy()
    try:
        matches = _HASHER.verify(stored or _NOBODY, password[:LONGEST_PASSWORD])
    except (Argon2Error, InvalidHashError):
        return False
    finally:
        _AT_ONCE.release()
    if stored is None or not matches:
        return False
    if _HASHER.check_needs_rehash(stored):
        with engine.begin() as tx:
            tx.execute(_REHASH, {"name": name, "password_hash": _HASHER.hash(password)})
    return True


def _busy() -> Busy:
    return Busy("too many try to sign in at once: try again in a moment")


def make_link(tx: Connection, name: str, *, seconds: float = ONE_TIME_SECONDS) -> str:
    """A token that signs an operator in once."""
    token = secrets.token_urlsafe(32)
    tx.execute(_FORGET_LINKS)
    tx.execute(_LINK, {"token_hash": hash_of(token), "name": name, "seconds": seconds})
    return token


def use_link(tx: Connection, token: str) -> str | None:
    """Whom a token signs in; None: nobody, it was used or is too old."""
    row = tx.execute(_USE_LINK, {"token_hash": hash_of(token)}).first()
    return row.operator if row is not None and row.is_valid else None


def hash_of(token: str) -> bytes:
    """What is stored of a token: it is random, so that no slow hash is needed."""
    return hashlib.sha256(token.encode()).digest()
