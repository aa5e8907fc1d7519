"""The scheduler: enqueues what is due now.

It looks for services whose next step is due, in chunks, and enqueues a task for each. Any number of
schedulers may run, with no leader. A sweep costs what is due, not what exists. A step that fell due
while none was running is enqueued once. A service stays due until its step is done, so a task that
was lost is enqueued again.
"""

import threading
import time
import uuid
from collections.abc import Callable
from datetime import date, datetime
from functools import partial

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from monitoring import forecast, metrics
from producers import ledger
from producers.control import guard, own_clock
from producers.control.witness import Witness
from producers.failpoints import failpoint
from producers.loop import Loop
from producers.presence import Presence
from producers.renewals import next_steps
from producers.scheduler.bulk import BulkRunner
from producers.scheduler.changes import Changes, carry_over
from producers.scheduler.forgetting import EmailTexts
from producers.scheduler.notices import claim_notices
from producers.scheduler.reconciling import Reconciliations
from producers.scheduler.sealing import Sealer
from producers.steps import DESTRUCTIVE, STEPS
from schemas import locks
from schemas.catalogue import changes
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.database import be_patient, is_too_slow
from schemas.locks import Lock
from schemas.rules.lifecycle import Step
from schemas.settings import Settings

CHUNK = 20_000
# Notices are claimed one by one, so a chunk (one transaction) of them is smaller.
NOTICE_CHUNK = 500
RECOMPUTE_CHUNK = 2000
# Services stay due while their task is under way, and every sweep reads them again. So an idle
# scheduler waits for at least five times as long as its last sweep took.
REST = 5


