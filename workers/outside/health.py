"""Whether a far side answers as it should: what a circuit breaker goes by.

A breaker belongs to a lane. Each process watches the answers to its own calls; one that sees a lane
fail opens it for the whole fleet (``producers.control.breakers``). Its tasks then wait, without
using up attempts; one at a time goes out as a probe, and the first answered one closes the lane.
"""

import logging
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from producers.control import breakers
from producers.ledger import Claim, Failure, Outcome, Retry
from schemas.errors import first_line
from schemas.settings import BreakerSettings
from schemas.values import OpenCause
from workers.outside.retry_after import MOST_SECONDS

log = logging.getLogger(__name__)

# Of the last answers, twice as many as have to be bad, the share of bad ones that opens a lane.
SHARE = 0.8
# So many different subjects must have met them: one that always fails closes nobody else's door.
SUBJECTS = 3
# A far side that asks for less than a moment, such as with ``Retry-After: 0``, is not called in a
# circle.
LEAST_RETRY_AFTER_SECONDS = 1.0
# What was claimed before a lane opened, and waits for room, is not called for so long at most.
# Nothing else is claimed there: who opened it need not remember it for longer.
HELD_BACK_SECONDS = 60.0
# What failed because of an open lane is ready again after this long, and waits there for the lane.
BACK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Health:
    """What an answer says of the far side as a whole.

    Attributes:
        reason: why it is bad, in the words of its port.
        retry_after: seconds for which the far side asks not to be called at all.
    """

    is_good: bool
    reason: str = ""
    retry_after: float | None = None


GOOD = Health(True)


