"""Texts of e-mails are personal data: they are kept for a time, and then deleted, some at once."""

import time
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

# In one transaction: a text may have 100,000 characters.
BATCH = 500
EVERY_SECONDS = 600.0

_FORGET = text("""
    DELETE FROM email_texts WHERE email_id IN (
        SELECT email_id FROM email_texts WHERE sent_at < :before ORDER BY sent_at LIMIT :limit)
""")


class EmailTexts:
    """Forgets texts of e-mails.

    Args:
        days: for so long they are kept, by the fleet's time; 0: for ever.
    """

    def __init__(self, days: int) -> None:
        self._days = days
        self._next = 0.0

    def forget(self, tx: Connection, now: datetime) -> int:
        """Delete some that are too old, if it is time to look; returns how many, at most
        :data:`BATCH`. While there may be more, it is time again at once."""
        if not self._days or time.monotonic() < self._next:
            return 0
        before = now - timedelta(days=self._days)
        forgotten = tx.execute(_FORGET, {"before": before, "limit": BATCH}).rowcount
        self._next = 0.0 if forgotten == BATCH else time.monotonic() + EVERY_SECONDS
        return forgotten
