"""The publisher: from the history to the exchange ``events``, and into the ledger for endpoints.

One round: note up to which id the history is, wait until no transaction can add to that any more,
read what goes out beyond the cursor, publish it with confirms, *then*, in one transaction, enqueue
its deliveries to endpoints and move the cursor. What dies in between is published again: at least
once, with the same ids. No transaction is open while the broker is spoken to.

Any number of publishers may run; one at a time holds the cursor, for some seconds, and renews that.
At rest it looks seldom: the enqueue that wakes the relay wakes it, too.
"""

import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import xor

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from producers.confirms import TransportLost
from producers.events import untold
from producers.events.composing import Composer, Outgoing, Untold
from producers.events.deliveries import Deliveries
from producers.events.exchange import Exchange
from producers.events.reading import Happened, facts, read
from producers.failpoints import failpoint
from producers.listening import AT_REST_AFTER_SECONDS, AT_REST_POLL_SECONDS, Listener
from producers.loop import Loop
from schemas.errors import first_line
from schemas.settings import Settings

log = logging.getLogger(__name__)

HOLD_SECONDS = 6.0
# Events that are published together.
MOST = 500
# A publisher that does not hold the cursor looks so often whether its holder is gone.
STANDBY_SECONDS = 1.0
# How often it is looked whether the transactions that may still add to the history have ended.
SETTLE_SECONDS = 0.002
SETTLE_LONGEST_SECONDS = 0.05
# Where nothing goes out the cursor is moved in steps of so many ids.
IDLE_STEP = 1000
# Events of a stretch.
STRETCH = 10_000
CHORES_EVERY_SECONDS = 1.0
# Events are told when there is time to: an order that is delivered later is worse. While what was
# published last is not older than this, a publisher rests for so many times as long as it worked.
GIVES_WAY_UNTIL_SECONDS = 5.0
REST_FACTOR = 3.0
LONGEST_REST_SECONDS = 0.5
NICENESS = 10
STOP_SECONDS = 15.0

# If there is anything new, with a transaction id of its own: whoever has taken an id up to
# last_value has an older one.
_LOOK = text("""
    SELECT last_value AS upto, CASE WHEN last_value > :after
        THEN CAST(CAST(pg_current_xact_id() AS text) AS bigint) END AS complete_after
    FROM events_id_seq WHERE is_called
""")
_IS_COMPLETE = text("""
    SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) > :complete_after
""")
_HOLD = text("""
    UPDATE event_cursor
    SET holder = :me, held_until = clock_timestamp() + make_interval(secs => :seconds)
    WHERE holder IS NULL OR holder = :me OR held_until < clock_timestamp()
    RETURNING last_id
""")
_LET_GO = text("UPDATE event_cursor SET holder = NULL WHERE holder = :me")
_MOVE = text("""
    UPDATE event_cursor SET last_id = :upto,
        held_until = clock_timestamp() + make_interval(secs => :seconds)
    WHERE holder = :me AND last_id = :stored RETURNING sole
""")
_LENGTHEN = text("""
    UPDATE event_stretches SET last_id = :upto, events = events + :events,
        digest = digest # :digest, ended_at = now()
    WHERE first_id = (SELECT max(first_id) FROM event_stretches)
      AND last_id = :stored AND events < :most
    RETURNING first_id
""")
_BEGIN = text("""
    INSERT INTO event_stretches (first_id, last_id, events, digest)
    VALUES (:stored + 1, :upto, :events, :digest)
""")


class CursorLost(Exception):
    """Another publisher holds the cursor by now: what was published goes out again, by it."""


@dataclass(slots=True)
class _Window:
    """Ids that were taken before a moment.

    Attributes:
        complete_after: once all transactions up to this one have ended, none of them adds to it.
    """

    upto: int
    complete_after: int
    is_complete: bool = False


