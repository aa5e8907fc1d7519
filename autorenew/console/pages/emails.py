"""E-mails as they were sent: their text is kept, with the links that act taken out."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text
from starlette.responses import Response

from autorenew.console.context import BadInput, Visit
from autorenew.console.rendering import page

MOST = 50


@dataclass(frozen=True, slots=True)
class SentEmail:
    """An e-mail to a customer, and when it went.

    Attributes:
        kinds: the notices in it; ``order``: it tells what became of one.
        has_text: what it said is kept.
    """

    id: uuid.UUID
    kinds: tuple[str, ...]
    sent_at: datetime | None
    refused_at: datetime | None
    given_up_at: datetime | None
    has_text: bool


_OF_SERVICE = text("""
    SELECT e.id, array_agg(DISTINCT n.kind) AS kinds, e.sent_at, e.refused_at, e.given_up_at,
        EXISTS (SELECT FROM email_texts AS t WHERE t.email_id = e.id) AS has_text
    FROM notices AS n JOIN emails AS e ON e.id = n.email_id
    WHERE n.service_id = :id GROUP BY e.id ORDER BY e.created_at DESC LIMIT :most
""")
_OF_ORDER = text("""
    SELECT e.id, ARRAY['order'] AS kinds, e.sent_at, e.refused_at, e.given_up_at,
        EXISTS (SELECT FROM email_texts AS t WHERE t.email_id = e.id) AS has_text
    FROM order_emails AS e WHERE e.order_id = :id ORDER BY e.number DESC LIMIT :most
""")
_TEXT = text("""
    SELECT email_id, recipient, subject, body, sent_at FROM email_texts
    WHERE email_id = :id
""")
# Whether there is an e-mail, and when it was sent.
_SENT = text("""
    SELECT sent_at FROM emails WHERE id = :id
    UNION ALL SELECT sent_at FROM order_emails WHERE id = :id
    UNION ALL SELECT sent_at FROM link_emails WHERE id = :id
""")


def of_service(tx: Connection, id: uuid.UUID) -> list[SentEmail]:
    """The newest e-mails that tell of a service's renewal."""
    return _listed(tx.execute(_OF_SERVICE, {"id": id, "most": MOST}))


def of_order(tx: Connection, id: uuid.UUID) -> list[SentEmail]:
    """The e-mails about an order."""
    return _listed(tx.execute(_OF_ORDER, {"id": id, "most": MOST}))


_KEPT = text("SELECT email_id FROM email_texts WHERE email_id = ANY(:ids)")


def kept(tx: Connection, ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Of which of these e-mails the text is kept."""
    return set(tx.execute(_KEPT, {"ids": list(ids)}).scalars())


def _listed(rows: object) -> list[SentEmail]:
    return [SentEmail(r[0], tuple(r[1]), *r[2:]) for r in rows]  # type: ignore[attr-defined]


def show(visit: Visit) -> Response:
    try:
        id_ = uuid.UUID(visit.path["id"])
    except ValueError:
        raise BadInput("that is no id of an e-mail") from None
    with visit.console.reading() as tx:
        email = tx.execute(_TEXT, {"id": id_}).first()
        known = tx.execute(_SENT, {"id": id_}).first()
    days = visit.console.settings.email_text_days
    sent_at = known.sent_at if known else None
    is_past = sent_at is not None and days > 0 and sent_at < visit.now - timedelta(days=days)
    return page(
        visit, "email.html", id=id_, email=email, known=known, sent_at=sent_at, days=days,
        is_past=is_past, status=200 if email or known else 404,
    )  # fmt: skip
