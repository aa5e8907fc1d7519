"""The handler protocol: claim, work, finish; and what happens to what cannot be finished.

An actor's body catches everything and always acknowledges: the ledger decides what is tried
again, when, and what waits for a person.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from producers import ledger
from producers.failpoints import failpoint
from producers.ledger import Claim, Failure, LeaseLost, Outcome, Retry
from schemas.database import is_circumstance, is_data_error
from schemas.errors import AutorenewError, DataError
from schemas.settings import Settings

log = logging.getLogger(__name__)

C = TypeVar("C")  # what is called
A = TypeVar("A")  # what is answered

# Answers that arrive within this time of each other are recorded in one transaction.
RECORD_EVERY_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, until a person decides."""

    base: float
    cap: float
    attempts: int

    def decide(
        self, task: ledger.ClaimedTask, reason: str, error: str, random: float
    ) -> Retry | Failure:
        """What becomes of a task that failed once more; ``random`` is uniform in [0, 1)."""
        if task.attempts + 1 >= self.attempts:
            return Failure(task.subject, reason, error)
        ceiling = min(self.cap, self.base * 2 ** min(task.attempts, 30))
        return Retry(task.subject, reason, error, delay=random * ceiling)


class DatabaseHandler(Protocol):
    """A step inside the database: one transaction holds a whole batch."""

    name: str

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        """Do the step for every subject; raises for a batch that holds a bad one."""
        ...


@runtime_checkable
class OutsideHandler(Protocol[C, A]):
    """A step with the outside world. No transaction is open while it calls."""

    name: str
    immediate: bool
    """Answers at once in this process: a batch is called inline, without threads."""

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, C]], Outcome]:
        """Write the attempts down; returns the calls to make and what needs none."""
        ...

    def call(self, call: C) -> A:
        """One call, under its deadline. Faults of the far side are answers, not exceptions."""
        ...

    def record(
        self, tx: Connection, claim: Claim, answers: Sequence[tuple[uuid.UUID, C, A]]
    ) -> Outcome:
        """Write outcomes down as they arrive, with their effects and follow-ups."""
        ...


Handler = DatabaseHandler | OutsideHandler[Any, Any]


