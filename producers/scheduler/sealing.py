"""The history is sealed in blocks soon after it was written.

A block is sealed once no transaction can add to it any more, so that an event that is changed,
added or deleted later is found by the audit. What was written last is sealed within seconds.
"""

import time

from sqlalchemy import Engine, text

from monitoring import metrics

# Ids in a block: what is read again, and held in memory, to check one.
BLOCK = 10_000
MOST_BLOCKS = 20
EVERY_SECONDS = 2.0
# Between taking its id and writing its event a transaction is invisible, for microseconds.
SETTLE = "5 seconds"

_SEAL = text("SELECT seal_events(:block, :blocks, CAST(:settle AS interval))")


class Sealer:
    """Seals now and then; any number of schedulers may, and one at a time does.

    Args:
        engine: as the database role ``scheduler``.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next = 0.0

    def seal(self) -> int:
        """Seal what is complete, if it is time to; returns how many events."""
        now = time.monotonic()
        if now < self._next:
            return 0
        with self._engine.begin() as tx:
            parameters = {"block": BLOCK, "blocks": MOST_BLOCKS, "settle": SETTLE}
            sealed: int = tx.execute(_SEAL, parameters).scalar_one()
        metrics.sealed.inc(sealed)
        if sealed < BLOCK * MOST_BLOCKS // 2:
            self._next = now + EVERY_SECONDS
        return sealed
