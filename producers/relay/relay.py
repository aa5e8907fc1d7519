"""The relay: from the ledger to the broker.

One round: mark what is ready as dispatched, commit, *then* publish with confirms. No transaction
is open while the broker is spoken to. Any number of relays may run. A relay that dies between
the two leaves tasks that nobody claims; they are rescued.
"""

import logging
import time
import uuid

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from producers.control import guard
from producers.control.witness import Witness
from producers.failpoints import failpoint
from producers.ledger.dispatching import (
    MOST_GATHERED,
    MOST_RESCUED,
    Dispatch,
    dispatch,
    dispatch_new,
    rescue,
    undispatch,
)
from producers.listening import AT_REST_AFTER_SECONDS, AT_REST_POLL_SECONDS
from producers.loop import Loop
from producers.presence import Presence
from producers.relay.transport import Transport, TransportLost
from producers.relay.waking import Waker
from producers.relay.windows import tasks_in_message
from producers.steps import STEPS
from schemas.clock import Clock
from schemas.database import is_too_slow
from schemas.settings import Settings

log = logging.getLogger(__name__)

# Found so many times in a row, work is looked for this often and nobody need wake this relay.
EAGER_POLL_SECONDS = 0.003
EAGER_FROM_ROUNDS = 10
# Under load there is no hurry: a little later there is a larger batch, and fewer polls.
BUSY_POLL_SECONDS = 0.03
BUSY_FOR_SECONDS = 0.25
BUSY_FROM_TASKS = 100
RESCUE_EVERY_SECONDS = 1.0
BEAT_EVERY_SECONDS = 5.0
# What was handed over is vouched for by a heartbeat soon after it.
BEAT_AFTER_SECONDS = 1.0
# After a statement that was too slow, twice as much is taken at once after each such time.
LARGER_AFTER_SECONDS = 60.0
FULL_SCAN_EVERY_SECONDS = 2.0
# A short poll looks back this far; enqueues whose transaction stays open longer wait for the
# full scan.
HORIZON_SECONDS = 5.0
# Where a queue was filled up, or a full scan found what a short poll cannot see, all polls are full
# for so long: a backlog that nothing is taken from while its queue is full is still there.
BACKLOG_SECONDS = 5.0


