"""Bulk operations are carried out, step by step, in the scheduler's process.

Any number of schedulers may do so: a step locks its operation, and another one leaves it alone.
"""

import time
import uuid

from sqlalchemy import Engine

from monitoring import metrics
from producers.control import bulk, bulk_running
from producers.control.bulk_running import Step
from producers.failpoints import failpoint
from producers.loop import Loop
from schemas.catalogue.store import CatalogueCache

# Until it is looked whether there is a new operation; and, of one whose last step did nothing,
# until it is looked at again: doubling.
IDLE_SECONDS = 0.5
SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 5.0
# Between two parts of the tasks of a large one, none of which has come to an end.
PART_SECONDS = 0.25
FORGET_EVERY_SECONDS = 3600.0


class BulkRunner:
    """Carries out bulk operations until stopped.

    Args:
        engine: as the database role ``scheduler``.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._catalogue = CatalogueCache()
        self._loop = Loop("bulk", self._round)
        self._open = metrics.bulk_operations_open()
        self._next_forget = 0.0
        # Operation -> for how long it is left alone, and until when.
        self._rests: dict[uuid.UUID, tuple[float, float]] = {}

    def stop(self) -> None:
        """Have :meth:`run` return after the step it is in."""
        self._loop.stop()

    def run(self) -> None:
        """Work until :meth:`stop`."""
        self._loop.run()

    def _round(self) -> float:
        self._forget()
        with self._engine.begin() as tx:
            open_ = bulk_running.open_operations(tx)
        self._open.set(len(open_))
        self._rests = {id: rest for id, rest in self._rests.items() if id in open_}
        now, wait = time.monotonic(), IDLE_SECONDS
        failure: Exception | None = None
        for id in open_:
            pause, until = self._rests.get(id, (0.0, 0.0))
            if now >= until:
                try:
                    pause = self._pause_after(self.step(id), pause)
                except Exception as error:  # of one: the others go on
                    failure, pause = error, LONGEST_SECONDS
                until = now + pause
                self._rests[id] = (pause, until)
            wait = min(wait, max(until - now, 0.0))
        if failure is not None:
            raise failure
        return wait

    def _forget(self) -> None:
        """Drop old snapshots, now and then."""
        now = time.monotonic()
        if now >= self._next_forget:
            with self._engine.begin() as tx:
                forgotten = bulk_running.forget(tx)
            self._next_forget = now + (0.0 if forgotten else FORGET_EVERY_SECONDS)

    @staticmethod
    def _pause_after(step: Step | None, pause: float) -> float:
        if step is not None and step.did_something:
            return 0.0
        if step is not None and step.more:
            return PART_SECONDS
        return min(2 * pause or SHORTEST_SECONDS, LONGEST_SECONDS)

    def step(self, id: uuid.UUID) -> Step | None:
        """Take one step of an operation; None: it has ended, or another scheduler takes one."""
        with self._engine.begin() as tx:
            step = bulk_running.advance(tx, id, self._catalogue)
            if step is None:
                return None
            kind = bulk.get(tx, id).kind
            if step.did_something:
                failpoint("bulk.before_commit")
        bulk_running.count(kind, step)
        if step.did_something:
            failpoint("bulk.after_commit")
        return step