class Action(Enum):
    NONE = "none"
    OPEN = "open"
    OPEN_LONGER = "open longer"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What answers mean for their lane.

    Attributes:
        is_open: the lane is open by now: what has failed there is not its tasks' fault.
    """

    lane: str
    queue: str
    is_open: bool
    action: Action = Action.NONE
    reason: str = ""
    retry_after: float | None = None


@dataclass(slots=True)
class _Watched:
    """
    Attributes:
        open_until: what was claimed before is not called until then.
        opened: by this process, and not known to be written down.
        written_at: when it was.
        asked_until: when the longest wait ends that the far side has asked for.
    """

    answers: deque[tuple[uuid.UUID, bool]]
    open_until: float = 0.0
    opened: Verdict | None = None
    written_at: float | None = None
    asked_until: float = 0.0

    def close(self) -> None:
        self.open_until, self.opened, self.written_at, self.asked_until = 0.0, None, None, 0.0

    def asks_for_more(self, seconds: float | None, now: float) -> bool:
        """Whether a wait is longer than those that were asked for before."""
        if seconds is None or now + seconds < self.asked_until + LEAST_RETRY_AFTER_SECONDS:
            return False
        self.asked_until = now + seconds
        return True


class Breakers:
    """The breakers of the lanes that a process calls; safe to share between threads."""

    def __init__(self, engine: Engine, settings: BreakerSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._lanes: dict[str, _Watched] = {}
        self._lock = threading.Lock()

    def is_open(self, lane: str) -> bool:
        """Whether this process has just opened it: what it has claimed before is not called."""
        with self._lock:
            watched = self._lanes.get(lane)
            return watched is not None and time.monotonic() < watched.open_until

    def claimed(self, claim: Claim, since: float) -> None:
        """Take note of a claim: one that is no probe, of a lane that this process has opened, says
        that somebody has closed it meanwhile: a probe of another process, or a person.

        Args:
            since: the monotonic time before it was claimed.
        """
        if claim.is_probe:
            return
        with self._lock:
            watched = self._lanes.get(claim.lane)
            if watched and watched.written_at is not None and watched.written_at < since:
                watched.close()

    def observe(self, claim: Claim, answers: Iterable[tuple[uuid.UUID, Health]]) -> Verdict:
        """Take note of answers to calls of a claim; :meth:`act` on it once they are recorded."""
        seen = list(answers)
        bad = [health for _, health in seen if not health.is_good]
        asked = _asked(bad)
        reason = bad[-1].reason if bad else ""
        lane, queue = claim.lane, claim.queue
        with self._lock:
            watched = self._lanes.get(lane)
            if watched is None:
                window = deque[tuple[uuid.UUID, bool]](maxlen=2 * self._settings.failures)
                watched = self._lanes[lane] = _Watched(window)
            if claim.is_probe and seen:
                watched.answers.clear()
                if not bad:
                    watched.close()
                    return Verdict(lane, queue, False, Action.CLOSE)
                return Verdict(lane, queue, True, Action.OPEN_LONGER, reason, asked)
            if time.monotonic() < watched.open_until:
                if watched.asks_for_more(asked, time.monotonic()):
                    return Verdict(lane, queue, True, Action.OPEN, reason, asked)
                # What could not be written down is tried again.
                return watched.opened or Verdict(lane, queue, True)
            watched.answers.extend((subject, health.is_good) for subject, health in seen)
            if asked is None and not self._fails(watched.answers):
                return Verdict(lane, queue, False)
            watched.answers.clear()
            watched.asks_for_more(asked, time.monotonic())
            held_back = max(self._settings.seconds, min(asked or 0.0, HELD_BACK_SECONDS))
            watched.open_until = time.monotonic() + held_back
            watched.opened = Verdict(lane, queue, True, Action.OPEN, reason, asked)
            watched.written_at = None
            return watched.opened

    def _fails(self, answers: Sequence[tuple[uuid.UUID, bool]]) -> bool:
        bad = [subject for subject, is_good in answers if not is_good]
        return (
            len(answers) >= self._settings.failures
            and len(bad) >= SHARE * len(answers)
            and len(set(bad)) >= SUBJECTS
        )

    def act(self, verdict: Verdict) -> None:
        """Open or close a lane; in a transaction of its own. What cannot be written down is found
        anew by the next answers."""
        try:
            self._act(verdict)
        except SQLAlchemyError as error:
            log.warning("lane %s: cannot open or close it: %s", verdict.lane, first_line(error))

    def probe_again(self, lane: str) -> None:
        """A probe needed no call after all: the next one may go at once."""
        try:
            with self._engine.begin() as tx:
                breakers.probe_now(tx, lane)
        except SQLAlchemyError as error:
            log.warning("lane %s: %s", lane, first_line(error))

    def _act(self, verdict: Verdict) -> None:
        lane, first, cap = verdict.lane, self._settings.seconds, self._settings.cap_seconds
        asked = verdict.retry_after
        match verdict.action:
            case Action.OPEN:
                cause = OpenCause.FAILING if asked is None else OpenCause.ASKED
                with self._engine.begin() as tx:
                    is_new = breakers.open_lane(
                        tx, lane, verdict.queue, cause, verdict.reason,
                        seconds=first if asked is None else asked,
                    )  # fmt: skip
                self._is_written(lane)
                if is_new:
                    log.error("lane %s is open: %s", lane, verdict.reason)
                    metrics.breaker.labels(lane, "opened").inc()
            case Action.OPEN_LONGER:
                with self._engine.begin() as tx:
                    breakers.open_longer(
                        tx, lane, verdict.reason, first=first, cap=cap, asked=asked
                    )
                metrics.breaker.labels(lane, "probe_failed").inc()
            case Action.CLOSE:
                with self._engine.begin() as tx:
                    was_open = breakers.close_lane(tx, lane)
                if was_open:
                    log.warning("lane %s is closed again", lane)
                    metrics.breaker.labels(lane, "closed").inc()
            case Action.NONE:
                pass

    def _is_written(self, lane: str) -> None:
        with self._lock:
            watched = self._lanes[lane]
            if watched.opened is not None:
                watched.opened, watched.written_at = None, time.monotonic()


def _asked(bad: Iterable[Health]) -> float | None:
    """For how long a far side asks not to be called, in seconds; None: it does not.

    Of drivers and gateways of others, too: what is no length of time says nothing.
    """
    asked = [
        one.retry_after for one in bad
        if one.retry_after is not None and not math.isnan(one.retry_after) and one.retry_after > 0
    ]  # fmt: skip
    if not asked:
        return None
    return min(max(*asked, LEAST_RETRY_AFTER_SECONDS), MOST_SECONDS)


def spared(outcome: Outcome, bad: Iterable[uuid.UUID]) -> Outcome:
    """The outcome of calls in a lane that is open: what failed there is back soon, and does not
    use up an attempt."""
    away = set(bad)
    retries: list[Retry] = []
    failures: list[Failure] = []
    for retry in outcome.retries:
        if retry.subject in away:
            retry = replace(retry, delay=BACK_SECONDS, counts=False, jitter=False)
        retries.append(retry)
    for failure in outcome.failures:
        if failure.subject in away:
            retries.append(
                Retry(
                    failure.subject, failure.reason, failure.error, delay=BACK_SECONDS,
                    counts=False, code=failure.code,
                )
            )  # fmt: skip
        else:
            failures.append(failure)
    return replace(outcome, retries=retries, failures=failures)
