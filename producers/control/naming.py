"""What a person calls it, and the subjects of tasks that are meant.

The id of a subject means its own tasks. A service, an order, a customer or a domain means all that
is about it: the service, the payment requests that ask for it, the e-mails that tell of it.
"""

import uuid
from collections.abc import Callable

from sqlalchemy import Connection, text

from producers.steps import STEPS
from schemas.errors import AutorenewError


class UnknownName(AutorenewError):
    """Nothing that is known is called so, or more than one thing is."""

    code = "unknown_name"


Subjects = frozenset[uuid.UUID]

# Of a subject, as lists show it.
SHORT = 8

_IS_KNOWN = text("""
    SELECT 1 WHERE EXISTS (SELECT FROM services WHERE id = :id)
        OR EXISTS (SELECT FROM orders WHERE id = :id)
        OR EXISTS (SELECT FROM payment_requests WHERE id = :id)
        OR EXISTS (SELECT FROM emails WHERE id = :id)
        OR EXISTS (SELECT FROM link_emails WHERE id = :id)
        OR EXISTS (SELECT FROM tasks WHERE name = ANY(:steps) AND subject = :id)
""")
_SERVICE = text("SELECT id FROM services WHERE id = :id")
_ORDER = text("SELECT id FROM orders WHERE id = :id")
_BY_KEY = text("""
    SELECT id, upstream FROM orders
    WHERE key = CAST(:key AS text)
      AND (CAST(:upstream AS text) IS NULL OR upstream = :upstream)
    ORDER BY upstream
""")
_CUSTOMER = text("SELECT id FROM customers WHERE id = :id")
_BY_BEGINNING = text("""
    SELECT DISTINCT subject FROM tasks
    WHERE name = ANY(:steps) AND subject BETWEEN :first AND :last ORDER BY subject LIMIT 5
""")
# What has no task any more, such as a service that was delivered after it had failed.
_AT_REST_BY_BEGINNING = text("""
    SELECT id FROM services WHERE id BETWEEN :first AND :last
    UNION SELECT id FROM orders WHERE id BETWEEN :first AND :last
    UNION SELECT id FROM payment_requests WHERE id BETWEEN :first AND :last
    UNION SELECT id FROM emails WHERE id BETWEEN :first AND :last
    UNION SELECT id FROM link_emails WHERE id BETWEEN :first AND :last
    ORDER BY id LIMIT 5
""")
_BY_DOMAIN = text("""
    SELECT id FROM services
    WHERE lower(configuration->>'domain') = lower(:domain)
      AND configuration->>'domain' IS NOT NULL
""")

_OF_ORDERS = text("""
    SELECT id FROM orders WHERE id = ANY(:ids)
    UNION SELECT id FROM services WHERE order_id = ANY(:ids)
    UNION SELECT id FROM payment_requests WHERE order_id = ANY(:ids)
""")
_OF_SERVICES = text("""
    SELECT id FROM services WHERE id = ANY(:ids)
    UNION SELECT request_id FROM request_lines WHERE service_id = ANY(:ids)
        AND released_at IS NULL
    UNION SELECT email_id FROM notices WHERE service_id = ANY(:ids)
""")
# From the tasks there are, where nothing leads from a customer: a ledger is short, tables are long.
_OF_CUSTOMER = text("""
    SELECT id FROM services WHERE customer_id = :customer
    UNION SELECT id FROM emails WHERE customer_id = :customer
    UNION SELECT id FROM link_emails WHERE customer_id = :customer
    UNION SELECT o.id FROM tasks AS t JOIN orders AS o ON o.id = t.subject
        WHERE o.customer_id = :customer
    UNION SELECT r.id FROM tasks AS t JOIN payment_requests AS r ON r.id = t.subject
        WHERE r.customer_id = :customer
""")


