"""What an e-mail said is kept when it was sent, for whoever is asked what a customer was told.

Its links act on behalf of the customer who has them, so what is kept has none that works.
"""

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage

from sqlalchemy import Connection

from schemas.tables import email_texts
from schemas.tables.bulk import insert

MOST_CHARACTERS = 100_000
"""Of a text that are kept."""

# What a link carries: its command with a signature, more than 100 characters of one kind.
_TOKEN = re.compile(r"[\w.=%&~-]{60,}")


@dataclass(frozen=True, slots=True)
class EmailText:
    """What an e-mail said."""

    email_id: uuid.UUID
    recipient: str
    subject: str
    body: str
    sent_at: datetime


# One that is sent again after a crash, under the same id, says the same.
_INSERT = insert(EmailText, email_texts, "ON CONFLICT DO NOTHING")


def keep(tx: Connection, sent: Iterable[tuple[uuid.UUID, EmailMessage]], now: datetime) -> None:
    """Keep the texts of e-mails that were sent."""
    rows = [text_of(id_, message, now) for id_, message in sent]
    if rows:
        _INSERT(tx, rows)


def text_of(id: uuid.UUID, message: EmailMessage, now: datetime) -> EmailText:
    """The plain text of an e-mail, with what its links carry taken out."""
    plain = message.get_body(("plain",))
    body = plain.get_content() if plain is not None else ""
    shown = _TOKEN.sub("…", body.replace("\r\n", "\n"))
    return EmailText(id, str(message["To"]), str(message["Subject"]), shown[:MOST_CHARACTERS], now)