class Scheduler:
    """Enqueues what is due until stopped.

    Args:
        engine: as the database role ``scheduler``.
    """

    def __init__(
        self, engine: Engine, catalogue: CatalogueCache, clock: Clock, settings: Settings
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._clock = clock
        self._settings = settings
        self._loop = Loop("scheduler", self._round)
        self.bulk = BulkRunner(engine)
        self._changes = Changes(engine)
        self._sealer = Sealer(engine)
        self._email_texts = EmailTexts(settings.email_text_days)
        self._reconciliations = Reconciliations(engine, catalogue, settings.reconcile_seconds)
        self._witness = Witness()
        self._snapshot_on: date | None = None
        self._parts = 1
        self._presence = Presence(engine, "scheduler")

    def stop(self) -> None:
        """Have :meth:`run` return after the chunk it is in."""
        self.bulk.stop()
        self._loop.stop()

    def run(self) -> None:
        """Work until :meth:`stop`; bulk operations have a thread of their own."""
        bulk = threading.Thread(target=self.bulk.run, name="bulk", daemon=True)
        bulk.start()
        self._loop.run()
        bulk.join()
        self._presence.end()

    def _round(self) -> float:
        """Enqueue what is due; returns the seconds to wait before the next round."""
        started = time.monotonic()
        if self.round():
            return 0.0
        took = time.monotonic() - started
        return max(self._settings.sweep_seconds, REST * took)

    def round(self) -> int:
        """Enqueue everything that is due now.

        Returns:
            How many services were found.

        Raises:
            WrongClock: this host's clock is wrong; nothing was done.
        """
        own_clock.check(self._clock, self._settings)
        with self._engine.begin() as tx:
            guard.beat(tx, self._clock, self._settings, self._witness)
            now = self._clock.now()
            due_changes = changes.due(tx, now)
            due = set(tx.execute(_DUE_STEPS, {"steps": list(Step), "now": now}).scalars())
            recompute = tx.execute(_IS_RECOMPUTING).scalar_one()
        self._witness.confirm()
        found = self._changes.put_in_force(due_changes)
        for step in STEPS.values():
            if step.scheduled and step.task in due:
                found += self._drain(CHUNK, partial(self._sweep, step=step.task, now=now))
        if Step.REMIND in due:
            found += self._drain(NOTICE_CHUNK, lambda tx: self._claim_notices(tx, now))
        if Step.DECIDE in due:
            found += self._drain(RECOMPUTE_CHUNK, lambda tx: self._decide_again(tx, now))
        if recompute:
            found += self._in_chunk(lambda tx: self._recompute(tx, now))
        self._parts = 1
        self._take_snapshot(now)
        self._sealer.seal()
        with self._engine.begin() as tx:
            self._email_texts.forget(tx, now)
        self._reconciliations.ask()
        metrics.scheduler_last_round().set_to_current_time()
        self._presence.beat()
        return found

    def _drain(self, chunk: int, take: Callable[[Connection], int]) -> int:
        """Take chunk by chunk until one is not full; returns the total."""
        found = taken = self._in_chunk(take)
        while taken >= self._most(chunk) and not self._loop.is_stopping:
            taken = self._in_chunk(take)
            found += taken
        return found

    def _most(self, chunk: int) -> int:
        """How many to take at once: fewer after a chunk that was too slow."""
        return max(1, chunk // self._parts)

    def _in_chunk(self, take: Callable[[Connection], int]) -> int:
        try:
            with self._engine.begin() as tx:
                taken = take(tx)
                if taken:
                    failpoint("scheduler.before_commit")
        except DBAPIError as error:
            if is_too_slow(error):  # until a whole round has been in time
                self._parts = min(2 * self._parts, CHUNK)
            raise
        if taken:
            failpoint("scheduler.after_commit")
        return taken

    def _sweep(self, tx: Connection, *, step: str, now: datetime) -> int:
        """Enqueue a task for each due subject that has none yet.

        Services are only read: they stay due until the handler of the step decides the next one.
        """
        if not locks.try_to_take(tx, Lock.SWEEP):
            return 0  # another scheduler does it
        rows = tx.execute(_SWEEP, {"step": step, "now": now, "limit": self._most(CHUNK)}).all()
        services = sum(int(row.services) for row in rows)
        if rows:
            place = STEPS[step].place
            if place == DESTRUCTIVE:
                guard.count_ends(tx, services, now, self._settings)
            ledger.enqueue(tx, step, [(row.next_subject, place) for row in rows])
            metrics.swept.labels(step).inc(services)
        return services

    def _claim_notices(self, tx: Connection, now: datetime) -> int:
        """Claim the notices that are due; those of one customer and day form one e-mail."""
        parameters = {"step": Step.REMIND.value, "now": now}
        first = tx.execute(_DUE, {**parameters, "limit": self._most(NOTICE_CHUNK)}).all()
        if not first:
            return 0
        # And the other due notices of the same customers, so that they go into the same e-mail.
        customers = sorted({row.customer_id for row in first})
        rest = tx.execute(_DUE_OF, {**parameters, "customers": customers}).all()
        catalogue = self._catalogue.current(tx)
        due_since = {row.id: row.next_step_at for row in (*first, *rest)}
        services = next_steps.load(tx, due_since, catalogue)
        claim_notices(tx, services, due_since, now)
        metrics.swept.labels(Step.REMIND.value).inc(len(services))
        return len(first)

    def _decide_again(self, tx: Connection, now: datetime) -> int:
        """Decide anew about services that had nothing due before now, such as at a rollout."""
        parameters = {"step": Step.DECIDE.value, "now": now, "limit": self._most(RECOMPUTE_CHUNK)}
        ids = [row.id for row in tx.execute(_DUE, parameters)]
        next_steps.decide_again(tx, ids, self._catalogue.current(tx), now)
        return len(ids)

    def _recompute(self, tx: Connection, now: datetime) -> int:
        """Decide anew about one page of the services that a change of catalogue, rollout or
        subsidiary touches; that of a subsidiary is carried over to them first.

        Returns:
            How many services; at least 1 while there are pages left.
        """
        wanted = tx.execute(_RECOMPUTATION).first()
        if wanted is None:
            return 0
        catalogue = self._catalogue.current(tx)
        parameters = {
            "after": wanted.after or uuid.UUID(int=0),
            "plans": wanted.plans,
            "brand": wanted.brand,
            "subsidiary": wanted.subsidiary,
            "ended": wanted.change_id is not None,
            "limit": self._most(RECOMPUTE_CHUNK),
        }
        last, touched = tx.execute(_PAGE, parameters).one()
        if last is None:
            tx.execute(_RECOMPUTED, {"id": wanted.id})
            return 1  # there may be others
        ids = touched or []
        next_steps.lock(tx, ids)
        if wanted.change_id is None:
            next_steps.decide_again(tx, ids, catalogue, now)
        else:
            carry_over(tx, wanted.change_id, ids, catalogue, now)
        tx.execute(_TURN_PAGE, {"id": wanted.id, "after": last})
        return max(len(ids), 1)

    def _take_snapshot(self, now: datetime) -> None:
        """Store today's forecast, once a day."""
        today = now.date()
        if today != self._snapshot_on:
            with self._engine.begin() as tx:
                be_patient(tx)
                forecast.take_snapshot(tx, today)
            self._snapshot_on = today


# One query for all steps, so that an idle round costs next to nothing.
_DUE_STEPS = text("""
    SELECT step FROM unnest(CAST(:steps AS text[])) AS step WHERE EXISTS (
        SELECT FROM services WHERE next_step = step AND next_step_at <= :now)
""")
_IS_RECOMPUTING = text("SELECT EXISTS (SELECT FROM recomputations)")

# An index-only scan that writes no service row: its cost depends on what is due, not on how many
# services there are or where the due ones are stored.
_SWEEP = text("""
    SELECT next_subject, count(*) AS services
    FROM (
        SELECT s.next_subject FROM services AS s
        WHERE s.next_step = :step AND s.next_step_at <= :now
          AND NOT EXISTS (
            SELECT FROM tasks AS t WHERE t.name = :step AND t.subject = s.next_subject)
        ORDER BY s.next_step_at LIMIT :limit
    ) AS due
    GROUP BY next_subject
""")
_DUE = text("""
    SELECT id, customer_id, next_step_at FROM services
    WHERE next_step = :step AND next_step_at <= :now
    ORDER BY next_step_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
""")
_DUE_OF = text("""
    SELECT id, next_step_at FROM services
    WHERE customer_id = ANY(:customers) AND next_step = :step AND next_step_at <= :now
    FOR NO KEY UPDATE SKIP LOCKED
""")
_RECOMPUTATION = text("SELECT * FROM recomputations ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")
_RECOMPUTED = text("DELETE FROM recomputations WHERE id = :id")
_TURN_PAGE = text("UPDATE recomputations SET after = :after WHERE id = :id")
# Pages by id, so that it can continue where it stopped; there is no index by plan.
_PAGE = text("""
    SELECT (array_agg(id ORDER BY id DESC))[1], array_agg(id) FILTER (
        WHERE (state IN ('active', 'suspended') OR :ended)
          AND (CAST(:plans AS text[]) IS NULL OR plan = ANY(:plans))
          AND (CAST(:brand AS text) IS NULL OR brand = :brand)
          AND (CAST(:subsidiary AS text) IS NULL OR subsidiary = :subsidiary))
    FROM (
        SELECT id, state, plan, brand, subsidiary FROM services
        WHERE id > :after ORDER BY id LIMIT :limit
    ) AS page
""")