def subjects_of(tx: Connection, name: str, *, upstream: str | None = None) -> Subjects:
    """The subjects whose tasks are meant by a name.

    Args:
        name: an id, or the beginning of one; ``order:KEY``, ``service:ID``,
            ``customer:ID``, ``domain:NAME``; or one of these without its kind.
        upstream: whose order keys are meant.

    Raises:
        UnknownName: there is no such thing, or it may be several.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind in _KINDS:
        found = _KINDS[kind](tx, rest, upstream)
        if found is None:
            raise UnknownName(f"there is no {kind} {rest!r}")
        return found
    number = _uuid(name)
    if number is not None:
        known_id = tx.execute(_IS_KNOWN, {"id": number, "steps": list(STEPS)}).first()
        if known_id is not None:
            return frozenset([number])
    named = {kind: find(tx, name, upstream) for kind, find in _KINDS.items() if kind != "service"}
    known = {kind: subjects for kind, subjects in named.items() if subjects is not None}
    if not known and (subject := _beginning_with(tx, name)) is not None:
        return frozenset([subject])
    if not known:
        raise UnknownName(f"nothing is known as {name!r}: no id, order key, customer or domain")
    if len(known) > 1:
        forms = " or ".join(f"{kind}:{name}" for kind in known)
        raise UnknownName(f"{name!r} may be {' or '.join(known)}: say {forms}")
    return next(iter(known.values()))


def _beginning_with(tx: Connection, name: str) -> uuid.UUID | None:
    """The subject whose id begins so; one that has a task comes before all that have none.

    Raises:
        UnknownName: there are several.
    """
    bounds = bounds_of(name)
    if bounds is None:
        return None
    parameters = {"steps": list(STEPS), "first": bounds[0], "last": bounds[1]}
    found = list(tx.execute(_BY_BEGINNING, parameters).scalars())
    if not found:
        found = list(tx.execute(_AT_REST_BY_BEGINNING, parameters).scalars())
    if len(found) > 1:
        raise UnknownName(f"several ids begin with {name}: {', '.join(map(str, found))}")
    return found[0] if found else None


def bounds_of(beginning: str) -> tuple[uuid.UUID, uuid.UUID] | None:
    """The first and the last id that begin so; None: it is no beginning of an id."""
    digits = beginning.replace("-", "").lower()
    if not SHORT <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        return None
    return uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))


def _of_order(tx: Connection, name: str, upstream: str | None) -> Subjects | None:
    number = _uuid(name)
    rows = tx.execute(_BY_KEY, {"key": name, "upstream": upstream}).all()
    if len(rows) > 1:
        of = ", ".join(row.upstream for row in rows)
        raise UnknownName(f"several upstreams use key {name!r} ({of}): name --upstream")
    ids = [row.id for row in rows] or (
        [] if number is None else list(tx.execute(_ORDER, {"id": number}).scalars())
    )
    return frozenset(tx.execute(_OF_ORDERS, {"ids": ids}).scalars()) if ids else None


def _of_service(tx: Connection, name: str, _upstream: str | None) -> Subjects | None:
    number = _uuid(name)
    if number is None or tx.execute(_SERVICE, {"id": number}).first() is None:
        return None
    return frozenset(tx.execute(_OF_SERVICES, {"ids": [number]}).scalars())


def _of_customer(tx: Connection, name: str, _upstream: str | None) -> Subjects | None:
    if tx.execute(_CUSTOMER, {"id": name}).first() is None:
        return None
    return frozenset(tx.execute(_OF_CUSTOMER, {"customer": name}).scalars())


def _of_domain(tx: Connection, name: str, _upstream: str | None) -> Subjects | None:
    if "." not in name:
        return None
    ids = list(tx.execute(_BY_DOMAIN, {"domain": name}).scalars())
    return frozenset(tx.execute(_OF_SERVICES, {"ids": ids}).scalars()) if ids else None


_KINDS: dict[str, Callable[[Connection, str, str | None], Subjects | None]] = {
    "order": _of_order,
    "service": _of_service,
    "customer": _of_customer,
    "domain": _of_domain,
}


def _uuid(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name)
    except ValueError:
        return None
