"""What one running process knows to be in the database, because it saw it committed.

PostgreSQL's log of changes is one sequence: a server that has a change has all that were committed
before it. So a process needs to remember the last one only, to tell a failover that lost nothing
from one that did, and from a restored backup.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from sqlalchemy import Connection, text

# A witness speaks for the whole database up to its own last heartbeat, and for what came within
# this time after it: others have beaten since, and speak for themselves.
NEAR = timedelta(seconds=30)
# A process that was not seen for so long is not waited for.
KEEP = timedelta(days=7)

_READ = text("SELECT number FROM witnesses WHERE process = :process")
_WRITE = text("""
    INSERT INTO witnesses (process, number, beat_at) VALUES (:process, :number, :now)
    ON CONFLICT (process) DO UPDATE SET number = excluded.number, beat_at = excluded.beat_at
""")
_FORGET = text("DELETE FROM witnesses WHERE beat_at < :since")


class Testimony(Enum):
    """What a process can say of the database it finds."""

    NONE = "has seen too little of it"
    COMPLETE = "what it saw last is there, and the heartbeat goes on from there"
    LOST = "what it saw committed is gone"


@dataclass(frozen=True, slots=True)
class _Seen:
    number: int
    at: datetime


class Witness:
    """The heartbeats of one process; for one thread."""

    def __init__(self) -> None:
        self._process = uuid.uuid4()
        self._seen: _Seen | None = None
        self._written: _Seen | None = None

    @property
    def last_seen(self) -> datetime | None:
        """When it last saw a heartbeat of its own committed, by the database's clock."""
        return None if self._seen is None else self._seen.at

    def testify(self, tx: Connection, now: datetime, last_beat: datetime) -> Testimony:
        """
        Args:
            last_beat: the last heartbeat of any process, as the database has it.
        """
        if self._seen is None or now - self._seen.at > KEEP:
            return Testimony.NONE
        number = tx.execute(_READ, {"process": self._process}).scalar()
        if number is None or number < self._seen.number:
            return Testimony.LOST
        return Testimony.COMPLETE if last_beat - self._seen.at <= NEAR else Testimony.NONE

    def write(self, tx: Connection, now: datetime) -> None:
        """Leave a mark, in the transaction of a heartbeat."""
        if self._seen is None:
            tx.execute(_FORGET, {"since": now - KEEP})
        # One that was written and perhaps committed keeps its number: this is a later one.
        last = self._written or self._seen
        number = 1 if last is None else last.number + 1
        tx.execute(_WRITE, {"process": self._process, "number": number, "now": now})
        self._written = _Seen(number, now)

    def confirm(self) -> None:
        """The transaction was committed: what it wrote is known from here on."""
        if self._written is not None:
            self._seen = self._written
