"""Calls to the outside world, by the thousand: one event loop a process.

A message's tasks are claimed and begun by the thread that got the message, as soon as their lane
has room; the calls run on the loop, with no transaction open and no thread each; answers are
recorded in groups, as they arrive, not when the slowest is back.

A lane (a driver's, the gateway's, the mail server's) has a window of its own in each process, so
that a far side that hangs leaves the others their room. What finds no room goes back to the ledger,
for a process that has some.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from monitoring import metrics, tracing
from producers.ledger import Claim
from producers.relay.windows import most_claimed, tasks_in_message
from schemas import logs
from schemas.errors import first_line
from workers.runtime.handlers import OutsideHandler
from workers.runtime.heartbeat import Heartbeat

log = logging.getLogger(__name__)

A = TypeVar("A")


class LaneOpen(Exception):
    """It is not called: its far side fails, and nothing is wrong with it."""


# A message waits so long for room; a lane from which no answer has come for as long keeps nobody.
PATIENCE_SECONDS = 1.0
# Answers that arrive within this time of each other are recorded in one transaction.
RECORD_EVERY_SECONDS = 0.02
RECORDERS = 2


def run_now(call: Coroutine[Any, Any, A]) -> A:
    """The answer of a call that waits for nothing, without an event loop.

    Raises:
        RuntimeError: it waits for something.
    """
    try:
        call.send(None)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]
    call.close()
    raise RuntimeError("a port that says it answers at once waits for something")


@dataclass(slots=True)
class Batch:
    """Tasks that were claimed together, until the last of them is recorded."""

    handler: OutsideHandler[Any, Any]
    claim: Claim
    left: int
    traces: Mapping[UUID, Sequence[str]] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)
    # Seconds, of each task that was recorded.
    took: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answered:
    """One call's answer; ``error``: the defect that came instead of one; ``lines``: what was
    logged about it meanwhile."""

    batch: Batch
    subject: UUID
    call: Any
    answer: Any = None
    error: Exception | None = None
    lines: Sequence[str] = ()


def _traced(batch: Batch, subject: UUID) -> AbstractContextManager[str | None]:
    """A span around one call, in the trace of the order or the renewal it is for; of several, in
    that of the first, with links to the others."""
    if not tracing.is_on():
        return nullcontext()
    name = f"{batch.claim.queue}.{batch.handler.name} call"
    first, *others = batch.traces.get(subject) or (None,)
    links = [trace for trace in others if trace]
    return tracing.span(name, parent=first, links=links, lane=batch.claim.lane or None)


# Write the answers of one handler down, whatever claims they belong to. Never raises.
Record = Callable[[OutsideHandler[Any, Any], Sequence[Answered]], None]


@dataclass(slots=True)
class _Lane:
    """
    Attributes:
        at_once: calls under way.
        taken: tasks that are claimed, or about to be, and not recorded.
        waiting: messages that wait for room, in turn: none is overtaken until its patience ends.
        answered: what waits to be recorded.
        progressed_at: when a call last ended.
    """

    at_once: int
    room: asyncio.Semaphore
    taken: int = 0
    waiting: deque[object] = field(default_factory=deque)
    answered: list[Answered] = field(default_factory=list)
    recording: bool = False
    progressed_at: float = field(default_factory=time.monotonic)

    def has_room(self, wanted: int) -> bool:
        usual = tasks_in_message(self.at_once)
        return self.taken <= most_claimed(self.at_once) - min(wanted, usual)


class Calls:
    """All outside calls of a process; safe to share between threads.

    Args:
        at_once: calls under way in each lane, if its handler states no lower limit.
        is_open: whether a lane is open: but for a probe, nothing is called there.
        broken: called when no more calls can be made, because one has exited.
        ended: called when the last call of a claim is recorded, or nothing more will be.
    """

    def __init__(
        self,
        record: Record,
        heartbeat: Heartbeat,
        *,
        at_once: int,
        is_open: Callable[[str], bool] = lambda lane: False,
        broken: Callable[[], None] = lambda: None,
        ended: Callable[[Claim], None] = lambda claim: None,
    ) -> None:
        self._on_end = ended
        self._is_open = is_open
        self._record = record
        self._broken = broken
        self._heartbeat = heartbeat
        self._at_once = at_once
        self._lanes: dict[str, _Lane] = {}
        self._handlers: list[OutsideHandler[Any, Any]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: dict[UUID, Batch] = {}  # by the token of its claim
        self._ended = False
        self._recorders = ThreadPoolExecutor(RECORDERS, thread_name_prefix="record")
        # Started by the first call: a process that makes none needs none.
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None

    def reserve(self, lane: str, wanted: int, at_once: int | None = None) -> bool:
        """Room for ``wanted`` tasks in a lane; waits a moment for it.

        A message of a relay whose window is larger holds more than is usual: it is begun where
        a usual one finds room, and exceeds that, so that smaller ones do not starve it.

        Args:
            at_once: how many calls of this lane its handler can make at once.

        Returns:
            Whether they may be claimed now; False: the lane is full, or the process stops.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            found = self._lanes.get(lane)
            if found is None:
                limit = min(self._at_once, at_once or self._at_once)
                found = self._lanes[lane] = _Lane(limit, asyncio.Semaphore(limit))
            if self._running is None and not self._stopping:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._serve, args=(loop,), name="calls", daemon=True
                )
                thread.start()
                self._running = loop, thread
            if not found.taken:
                found.progressed_at = time.monotonic()
            turn = object()
            found.waiting.append(turn)
            try:
                while not (self._stopping or self._ended):
                    if found.waiting[0] is turn and found.has_room(wanted):
                        found.taken += wanted
                        return True
                    now = time.monotonic()
                    if now >= end or now - found.progressed_at > PATIENCE_SECONDS:
                        return False
                    self._changed.wait(end - now)
                return False
            finally:
                found.waiting.remove(turn)
                self._changed.notify_all()  # it is the next one's turn

    def give_back(self, lane: str, count: int) -> None:
        """Room that was reserved and is not needed; below 0: more was needed than was said."""
        if count:
            with self._changed:
                self._lanes[lane].taken -= count
                self._changed.notify_all()

    def start(
        self,
        lane: str,
        handler: OutsideHandler[Any, Any],
        claim: Claim,
        calls: Sequence[tuple[UUID, Any]],
        traces: Mapping[UUID, Sequence[str]] | None = None,
    ) -> None:
        """Make calls for tasks that were begun; ``claim`` holds just these. Returns at once.

        Args:
            traces: the trace contexts in which they are made.
        """
        if handler not in self._handlers:
            self._handlers.append(handler)
        batch = Batch(handler, claim, len(calls), traces or {})
        assert self._running is not None  # there is room only where it runs
        with self._changed:
            if self._ended:
                self._heartbeat.drop(claim)
                self._on_end(claim)
                return
            self._begun[claim.token] = batch
        self._running[0].call_soon_threadsafe(self._begin, lane, batch, calls)

    def stop(self) -> None:
        """Take nothing more; what is under way goes on."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self, seconds: float) -> bool:
        """Wait until what is under way is answered and recorded, then let connections go.

        Args:
            seconds: how long that may take. What is not answered by then is in doubt, and asked
                about by whoever takes it over once its lease has run out.

        Returns:
            Whether everything was.
        """
        self.stop()
        drained = True
        if self._running is not None:
            loop, thread = self._running
            drain = asyncio.run_coroutine_threadsafe(self._drain(seconds), loop)
            while not (drain.done() or self._ended):
                wait([drain], timeout=0.1)
            if drain.done():
                drained = drain.result()
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
            else:
                drained = False
                drain.cancel()
                thread.join()
                loop.run_until_complete(self._drain(0.0))
            loop.close()
            self._running = None
        self._recorders.shutdown(wait=drained, cancel_futures=True)
        return drained

    # From here on: on the loop's thread.

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """However the loop ends, nobody holds on to the leases of what it leaves: they run out."""
        try:
            loop.run_forever()
        except BaseException as error:  # a task that a port started has exited
            log.error("no more calls can be made in this process: %r", error, exc_info=True)
            self._broken()
        with self._changed:
            self._ended = True
            left, self._begun = list(self._begun.values()), {}
            self._changed.notify_all()
        for batch in left:
            self._heartbeat.drop(batch.claim)
            self._on_end(batch.claim)

    def _begin(self, lane: str, batch: Batch, calls: Sequence[tuple[UUID, Any]]) -> None:
        for subject, call in calls:
            self._run(self._call(lane, batch, subject, call))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, lane: str, batch: Batch, subject: UUID, call: Any) -> None:
        place = self._lanes[lane]
        async with place.room:
            if not self._heartbeat.is_held(batch.claim):
                # Somebody else may have taken it over: nothing leaves the house.
                error: Exception | None = TimeoutError("its lease ended before it was called")
                answered = Answered(batch, subject, call, error=error)
            elif self._is_open(batch.claim.lane) and not batch.claim.is_probe:
                error = LaneOpen(f"lane {batch.claim.lane} is open")
                answered = Answered(batch, subject, call, error=error)
            else:
                metrics.calls_under_way.labels(batch.handler.name).inc()
                try:
                    with logs.listening() as lines, _traced(batch, subject):
                        answer = await batch.handler.call(call)
                    answered = Answered(batch, subject, call, answer, lines=lines)
                except Exception as error:
                    answered = Answered(batch, subject, call, error=error)
                except BaseException as error:
                    if self._draining and isinstance(error, asyncio.CancelledError):
                        raise
                    # A port that cancels itself or exits: a defect of its own, not our end.
                    defect = RuntimeError(f"{type(error).__name__} from a call: {error}")
                    answered = Answered(batch, subject, call, error=defect)
                finally:
                    metrics.calls_under_way.labels(batch.handler.name).dec()
        place.progressed_at = time.monotonic()
        place.answered.append(answered)
        if not place.recording:
            place.recording = True
            self._run(self._record_answers(lane))

    async def _record_answers(self, lane: str) -> None:
        """What has been answered so far, and what is answered meanwhile."""
        place, loop = self._lanes[lane], asyncio.get_running_loop()
        await asyncio.sleep(RECORD_EVERY_SECONDS)
        while place.answered:
            answered, place.answered = place.answered, []
            by_handler: dict[int, list[Answered]] = {}
            for one in answered:
                by_handler.setdefault(id(one.batch.handler), []).append(one)
            for group in by_handler.values():
                try:
                    await loop.run_in_executor(
                        self._recorders, self._record, group[0].batch.handler, group
                    )
                except Exception as error:  # the leases will run out instead
                    log.error("cannot record: %s", first_line(error), exc_info=True)
            for one in answered:
                one.batch.left -= 1
                one.batch.took.append(time.monotonic() - one.batch.started_at)
                if not one.batch.left:
                    self._end(one.batch)
            self.give_back(lane, len(answered))
            if place.answered and len(place.answered) < tasks_in_message(place.at_once):
                await asyncio.sleep(RECORD_EVERY_SECONDS)  # a larger group costs hardly more
        place.recording = False

    def _end(self, batch: Batch) -> None:
        claim = batch.claim
        with self._changed:
            self._begun.pop(claim.token, None)
        self._heartbeat.drop(claim)
        took = time.monotonic() - batch.started_at
        metrics.task_seconds.labels(claim.queue, claim.name).observe(took)
        metrics.observe_many(metrics.tasks_took.labels(claim.queue, claim.name), batch.took)
        self._on_end(claim)

    async def _drain(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while any(lane.taken for lane in self._lanes.values()) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        is_drained = not any(lane.taken for lane in self._lanes.values())
        left = list(self._tasks)
        self._draining = True
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for handler in self._handlers:
            await handler.close()
        return is_drained
