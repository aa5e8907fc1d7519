"""How a relay that has nothing to do is woken by an enqueue, instead of looking all the time."""

import uuid

from sqlalchemy import Engine

from producers.ledger.dispatching import awake, sleep
from producers.listening import Listener

# The row that asks to be woken stands for so long after its relay has died; half of that before
# it is written again.
ASK_FOR_SECONDS = 4.0


class Waker:
    """Asks enqueues to notify this relay while it sleeps, and not while it is busy: a NOTIFY in
    every commit took 8,700 to 2,750 transactions/s.

    An enqueue that had looked before the relay asked does not notify: a relay looks by itself,
    too, if more seldom. Through a pooler nobody can be woken, and it only looks.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._relay = uuid.uuid4()
        self._listener = Listener(engine)
        self._asked_until = 0.0

    def ask(self, now: float) -> bool:
        """Want to be woken; ``now`` is monotonic. True: look once more before sleeping."""
        self._listener.listen()
        if not self._listener.can_listen or now < self._asked_until - ASK_FOR_SECONDS / 2:
            return False
        with self._engine.begin() as tx:
            sleep(tx, self._relay, ASK_FOR_SECONDS)
        first = now >= self._asked_until
        self._asked_until = now + ASK_FOR_SECONDS
        return first

    def stop_asking(self) -> None:
        """Busy: enqueues need not say so."""
        if self._asked_until:
            self._asked_until = 0.0
            with self._engine.begin() as tx:
                awake(tx, self._relay)

    def fileno(self) -> int | None:
        """Becomes readable when an enqueue has committed; None: nobody wakes this relay."""
        return self._listener.fileno()

    def drain(self) -> list[uuid.UUID]:
        """The batches that the notifications so far name; none if one of them names none.

        Look at the ledger after that: who is woken without a name looks for itself.
        """
        payloads = self._listener.drain()
        try:
            return [uuid.UUID(name) for payload in payloads for name in payload.split() or [""]]
        except ValueError:  # named none, or anybody who may connect has notified
            return []

    def close(self) -> None:
        """Before the relay ends, or after the database was lost."""
        self._asked_until = 0.0
        self._listener.close()