class Publisher:
    """Publishes until stopped.

    Args:
        engine: as the database role ``events``.
        exchange: used by this publisher's thread only.
    """

    def __init__(
        self, engine: Engine, exchange: Exchange, composer: Composer, settings: Settings
    ) -> None:
        self._engine = engine
        self._at_once = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._exchange = exchange
        self._composer = composer
        self._poll_seconds = settings.poll_seconds
        self._deliveries = Deliveries(
            engine, composer, exchange, keep_days=settings.webhook_keep_days
        )
        self._listener = Listener(engine)
        self._active_at = 0.0
        self._me = uuid.uuid4()
        self._loop = Loop(
            "events",
            self._work,
            causes={TransportLost: "broker", CursorLost: "cursor", psycopg.Error: "database"},
        )
        # While it is held: the cursor, and up to where it is known that nothing goes out after it.
        self._stored = 0
        self._position = 0
        self._held_until: float | None = None
        self._window: _Window | None = None
        self._settling = SETTLE_SECONDS
        self._next_chores = 0.0

    def stop(self) -> None:
        """Ask :meth:`run` to return after the round it is in."""
        self._loop.stop()

    def run(self) -> None:
        """Work until :meth:`stop`."""
        self._loop.run()
        self._listener.close()
        self._exchange.close()
        try:
            with self._at_once.connect() as tx:
                tx.execute(_LET_GO, {"me": self._me})
        except SQLAlchemyError as error:  # the cursor is free once its time is over
            log.warning("the cursor of events is not let go: %s", first_line(error))

    def _work(self) -> float:
        try:
            pause = self.round()
        except Exception:
            self._held_until = self._window = None  # read anew where the cursor is
            self._listener.close()
            raise
        if pause:
            try:
                self._rest(pause)
            except psycopg.Error:
                self._listener.close()  # that connection alone may be lost
                raise
        return 0.0  # it has rested, and kept its connection alive meanwhile

    def _rest(self, pause: float) -> None:
        self._listener.listen()
        wake, now = self._listener.fileno(), time.monotonic()
        if self._window is not None:
            self._active_at = now
        if wake is None or now - self._active_at <= AT_REST_AFTER_SECONDS:
            self._exchange.idle(pause)
        else:
            self._exchange.idle(max(pause, AT_REST_POLL_SECONDS), wake=wake)
        if self._listener.drain():
            self._active_at = time.monotonic()

    def round(self) -> float:
        """Publish what is next; returns how many seconds to wait until there may be more."""
        if not self._hold():
            return STANDBY_SECONDS
        if (now := time.monotonic()) >= self._next_chores:
            has_more = self._deliveries.chores(self._stored)
            self._next_chores = now if has_more else now + CHORES_EVERY_SECONDS
        window = self._look()
        if window is None:
            metrics.event_lag().set(0.0)
            return self._poll_seconds
        if not window.is_complete:
            self._settling = min(2 * self._settling, SETTLE_LONGEST_SECONDS)
            return self._settling
        self._settling = SETTLE_SECONDS
        started = time.monotonic()
        behind = self._publish(window.upto)
        if behind < GIVES_WAY_UNTIL_SECONDS:
            rest = REST_FACTOR * (time.monotonic() - started)
            return max(self._poll_seconds, min(rest, LONGEST_REST_SECONDS))
        return 0.0 if self._window else self._poll_seconds

    def _hold(self) -> bool:
        """Whether this publisher holds the cursor; False: another one is at it."""
        now = time.monotonic()
        if self._held_until is not None and now < self._held_until - HOLD_SECONDS / 2:
            return True
        with self._at_once.connect() as tx:
            parameters = {"me": self._me, "seconds": HOLD_SECONDS}
            last_id: int | None = tx.execute(_HOLD, parameters).scalar_one_or_none()
        if last_id is None:
            self._held_until = self._window = None
            return False
        if self._held_until is None or last_id != self._stored:
            self._stored = self._position = last_id
            self._window = None
        self._held_until = now + HOLD_SECONDS
        return True

    def _look(self) -> _Window | None:
        """What there is beyond the cursor; None: nothing new."""
        with self._at_once.connect() as tx:
            if self._window is None:
                row = tx.execute(_LOOK, {"after": self._position}).first()
                if row is None or row.complete_after is None:
                    return None
                self._window = _Window(row.upto, row.complete_after)
            window = self._window
            if not window.is_complete:
                parameters = {"complete_after": window.complete_after}
                window.is_complete = tx.execute(_IS_COMPLETE, parameters).scalar_one()
        return window

    def _publish(self, upto: int) -> float:
        """Publish some of what is complete up to ``upto``, and move the cursor.

        Returns:
            How many seconds ago the last of it happened; 0: nothing did.
        """
        with self._engine.begin() as tx:
            happened = read(tx, self._position, upto, MOST)
            composed, left_out = (
                self._composer.compose(happened, facts(tx, happened)) if happened else ([], [])
            )
        if len(happened) == MOST:
            upto = happened[-1].id
        else:
            self._window = None
        if composed:
            failpoint("events.before_publish")
            self._exchange.publish(composed)
            failpoint("events.after_confirm")
        if happened or upto - self._stored >= IDLE_STEP:
            self._move(upto, happened, composed, left_out)
        self._position = upto
        for event in composed:
            metrics.events_published.labels(event.kind).inc()
        if not happened:
            return 0.0
        behind = max(0.0, time.time() - happened[-1].at.timestamp())
        metrics.event_lag().set(behind)
        return behind

    def _move(
        self,
        upto: int,
        happened: Sequence[Happened],
        composed: Sequence[Outgoing],
        left_out: Sequence[Untold],
    ) -> None:
        """The cursor, and what follows from what was published, in one transaction.

        Raises:
            CursorLost: it was taken over meanwhile.
        """
        moved = {
            "me": self._me, "stored": self._stored, "upto": upto, "seconds": HOLD_SECONDS,
        }  # fmt: skip
        stretch = {
            "stored": self._stored,
            "upto": upto,
            "events": len(happened),
            "digest": reduce(xor, (one.digest for one in happened), 0),
            "most": STRETCH,
        }
        with self._engine.begin() as tx:
            if tx.execute(_MOVE, moved).first() is None:
                raise CursorLost("another publisher goes on")
            if tx.execute(_LENGTHEN, stretch).first() is None:
                tx.execute(_BEGIN, stretch)
            if composed:
                self._deliveries.hand_over(tx, composed)
            untold.keep(tx, left_out)
            failpoint("events.before_commit")
        failpoint("events.after_commit")
        self._stored = upto


class Publishing:
    """A publisher in a thread of its own, which gives way to whatever else the host has to do."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def __enter__(self) -> "Publishing":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(STOP_SECONDS)

    def stop(self) -> None:
        self._publisher.stop()

    def _run(self) -> None:
        if sys.platform == "linux":  # of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        self._publisher.run()
