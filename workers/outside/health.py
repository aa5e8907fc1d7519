"""Whether a far side answers as it should: what a circuit breaker goes by.

A breaker belongs to a lane. Each process watches the answers to its own calls; one that sees a lane
fail opens it for the whole fleet (``producers.control.breakers``). Its tasks then wait, without
using up attempts; one at a time goes out as a probe, and the first answered one closes the lane.
"""

import logging
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

log = logging.getLogger(__name__)

# Of the last answers, twice as many as have to be bad, the share of bad ones that opens a lane.
SHARE = 0.8
# So many different subjects must have met them: one that always fails closes nobody else's door.
SUBJECTS = 3
# A far side that asks for more is asked again after this long all the same.
MOST_RETRY_AFTER_SECONDS = 3600.0
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
    answers: deque[tuple[uuid.UUID, bool]]
    open_until: float = 0.0


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

    def observe(self, claim: Claim, answers: Iterable[tuple[uuid.UUID, Health]]) -> Verdict:
        """Take note of answers to calls of a claim; :meth:`act` on it once they are recorded."""
        seen = list(answers)
        bad = [health for _, health in seen if not health.is_good]
        asked = max((h.retry_after for h in bad if h.retry_after is not None), default=None)
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
                    watched.open_until = 0.0
                    return Verdict(lane, queue, False, Action.CLOSE)
                return Verdict(lane, queue, True, Action.OPEN_LONGER, reason, asked)
            if time.monotonic() < watched.open_until:
                return Verdict(lane, queue, True)
            watched.answers.extend((subject, health.is_good) for subject, health in seen)
            if asked is None and not self._fails(watched.answers):
                return Verdict(lane, queue, False)
            watched.answers.clear()
            watched.open_until = time.monotonic() + max(self._settings.seconds, asked or 0.0)
        return Verdict(lane, queue, True, Action.OPEN, reason, asked)

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
        asked = None if verdict.retry_after is None else min(
            max(verdict.retry_after, 0.0), MOST_RETRY_AFTER_SECONDS
        )  # fmt: skip
        match verdict.action:
            case Action.OPEN:
                cause = OpenCause.FAILING if asked is None else OpenCause.ASKED
                with self._engine.begin() as tx:
                    is_new = breakers.open_lane(
                        tx, lane, verdict.queue, cause, verdict.reason,
                        seconds=first if asked is None else asked,
                    )  # fmt: skip
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