class Relay:
    """Moves ready tasks to a transport until stopped.

    Args:
        engine: as the database role ``relay``.
        transport: used by this relay's thread only.
    """

    def __init__(
        self, engine: Engine, transport: Transport, settings: Settings, clock: Clock
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._transport = transport
        self._settings = settings
        self._loop = Loop(
            "relay", self._work, causes={TransportLost: "broker", psycopg.Error: "database"}
        )
        self._window = tasks_in_message(settings.calls_at_once)
        self._at_once = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._waker = Waker(engine)
        self._witness = Witness()
        self._presence = Presence(engine, "relay")
        self._woken: list[uuid.UUID] = []
        self._found_at = 0.0
        self._found_in_a_row = 0
        self._at_rest_from = 0.0
        self._busy_until = 0.0
        self._next_look = 0.0
        self._next_beat = 0.0
        self._next_rescue = 0.0
        self._parts = 1  # of what is taken at once: more after a statement that was too slow
        self._next_larger = 0.0
        self._next_full_scan = 0.0
        self._backlog_until = 0.0
        self._last_round = metrics.relay_last_round()

    def stop(self) -> None:
        """Ask :meth:`run` to return after the round it is in."""
        self._loop.stop()

    def run(self) -> None:
        """Work until :meth:`stop`."""
        self._loop.run()
        self._presence.end()
        self._waker.close()
        self._transport.close()

    def _work(self) -> float:
        try:
            self._rest_after(self.round())
        except (SQLAlchemyError, psycopg.Error) as error:
            if is_too_slow(error):
                self._parts = min(2 * self._parts, MOST_RESCUED)
                self._next_larger = time.monotonic() + LARGER_AFTER_SECONDS
            self._waker.close()  # it listens on a connection of its own
            self._next_beat = 0.0  # perhaps another server: look before anything is handed over
            raise
        return 0.0  # it has rested, and kept its connections alive meanwhile

    def round(self) -> int:
        """Rescue if it is time to, dispatch, publish; returns how many tasks were handed over."""
        now = time.monotonic()
        if now >= self._next_beat:  # before anything is handed over
            with self._engine.begin() as tx:
                guard.beat(tx, self._clock, self._settings, self._witness)
            self._witness.confirm()
            self._next_beat = now + BEAT_EVERY_SECONDS
            self._presence.beat()
        if now >= self._next_rescue:
            self._next_rescue = now + RESCUE_EVERY_SECONDS
            self._rescue()
        if self._parts > 1 and now >= self._next_larger:
            self._parts //= 2
            self._next_larger = now + LARGER_AFTER_SECONDS
        failpoint("relay.before_dispatch")
        woken, self._woken = self._woken, []
        batch = self._dispatch_new(woken) if woken else []
        self._publish(batch)
        if len(batch) < max(1, len(woken)) or now >= self._next_look:
            found = self._dispatch(now)
            if found or len(batch) < len(woken):
                self._at_rest_from = now + AT_REST_AFTER_SECONDS
            self._next_look = now + self._pause(now)
            self._publish(found)
            batch += found
        if batch:
            self._next_beat = min(self._next_beat, now + BEAT_AFTER_SECONDS)
        self._last_round.set_to_current_time()
        return self._count(batch)

    def _dispatch_new(self, woken: list[uuid.UUID]) -> list[Dispatch]:
        with self._at_once.connect() as tx:
            return dispatch_new(
                tx,
                woken,
                most=min(self._settings.batch, self._window),
                cap=self._settings.dispatch_cap,
                rescue_seconds=self._settings.rescue_seconds,
            )

    def _dispatch(self, now: float) -> list[Dispatch]:
        horizon = HORIZON_SECONDS
        if now >= self._next_full_scan or now < self._backlog_until:
            self._next_full_scan = now + FULL_SCAN_EVERY_SECONDS
            horizon = 1e9
        with self._engine.begin() as tx:
            batch = dispatch(
                tx,
                batch=self._batch,
                cap=max(1, self._settings.dispatch_cap // self._parts),
                rescue_seconds=self._settings.rescue_seconds,
                horizon=horizon,
                gather=max(1, MOST_GATHERED // self._parts),
            )
        if any(message.fills_queue or message.waited >= HORIZON_SECONDS for message in batch):
            self._backlog_until = now + BACKLOG_SECONDS
        return batch

    def _publish(self, batch: list[Dispatch]) -> None:
        failpoint("relay.before_publish")
        try:
            unroutable = self._transport.publish(batch)
        except TransportLost:
            with self._engine.begin() as tx:
                undispatch(tx, batch)
            raise
        failpoint("relay.after_confirm")
        if unroutable:
            metrics.relay_failures.labels("unroutable").inc()
            log.error("no queue %s: run `autorenew broker setup`", ", ".join(sorted(unroutable)))

    def _batch(self, name: str) -> int:
        step = STEPS.get(name)
        if step is None or not step.outside:
            return self._settings.batch
        return self._window

    def _rescue(self) -> None:
        with self._engine.begin() as tx:
            dispatched, leased = rescue(tx, limit=max(1, MOST_RESCUED // self._parts))
        if dispatched or leased:
            log.info("rescued %d unclaimed and %d abandoned tasks", dispatched, leased)
            metrics.rescued.labels("dispatched").inc(dispatched)
            metrics.rescued.labels("leased").inc(leased)

    def _rest_after(self, found: int) -> None:
        """Wait for a larger batch if there is plenty to do, else for whoever enqueues next."""
        now = time.monotonic()
        if found:
            in_a_row = now - self._found_at < 2 * EAGER_POLL_SECONDS
            self._found_in_a_row = self._found_in_a_row + 1 if in_a_row else 0
            self._found_at = now
        if found >= BUSY_FROM_TASKS:
            self._busy_until = now + BUSY_FOR_SECONDS
        is_busy = now < self._busy_until
        if is_busy or (found and self._found_in_a_row >= EAGER_FROM_ROUNDS):
            self._waker.stop_asking()
            self._transport.idle(BUSY_POLL_SECONDS if is_busy else EAGER_POLL_SECONDS)
        elif self._waker.ask(now):
            self._at_rest_from = now + AT_REST_AFTER_SECONDS
        else:
            self._transport.idle(self._pause(now), wake=self._waker.fileno())
            self._woken = self._waker.drain()

    def _pause(self, now: float) -> float:
        """Until the next look: longer while looks find nothing, and enqueues wake this relay."""
        pause = self._settings.poll_seconds
        if self._waker.fileno() is None or now < self._at_rest_from:
            return pause
        return max(pause, AT_REST_POLL_SECONDS)

    @staticmethod
    def _count(batch: list[Dispatch]) -> int:
        for message in batch:
            metrics.messages.labels(message.queue).inc()
            metrics.dispatched.labels(message.queue).inc(message.size)
        return sum(message.size for message in batch)
