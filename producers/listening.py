"""What an enqueue has notified, heard on a connection of its own."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine

from producers.ledger.tasks import CHANNEL
from schemas.connections import Connection

# Nothing was found for so long: whoever enqueues wakes who listens, and what waits for its time is
# found a little later. A look every 20 ms took 3 to 5 % of a core for ever.
AT_REST_AFTER_SECONDS = 2.0
AT_REST_POLL_SECONDS = 0.25


class Listener:
    """For one thread. Through a pooler nothing can be heard: LISTEN lives in a session."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listening: Any = None
        self.can_listen = True

    def listen(self) -> None:
        """Begin to, if that is possible and not done yet."""
        if self.can_listen and self._listening is None:
            self._listening = self._listen()

    def fileno(self) -> int | None:
        """Becomes readable when there is something to hear; None: nothing is heard."""
        if self._listening is None:
            return None
        return int(self._listening.driver_connection.fileno())

    def drain(self) -> Sequence[str]:
        """The payloads of the notifications so far."""
        if self._listening is None:
            return []
        return [note.payload for note in self._listening.driver_connection.notifies(timeout=0)]

    def close(self) -> None:
        """At the end, or after the database was lost."""
        self.can_listen = True
        if self._listening is not None:
            listening, self._listening = self._listening, None
            listening.invalidate()

    def _listen(self) -> Any:
        pooled = self._engine.raw_connection()
        try:
            connection = pooled.driver_connection
            assert isinstance(connection, Connection)
            if not connection.is_direct:
                self.can_listen = False
                pooled.close()
                return None
            connection.autocommit = True
            connection.execute(f"LISTEN {CHANNEL}")
        except BaseException:
            pooled.invalidate()
            raise
        return pooled