class Runtime:
    """Runs handlers for messages; shared by all threads of a process."""

    def __init__(self, engine: Engine, settings: Settings, threads: int = 1) -> None:
        self._engine = engine
        self._settings = settings
        self._calls = ThreadPoolExecutor(
            threads * settings.calls_at_once, thread_name_prefix="call"
        )
        self._heartbeat = Heartbeat(engine, settings.lease_seconds)

    def close(self) -> None:
        self._heartbeat.stop()
        self._calls.shutdown(wait=False, cancel_futures=True)

    def handle(
        self,
        handler: Handler,
        queue: str,
        subjects: Sequence[str],
    ) -> None:
        """One message, from claim to finish. Never raises."""
        started = time.monotonic()
        try:
            ids = [uuid.UUID(subject) for subject in subjects]
        except (TypeError, ValueError, AttributeError):
            log.warning("%s.%s: refused a message that names no subjects", queue, handler.name)
            return
        try:
            failpoint("worker.before_claim")
            with self._engine.begin() as tx:
                claim = ledger.claim(
                    tx, handler.name, queue, ids, seconds=self._settings.lease_seconds
                )
        except SQLAlchemyError as error:
            log.warning("%s.%s: cannot claim: %s", queue, handler.name, _line(error))
            time.sleep(1.0)  # the ledger rescues them; do not spin through the queue meanwhile
            return
        if not claim.tasks:
            return
        failpoint("worker.after_claim")
        metrics.batch_size.labels(queue, handler.name).observe(len(claim.tasks))
        metrics.task_waited.labels(queue, handler.name).observe(
            max(0.0, max(task.waited for task in claim.tasks))
        )
        with self._heartbeat.holding(claim):
            self._work(handler, claim, held_since=started)
        metrics.task_seconds.labels(queue, handler.name).observe(time.monotonic() - started)

    def _work(self, handler: Handler, claim: Claim, *, held_since: float) -> None:
        try:
            if isinstance(handler, OutsideHandler):
                self._run_outside(handler, claim, held_since)
            else:
                self._run_inside(handler, claim)
        except LeaseLost as error:
            log.warning("%s", error)
        except Exception as error:
            self._put_back(claim, error)

    def _run_inside(self, handler: DatabaseHandler, claim: Claim) -> None:
        with self._engine.begin() as tx:
            outcome = self._bisect(tx, claim, lambda part: handler.run(tx, part))
            ledger.finish(tx, claim, outcome)
            failpoint("worker.before_finish")
        failpoint("worker.after_finish")
        self._count(claim, outcome)

    def _bisect(self, tx: Connection, claim: Claim, run: Callable[[Claim], Outcome]) -> Outcome:
        """Run a batch; if its data is at fault, halve it until the bad one is alone."""
        try:
            with tx.begin_nested():
                return run(claim)
        except Exception as error:
            if not _is_subjects_fault(error):
                raise
            if len(claim.tasks) == 1:
                task = claim.tasks[0]
                log.warning("%s %s failed: %s", claim.name, task.subject, _line(error))
                reason = error.code if isinstance(error, AutorenewError) else "data"
                return Outcome(failures=[Failure(task.subject, reason, _line(error))])
        middle = len(claim.tasks) // 2
        halves = claim.subjects[:middle], claim.subjects[middle:]
        whole = Outcome()
        for half in halves:
            part = self._bisect(tx, claim.subset(half), run)
            whole.done += part.done
            whole.again += part.again
            whole.retries += part.retries
            whole.failures += part.failures
        return whole

    def _run_outside(self, handler: OutsideHandler[C, A], claim: Claim, held_since: float) -> None:
        calls: list[tuple[uuid.UUID, C]] = []

        def begin(part: Claim) -> Outcome:
            begun, outcome = handler.begin(tx, part)
            calls.extend(begun)
            return outcome

        with self._engine.begin() as tx:
            outcome = self._bisect(tx, claim, begin)
            if time.monotonic() - held_since > self._settings.lease_seconds / 2:
                ledger.check_held(tx, claim)  # before anything leaves the house
            if len(outcome):
                ledger.finish(tx, claim, outcome)
        self._count(claim, outcome)
        if not calls:
            return
        failpoint("worker.after_begin")
        for answers in self._answers(handler, calls):
            failpoint("worker.after_call")
            # Only these: the other calls are still under way.
            part = claim.subset(answer[0] for answer in answers)
            try:
                self._record(handler, part, answers)
            except LeaseLost as error:
                log.warning("%s", error)
            except Exception as error:
                self._put_back(part, error)

    def _answers(
        self, handler: OutsideHandler[C, A], calls: list[tuple[uuid.UUID, C]]
    ) -> Iterator[list[tuple[uuid.UUID, C, A]]]:
        """Make the calls; yield their answers in groups, as they arrive."""
        failpoint("worker.before_call")
        if handler.immediate:
            yield [(subject, call, handler.call(call)) for subject, call in calls]
            return
        asked: dict[Future[A], tuple[uuid.UUID, C]] = {
            self._calls.submit(handler.call, call): (subject, call) for subject, call in calls
        }
        pending = set(asked)
        while pending:
            _, pending = wait(pending, return_when=FIRST_COMPLETED)
            if pending:
                _, pending = wait(pending, timeout=RECORD_EVERY_SECONDS)
            answered = [future for future in asked if future not in pending]
            yield [(*asked.pop(future), future.result()) for future in answered]

    def _record(
        self,
        handler: OutsideHandler[C, A],
        claim: Claim,
        answers: Sequence[tuple[uuid.UUID, C, A]],
    ) -> None:
        by_subject = {answer[0]: answer for answer in answers}
        with self._engine.begin() as tx:
            outcome = self._bisect(
                tx,
                claim,
                lambda some: handler.record(tx, some, [by_subject[s] for s in some.subjects]),
            )
            ledger.finish(tx, claim, outcome)
            failpoint("worker.before_finish")
        failpoint("worker.after_finish")
        self._count(claim, outcome)

    def _put_back(self, claim: Claim, error: Exception) -> None:
        """Nothing is known to be wrong with these subjects: try again soon, count nothing.

        What was finished already is not ours any more and stays as it is.
        """
        known = is_circumstance(error) or isinstance(error, OSError)
        log.warning(
            "%s: put %d back: %s", claim.name, len(claim.tasks), _line(error), exc_info=not known
        )
        metrics.tasks_ended.labels(claim.queue, claim.name, "put_back").inc(len(claim.tasks))
        try:
            with self._engine.begin() as tx:
                if known:
                    ledger.release(tx, claim, reason="interrupted", error=_line(error), delay=1.0)
                else:  # a defect of ours: let the unfinished start count, it ends as crashed
                    ledger.abandon(tx, claim, reason="defect", error=_line(error))
        except SQLAlchemyError:
            log.warning("%s: the leases will run out instead", claim.name)
        time.sleep(0.5 if known else 0.0)

    @staticmethod
    def _count(claim: Claim, outcome: Outcome) -> None:
        for label, number in (
            ("done", len(outcome.done)),
            ("again", len(outcome.again)),
            ("retried", len(outcome.retries)),
            ("failed", len(outcome.failures)),
        ):
            if number:
                metrics.tasks_ended.labels(claim.queue, claim.name, label).inc(number)


class Heartbeat:
    """Renews the leases of what is still being worked on, from one thread per process."""

    def __init__(self, engine: Engine, lease_seconds: float) -> None:
        self._engine = engine
        self._lease = lease_seconds
        self._held: dict[uuid.UUID, Claim] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[None]:
        with self._lock:
            self._held[claim.token] = claim
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(claim.token, None)

    def _loop(self) -> None:
        seen: set[uuid.UUID] = set()
        while not self._stopping.wait(self._lease / 4):
            with self._lock:
                held = dict(self._held)
            for token, claim in held.items():
                if token not in seen:
                    continue  # younger than one beat
                try:
                    with self._engine.begin() as tx:
                        ledger.renew(tx, claim, seconds=self._lease)
                except Exception as error:  # the next beat may do better; none would not
                    log.warning("heartbeat: %s", _line(error))
            seen = set(held)


def _is_subjects_fault(error: Exception) -> bool:
    return isinstance(error, DataError) or is_data_error(error)


def _line(error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else repr(error)
