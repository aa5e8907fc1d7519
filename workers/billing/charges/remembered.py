"""What a worker knows to be in the books, because it saw it there: the charges it recorded last.

The fleet's heartbeat comes every few seconds. A promotion that lost what was committed in between
is noticed by who recorded it.
"""

import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence

from sqlalchemy import Engine, text

from producers.control import guard

# Of charges that were committed one after the other the last one would do; threads commit at once.
MOST = 200
LOOK_EVERY_SECONDS = 1.0

# A charge that was decided stays so.
_DECIDED = text("""
    SELECT key FROM charges WHERE key = ANY(:keys) AND state IN ('succeeded', 'declined')
""")


class Remembered:
    """Shared by the threads of a process."""

    def __init__(self) -> None:
        self._keys: deque[uuid.UUID] = deque(maxlen=MOST)
        self._lock = threading.Lock()
        self._next_look = 0.0

    def recorded(self, engine: Engine, keys: Sequence[uuid.UUID]) -> None:
        """Remember those of these charges that are decided; after the commit."""
        with engine.begin() as tx:
            found = tx.execute(_DECIDED, {"keys": list(keys)[-MOST:]}).scalars().all()
        with self._lock:
            self._keys.extend(found)

    def look(self, engine: Engine) -> None:
        """Pause the guarded lanes if one of them is gone; looks once a second."""
        with self._lock:
            now = time.monotonic()
            keys = set(self._keys)
            if not keys or now < self._next_look:
                return
            self._next_look = now + LOOK_EVERY_SECONDS
        with engine.begin() as tx:
            missing = len(keys.difference(tx.execute(_DECIDED, {"keys": list(keys)}).scalars()))
            if missing:
                guard.report_lost(tx, f"{missing} of the last {len(keys)} charges are gone: {_WHY}")
        if missing:
            with self._lock:
                self._keys.clear()


_WHY = "a promotion that lost transactions, or a restored backup?"
