"""The handler protocol: claim, work, finish; and what happens to what cannot be finished.

An actor's body catches everything and always acknowledges: the ledger decides what is tried
again, when, and what waits for a person.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from producers import ledger
from producers.control import own_clock
from producers.control.own_clock import WrongClock
from producers.failpoints import failpoint
from producers.ledger import Claim, LeaseLost, Outcome
from producers.ledger.dispatching import hand_back
from schemas.clock import Clock
from schemas.database import is_circumstance
from schemas.errors import first_line
from schemas.settings import Settings
from workers.outside import health
from workers.outside.calls import Answered, Calls, LaneOpen, run_now
from workers.outside.health import Breakers, Health, Verdict
from workers.runtime.handlers import DatabaseHandler, Handler, OutsideHandler, Witnessing
from workers.runtime.heartbeat import Heartbeat
from workers.runtime.retries import RetryPolicy, jittered
from workers.runtime.runs import Runs, with_lines
from workers.runtime.transactions import Transactions

log = logging.getLogger(__name__)

# What found no room is dispatched again after so long, perhaps to a process that has some: at once
# would only go in circles, and the longest is what a lane may stand idle when it has room again.
HANDED_BACK_SECONDS = 0.5
HANDED_BACK_LONGEST_SECONDS = 4.0
# More than a message ever names: a larger number is no message of ours.
MOST_TASKS = 5000


class Runtime:
    """Runs handlers for messages; shared by all threads of a process.

    Args:
        clock: with which this host's own is compared.
        broken: called when this process cannot work any more: no more calls can be made, or its
            host's clock is wrong. One that lives on hands all back, or claims nothing.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        clock: Clock,
        broken: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._broken = broken
        self._has_wrong_clock = False
        self._claiming = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._settings = settings
        slow = RetryPolicy(
            settings.retry_base_seconds, settings.retry_cap_seconds, settings.retry_attempts
        )
        self._transactions = Transactions(engine, slow)
        self._heartbeat = Heartbeat(engine, settings.lease_seconds)
        self._breakers = Breakers(engine, settings.breaker)
        self._runs = Runs(engine)
        self._calls = Calls(
            self._record,
            self._heartbeat,
            at_once=settings.calls_at_once,
            is_open=self._breakers.is_open,
            broken=broken,
            ended=self._runs.end,
        )
        self._end: float | None = None

    def stop(self) -> None:
        """Begin no more calls: what has no room is handed back. From here on
        ``shutdown_seconds`` run, for the threads of handlers and for calls together."""
        if self._end is None:
            self._end = time.monotonic() + self._settings.shutdown_seconds
        self._calls.stop()

    def close(self) -> None:
        """Finish the calls that are under way, as far as the time since :meth:`stop` lasts."""
        self.stop()
        assert self._end is not None
        if not self._calls.close(max(0.0, self._end - time.monotonic())):
            log.error("calls were still under way after %g s", self._settings.shutdown_seconds)
        self._heartbeat.stop()

    def handle(
        self,
        handler: Handler,
        queue: str,
        batches: Sequence[str],
        lane: str | None = None,
        size: int = 1,
    ) -> None:
        """One message: from claim to finish, or to the beginning of its calls. Never raises.

        Args:
            batches: the ids of the batches it names; one.
            lane: of its tasks; without one they share the lane of their step.
            size: how many tasks the batch has.
        """
        try:
            ids = [uuid.UUID(batch) for batch in batches]
        except (TypeError, ValueError, AttributeError):
            log.warning("%s.%s: refused a message that names no batch", queue, handler.name)
            return
        if not (type(size) is int and 0 < size <= MOST_TASKS and isinstance(lane, str | None)):
            log.warning("%s.%s: refused a message without a size or lane", queue, handler.name)
            return
        try:
            if not self._is_in_time():
                return
            if isinstance(handler, OutsideHandler) and not handler.immediate:
                self._take(handler, queue, ids, lane or f"{queue}.{handler.name}", size)
            else:
                self._work(handler, queue, ids)
        except SQLAlchemyError as error:
            log.warning("%s.%s: cannot claim: %s", queue, handler.name, first_line(error))
            time.sleep(1.0)  # the ledger rescues them; do not spin through the queue meanwhile

    def _is_in_time(self) -> bool:
        """Whether this host's clock is right; what it does not claim is rescued for others."""
        if self._has_wrong_clock:
            return False
        try:
            own_clock.check(self._clock, self._settings)
        except WrongClock as error:
            self._has_wrong_clock = True
            log.error("%s", error)
            self._broken()
            return False
        return True

    def _work(self, handler: Handler, queue: str, ids: list[uuid.UUID]) -> None:
        """Tasks of a step that waits for nothing outside."""
        started = time.monotonic()
        claim = self._claim(handler, queue, ids)
        if not claim.tasks:
            return
        self._runs.begin(claim)
        with self._heartbeat.holding(claim, started):
            try:
                if isinstance(handler, OutsideHandler):
                    self._call_inline(handler, claim, held_since=started)
                else:
                    self._run_inside(handler, claim)
            except LeaseLost as error:
                log.warning("%s", error)
            except Exception as error:
                self._put_back(claim, error)
                _do_not_spin(error)
        took = time.monotonic() - started
        metrics.task_seconds.labels(queue, handler.name).observe(took)
        metrics.observe_many(
            metrics.tasks_took.labels(queue, handler.name), [took] * len(claim.tasks)
        )
        self._runs.end(claim)

    def _take(
        self,
        handler: OutsideHandler[Any, Any],
        queue: str,
        ids: list[uuid.UUID],
        lane: str,
        size: int,
    ) -> None:
        """Claim and begin tasks as soon as their lane has room; they are called on the loop."""
        if not self._calls.reserve(lane, size, handler.at_once):
            with self._engine.begin() as tx:
                hand_back(
                    tx, ids, shortest=HANDED_BACK_SECONDS, longest=HANDED_BACK_LONGEST_SECONDS
                )
            metrics.handed_back.labels(queue, handler.name).inc(size)
            return
        begun = 0
        try:
            begun = self._begin_calls(handler, queue, ids, lane)
        finally:
            self._calls.give_back(lane, size - begun)

    def _begin_calls(
        self, handler: OutsideHandler[Any, Any], queue: str, ids: list[uuid.UUID], lane: str
    ) -> int:
        """Returns how many calls were begun."""
        started = time.monotonic()
        claim = self._claim(handler, queue, ids)
        if not claim.tasks:
            return 0
        run = self._runs.begin(claim)
        self._heartbeat.hold(claim, started)
        self._breakers.claimed(claim, started)
        calls: list[tuple[uuid.UUID, Any]] = []
        try:
            calls = self._begin(handler, claim, held_since=started)
        except LeaseLost as error:
            log.warning("%s", error)
        except Exception as error:
            self._put_back(claim, error)
            _do_not_spin(error)
        if not calls:
            self._runs.end(claim)
            self._heartbeat.drop(claim)
            if claim.is_probe:
                self._breakers.probe_again(claim.lane)
            return 0
        failpoint("worker.before_call")
        under_way = claim.subset(subject for subject, _ in calls)
        self._calls.start(lane, handler, under_way, calls, run.traces)
        return len(calls)

    def _claim(self, handler: Handler, queue: str, ids: Sequence[uuid.UUID]) -> Claim:
        failpoint("worker.before_claim")
        if isinstance(handler, Witnessing):
            handler.look(self._engine)
        seconds = self._settings.lease_seconds
        with self._claiming.connect() as tx:
            claim = ledger.claim(tx, handler.name, queue, ids, seconds=seconds)
        if claim.tasks:
            failpoint("worker.after_claim")
            metrics.batch_size.labels(queue, handler.name).observe(len(claim.tasks))
            metrics.observe_many(
                metrics.task_waited.labels(queue, handler.name),
                [max(0.0, task.waited) for task in claim.tasks],
            )
        return claim

    def _run_inside(self, handler: DatabaseHandler, claim: Claim) -> None:
        def finish(tx: Connection, part: Claim, outcome: Outcome) -> None:
            self._finish(tx, [part], outcome)
            failpoint("worker.before_finish")

        def done(outcome: Outcome) -> None:
            failpoint("worker.after_finish")
            self._count([claim], outcome)

        self._transactions.run(claim, handler.run, finish, done)

    def _begin(
        self, handler: OutsideHandler[Any, Any], claim: Claim, held_since: float
    ) -> list[tuple[uuid.UUID, Any]]:
        """Commit the attempts; returns the calls to make."""
        calls: dict[uuid.UUID, Any] = {}

        def begin(tx: Connection, part: Claim) -> Outcome:
            for subject in part.subjects:
                calls.pop(subject, None)  # of an attempt that was rolled back
            begun, outcome = handler.begin(tx, part)
            calls.update(begun)
            return outcome

        def finish(tx: Connection, part: Claim, outcome: Outcome) -> None:
            if time.monotonic() - held_since > self._settings.lease_seconds / 2:
                ledger.check_held(tx, part)  # before anything leaves the house
            ended = [e.subject for e in outcome.retries] + [e.subject for e in outcome.failures]
            for subject in ended:
                calls.pop(subject, None)  # of an attempt that was too slow to be committed
            if len(outcome):
                self._finish(tx, [part], outcome)

        self._transactions.run(claim, begin, finish, lambda outcome: self._count([claim], outcome))
        if calls:
            failpoint("worker.after_begin")
        return list(calls.items())

    def _call_inline(
        self, handler: OutsideHandler[Any, Any], claim: Claim, held_since: float
    ) -> None:
        calls = self._begin(handler, claim, held_since)
        if not calls:
            return
        failpoint("worker.before_call")
        answers = [(subject, call, run_now(handler.call(call))) for subject, call in calls]
        failpoint("worker.after_call")
        part = claim.subset(subject for subject, _ in calls)  # the others are finished
        with self._observed(handler, [(part, answers)]) as spared:
            try:
                self._record_claims(handler, [(part, answers)], spared)
            except LeaseLost as error:
                log.warning("%s", error)
            except Exception as error:
                self._put_back(part, error)
                _do_not_spin(error)

    def _record(self, handler: OutsideHandler[Any, Any], answered: Sequence[Answered]) -> None:
        """Write down what came back from the loop: at best in one transaction."""
        failpoint("worker.after_call")
        ordered = sorted(answered, key=lambda one: (one.batch.claim.token, str(one.error)))
        parts, defects = [], []
        lines = {one.subject: one.lines for one in answered if one.lines}
        for _, group in groupby(ordered, key=lambda one: (one.batch.claim.token, str(one.error))):
            ones = list(group)
            claim = ones[0].batch.claim.subset(one.subject for one in ones)
            if ones[0].error is None:
                parts.append((claim, [(one.subject, one.call, one.answer) for one in ones]))
            else:
                defects.append((claim, ones[0].error))
        with self._observed(handler, parts) as spared:
            is_recorded = self._record_parts(handler, parts, spared, lines)
        if not is_recorded:
            return  # the database is away: the leases run out
        for claim, error in defects:
            if not self._put_back(claim, error):
                return

    def _record_parts(
        self,
        handler: OutsideHandler[Any, Any],
        parts: Sequence[tuple[Claim, Sequence[tuple[uuid.UUID, Any, Any]]]],
        spared: Collection[uuid.UUID],
        lines: Mapping[uuid.UUID, Sequence[str]],
    ) -> bool:
        """Returns whether each is recorded or put back."""
        if not parts:
            return True
        try:
            self._record_claims(handler, parts, spared, lines)
            return True
        except Exception as error:
            if len(parts) == 1:
                return self._give_up(parts[0][0], error)
        # What is wrong with one claim harms no other.
        return all(self._record_parts(handler, [part], spared, lines) for part in parts)

    def _record_claims(
        self,
        handler: OutsideHandler[Any, Any],
        parts: Sequence[tuple[Claim, Sequence[tuple[uuid.UUID, Any, Any]]]],
        spared: Collection[uuid.UUID],
        lines: Mapping[uuid.UUID, Sequence[str]] | None = None,
    ) -> None:
        """Record answers to the calls of one or more claims, and finish those.

        Args:
            spared: subjects that failed because their lane is open.
            lines: what was logged about each while it was called.
        """
        first = parts[0][0]
        tasks = sorted((t for claim, _ in parts for t in claim.tasks), key=lambda t: t.subject)
        together = replace(first, tasks=tuple(tasks))
        by_subject = {answer[0]: answer for _, answers in parts for answer in answers}

        def record(tx: Connection, some: Claim) -> Outcome:
            outcome = handler.record(tx, some, [by_subject[subject] for subject in some.subjects])
            return health.spared(outcome, spared) if spared else outcome

        def finish(tx: Connection, _part: Claim, outcome: Outcome) -> None:
            self._finish(tx, [claim for claim, _ in parts], outcome, lines)
            failpoint("worker.before_finish")

        def done(outcome: Outcome) -> None:
            failpoint("worker.after_finish")
            self._count([claim for claim, _ in parts], outcome)

        self._transactions.run(together, record, finish, done)
        if isinstance(handler, Witnessing):
            self._remember(handler, [answer[1] for _, answers in parts for answer in answers])

    @contextmanager
    def _observed(
        self,
        handler: OutsideHandler[Any, Any],
        parts: Sequence[tuple[Claim, Sequence[tuple[uuid.UUID, Any, Any]]]],
    ) -> Iterator[set[uuid.UUID]]:
        """See what answers say of their lanes, once, and act on it after they are recorded; gives
        the subjects that failed for an open lane's sake."""
        verdicts: list[Verdict] = []
        spared: set[uuid.UUID] = set()
        for claim, answers in parts:
            seen: list[tuple[uuid.UUID, Health]] = []
            for subject, call, answer in answers:
                if (found := handler.health(call, answer)) is not None:
                    seen.append((subject, found))
            verdict = self._breakers.observe(claim, seen)
            verdicts.append(verdict)
            if verdict.is_open:
                spared |= {subject for subject, found in seen if not found.is_good}
        try:
            yield spared
        finally:  # what was answered was answered, whether or not it can be recorded
            for verdict in verdicts:
                self._breakers.act(verdict)

    def _remember(self, handler: Witnessing[Any], calls: Sequence[Any]) -> None:
        try:
            handler.after_record(self._engine, calls)
            self._heartbeat.also(handler.look)
        except SQLAlchemyError as error:  # it is recorded, whatever comes now
            log.warning("cannot look at what was recorded: %s", first_line(error))

    def _finish(
        self,
        tx: Connection,
        claims: Sequence[Claim],
        outcome: Outcome,
        lines: Mapping[uuid.UUID, Sequence[str]] | None = None,
    ) -> None:
        """
        Args:
            lines: what was logged about each task while it was called.
        """
        if outcome.retries or outcome.failures:
            attempts = {task.subject: task.attempts for claim in claims for task in claim.tasks}
            outcome = with_lines(outcome, attempts, lines or {})
        retries = [jittered(retry, random.random()) for retry in outcome.retries]
        ledger.finish_together(tx, claims, replace(outcome, retries=retries))

    def _give_up(self, claim: Claim, error: Exception) -> bool:
        if isinstance(error, LeaseLost):
            log.warning("%s", error)
            return True
        return self._put_back(claim, error)

    def _put_back(self, claim: Claim, error: Exception) -> bool:
        """Nothing is known to be wrong with these subjects: try again soon, count nothing.

        What was finished already is not ours any more and stays as it is.

        Returns:
            Whether that could be written down; else their leases run out.
        """
        known = _is_circumstance(error)
        # That a lane opened was said when it did.
        log.log(
            logging.DEBUG if isinstance(error, LaneOpen) else logging.WARNING,
            "%s: put %d back: %s", claim.name, len(claim.tasks), first_line(error),
            exc_info=None if known else error,
        )  # fmt: skip
        failed = 0
        try:
            with self._engine.begin() as tx:
                if known:
                    ledger.release(
                        tx, claim, reason="interrupted", error=first_line(error), delay=1.0
                    )
                else:  # a defect of ours: let the unfinished start count, the fifth is its last
                    failed = ledger.abandon(tx, claim, reason="defect", error=first_line(error))
        except SQLAlchemyError:
            log.warning("%s: the leases will run out instead", claim.name)
            return False
        outcome = "put_back" if known else "defect"
        metrics.tasks_ended.labels(claim.queue, claim.name, outcome).inc(len(claim.tasks))
        if failed:
            metrics.tasks_ended.labels(claim.queue, claim.name, "failed").inc(failed)
        return True

    def _count(self, claims: Sequence[Claim], outcome: Outcome) -> None:
        """How tasks of one step have ended, after the commit."""
        self._runs.add(claims, outcome)
        claim = claims[0]
        for label, number in (
            ("done", len(outcome.done)),
            ("again", len(outcome.again)),
            ("retried", len(outcome.retries)),
            ("failed", len(outcome.failures)),
        ):
            if number:
                metrics.tasks_ended.labels(claim.queue, claim.name, label).inc(number)


def _is_circumstance(error: Exception) -> bool:
    return is_circumstance(error) or isinstance(error, OSError | LaneOpen)


def _do_not_spin(error: Exception) -> None:
    """What failed by its circumstances comes back within a second; do not race through a queue."""
    if _is_circumstance(error):
        time.sleep(0.5)
