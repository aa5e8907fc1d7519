"""What happened, in order: to an order with its services and payments, to a service, to a customer.

Each event has how long its task had waited, and on which attempt it succeeded; its detail has the
codes and words of far sides.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from producers.views.scope import EVERYTHING, Scope

MOST = 1000
"""Events of a timeline: the newest of them."""

# Who of the house did it and why, and what holds documents against each other.
_OURS = frozenset({"by", "because", "bulk", "body", "note"})


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of a timeline.

    Attributes:
        after_seconds: since the first of its timeline.
        about: ``order``, ``payment``, or ``service LINE.UNIT`` of an order.
        waited: seconds for which its task had been ready; None: no task did it.
        attempt: on which attempt of the task it happened.
        detail: codes and words of far sides, amounts, and what else belongs to it.
    """

    at: datetime
    after_seconds: float
    about: str
    subject: uuid.UUID
    event: str
    waited: float | None
    attempt: int | None
    detail: dict[str, Any]


_OF_ORDER = text("""
    SELECT * FROM (
        SELECT e.at, e.id, e.subject, e.name, e.waited, e.attempt, e.detail,
               coalesce('service ' || s.line || '.' || s.unit, 'order') AS about
        FROM (SELECT CAST(:id AS uuid) AS id UNION ALL
              SELECT id FROM services WHERE order_id = :id UNION ALL
              SELECT id FROM payment_requests WHERE order_id = :id) AS subjects
        JOIN events AS e ON e.subject = subjects.id
        LEFT JOIN services AS s ON s.id = e.subject
        ORDER BY e.at DESC, e.id DESC LIMIT :most
    ) AS newest ORDER BY at, id
""")
_OF_SUBJECTS = text("""
    SELECT * FROM (
        SELECT e.at, e.id, e.subject, e.name, e.waited, e.attempt, e.detail, w.about
        FROM unnest(CAST(:subjects AS uuid[]), CAST(:abouts AS text[])) AS w(subject, about)
        JOIN events AS e ON e.subject = w.subject
        ORDER BY e.at DESC, e.id DESC LIMIT :most
    ) AS newest ORDER BY at, id
""")
_REQUESTS_OF_SERVICE = text("""
    SELECT DISTINCT l.request_id FROM request_lines AS l
    WHERE l.service_id = :id AND l.released_at IS NULL
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM request_lines AS b JOIN services AS s ON s.id = b.service_id
          WHERE b.request_id = l.request_id AND s.brand <> ALL(CAST(:brands AS text[]))))
    LIMIT 200
""")


def of_order(
    tx: Connection, id: uuid.UUID, *, most: int = MOST, scope: Scope | None = None
) -> list[Happening]:
    """What happened to an order, its services and its payment request.

    Args:
        scope: of who reads it; what is of the house alone is left out for a realm's.
    """
    return _told(tx.execute(_OF_ORDER, {"id": id, "most": most}).all(), scope)


def of_service(
    tx: Connection, id: uuid.UUID, *, most: int = MOST, scope: Scope | None = None
) -> list[Happening]:
    """What happened to a service, and to the payment requests that ask for it; not to those that
    ask for something of another brand as well, if the scope is narrowed to some."""
    parameters = {"id": id, "brands": (scope or EVERYTHING).parameters["brands"]}
    requests = list(tx.execute(_REQUESTS_OF_SERVICE, parameters).scalars())
    about = {id: "service", **dict.fromkeys(requests, "payment")}
    return of_subjects(tx, about, most=most, scope=scope)


def of_subjects(
    tx: Connection, about: dict[uuid.UUID, str], *, most: int = MOST, scope: Scope | None = None
) -> list[Happening]:
    """What happened to subjects.

    Args:
        about: subject -> what it is called in the timeline.
    """
    parameters = {"subjects": list(about), "abouts": list(about.values()), "most": most}
    return _told(tx.execute(_OF_SUBJECTS, parameters).all(), scope)


def _told(rows: Sequence[Any], scope: Scope | None) -> list[Happening]:
    is_ours = scope is None or scope.realm is None
    start = rows[0].at if rows else None
    return [
        Happening(
            at=row.at,
            after_seconds=round((row.at - start).total_seconds(), 3),
            about=row.about,
            subject=row.subject,
            event=row.name,
            waited=None if row.waited is None else round(max(row.waited, 0.0), 4),
            attempt=row.attempt,
            detail={
                name: value
                for name, value in (row.detail or {}).items()
                if value is not None and (is_ours or name not in _OURS)
            },
        )
        for row in rows
    ]
