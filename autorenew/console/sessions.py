"""Sessions in the database: a browser holds a token, the database its hash.

And how often a name or an address may try a password.
"""

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, text

from autorenew.console.accounts import hash_of
from producers import history
from producers.history import Event
from schemas.values import OperatorRole, derived_id

# After so many failures whoever tries waits, and twice as long after each further one. What an
# address did with a name is counted more strictly than what it did with all names, and than what
# all addresses did with one name: nobody locks somebody else out with a few wrong passwords.
FREE_FAILURES = 5
FREE_FAILURES_OF_ADDRESS = 30
FREE_FAILURES_OF_NAME = 100
FIRST_WAIT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 900.0
_FORGOTTEN_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Session:
    """Who has signed in.

    Attributes:
        csrf: what every form of this session carries; follows from its token alone.
    """

    operator: str
    role: OperatorRole
    csrf: str


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Attributes:
        idle_seconds: a session that is not used for so long ends.
        whole_seconds: a session ends after so long.
    """

    idle_seconds: float
    whole_seconds: float


_BEGIN = text("INSERT INTO console_sessions (token_hash, operator) VALUES (:token_hash, :name)")
_SIGNED_IN = text("UPDATE operators SET signed_in_at = now() WHERE name = :name")
_FIND = text("""
    SELECT o.name, o.role, clock_timestamp() - s.seen_at > interval '30 s' AS is_stale
    FROM console_sessions AS s JOIN operators AS o ON o.name = s.operator
    WHERE s.token_hash = :token_hash
      AND s.seen_at > clock_timestamp() - make_interval(secs => :idle)
      AND s.begun_at > clock_timestamp() - make_interval(secs => :whole)
""")
_TOUCH = text("UPDATE console_sessions SET seen_at = now() WHERE token_hash = :token_hash")
_END = text("DELETE FROM console_sessions WHERE token_hash = :token_hash RETURNING operator")
_FORGET = text("""
    DELETE FROM console_sessions WHERE seen_at < clock_timestamp() - make_interval(secs => :idle)
        OR begun_at < clock_timestamp() - make_interval(secs => :whole)
""")


def begin(tx: Connection, name: str, limits: Limits, *, how: str) -> str:
    """Begin a session, always with a token of its own, and return that.

    Args:
        how: they signed in: ``password``, ``link`` or ``openid``; kept in the history.
    """
    token = secrets.token_urlsafe(32)
    tx.execute(_FORGET, {"idle": limits.idle_seconds, "whole": limits.whole_seconds})
    tx.execute(_BEGIN, {"token_hash": hash_of(token), "name": name})
    tx.execute(_SIGNED_IN, {"name": name})
    detail = {"operator": name, "by": name, "how": how}
    history.record(tx, [Event(derived_id("operator", name), "operator.signed_in", detail)])
    return token


def find(tx: Connection, token: str, limits: Limits, *, touch: bool) -> Session | None:
    """The session of a token; None: there is none, or it has ended.

    Args:
        touch: this is a person's doing, and not a page that refreshes itself.
    """
    parameters = {
        "token_hash": hash_of(token), "idle": limits.idle_seconds, "whole": limits.whole_seconds,
    }  # fmt: skip
    row = tx.execute(_FIND, parameters).first()
    if row is None:
        return None
    if touch and row.is_stale:
        tx.execute(_TOUCH, {"token_hash": hash_of(token)})
    return Session(row.name, OperatorRole(row.role), csrf_of(token))


def end(tx: Connection, token: str) -> None:
    """End a session, if there is one."""
    name = tx.execute(_END, {"token_hash": hash_of(token)}).scalar()
    if name is not None:
        detail = {"operator": name, "by": name}
        history.record(tx, [Event(derived_id("operator", name), "operator.signed_out", detail)])


def csrf_of(token: str) -> str:
    """What the forms carry of whoever has this token: nobody else can tell."""
    return hmac.new(token.encode(), b"csrf", sha256).hexdigest()


def is_csrf(token: str, said: str) -> bool:
    return hmac.compare_digest(csrf_of(token).encode(), said.encode())


# Counted before the password is looked at: any number that come at once are counted one by one.
_FAIL = text("""
    INSERT INTO sign_in_failures AS f (who) VALUES (:who)
    ON CONFLICT (who) DO UPDATE SET
        failures = CASE WHEN f.last_at < clock_timestamp() - make_interval(secs => :forgotten)
            THEN 1 ELSE least(f.failures + 1, 1000000) END,
        last_at = clock_timestamp()
""")
_WAIT = text("""
    SELECT greatest(coalesce(max(extract(epoch FROM last_at + make_interval(secs =>
        least(:longest, :first * 2 ^ least(failures - free, 30))) - clock_timestamp())), 0), 0)
        ::float8
    FROM sign_in_failures JOIN unnest(CAST(:whos AS text[]), CAST(:free AS integer[]))
        AS w(name, free) ON w.name = who
    WHERE failures >= free
""")
_SUCCEED = text("DELETE FROM sign_in_failures WHERE who = :who")
_UNCOUNT = text("""
    UPDATE sign_in_failures SET failures = failures - 1 WHERE who = :who AND failures > 0
""")
_FORGET_FAILURES = text("""
    DELETE FROM sign_in_failures
    WHERE last_at < clock_timestamp() - make_interval(secs => :forgotten)
""")


def _counted(name: str, address: str) -> dict[str, int]:
    """What is counted of an attempt -> how many failures of it are free."""
    return {
        f"{address} as {name}": FREE_FAILURES,
        f"address {address}": FREE_FAILURES_OF_ADDRESS,
        f"name {name}": FREE_FAILURES_OF_NAME,
    }


def seconds_to_wait(tx: Connection, name: str, address: str) -> float:
    """How long that address has to wait before it may try that name again; 0: it may."""
    counted = _counted(name, address)
    parameters = {
        "whos": list(counted), "free": list(counted.values()), "first": FIRST_WAIT_SECONDS,
        "longest": LONGEST_WAIT_SECONDS,
    }  # fmt: skip
    return float(tx.execute(_WAIT, parameters).scalar_one())


def count_attempt(tx: Connection, name: str, address: str) -> None:
    """An attempt counts as failed until :func:`succeeded` says otherwise."""
    tx.execute(_FORGET_FAILURES, {"forgotten": _FORGOTTEN_SECONDS})
    for who in sorted(_counted(name, address)):
        tx.execute(_FAIL, {"who": who, "forgotten": _FORGOTTEN_SECONDS})


def succeeded(tx: Connection, name: str, address: str) -> None:
    """The right password was given: this attempt does not count. Others that failed still do, or
    who has one account would try those of others with a clean record."""
    own, *others = _counted(name, address)
    tx.execute(_SUCCEED, {"who": own})
    for who in sorted(others):  # in the order in which they were counted
        tx.execute(_UNCOUNT, {"who": who})
