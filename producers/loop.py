"""The one shape of every background loop: a round, a wait, a round."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from monitoring import metrics
from schemas.database import is_circumstance
from schemas.errors import AutorenewError, first_line

log = logging.getLogger(__name__)

# A round that went well for this long before it failed counts as a success.
HEALTHY_SECONDS = 10.0
# Rounds that go well for this long end an outage.
STEADY_SECONDS = 1.0
REMIND_SECONDS = 600.0
DEFECT = "defect"
_OUTAGES = ("broker", "database", "system")


@dataclass(slots=True)
class _Outage:
    """Rounds that fail, one after the other.

    Attributes:
        state: what was wrong the last time.
        since, said_at, fine_since: by the monotonic clock; the last time that it was logged, and
            since when rounds go well.
    """

    state: str
    since: float
    said_at: float
    fine_since: float | None = None
    failures: int = 0


class Loop:
    """Runs rounds until stopped; no error of a round ends it.

    After an error it waits: ``first_pause`` seconds, twice as long after each further one, at most
    ``longest_pause``, less up to a half at random so that processes do not come back all at once.
    Each error counts in ``autorenew_loop_failures_total``. An outage is one line in the log when it
    begins, one every ten minutes while it lasts, and one when it is over; errors between them are
    logged at the level DEBUG. An error that nobody foresaw is logged with its traceback.

    Args:
        name: the loop's, in the log and as a label: ``relay``, ``scheduler``.
        round: does a round of work; returns how many seconds to wait until the next one.
        causes: exceptions to expect, and what each is called in the metric. Those of the database,
            of the operating system and of Autorenew itself need no entry.
        first_pause, longest_pause: seconds.
        meanwhile: called about every second while it waits.
    """

    def __init__(
        self,
        name: str,
        round: Callable[[], float],
        *,
        causes: Mapping[type[Exception], str] | None = None,
        first_pause: float = 0.1,
        longest_pause: float = 5.0,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        self._name = name
        self._round = round
        self._causes = causes or {}
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._meanwhile = meanwhile
        self._outage: _Outage | None = None
        self._is_stopping = False
        # Not an Event: its set() can deadlock in a signal handler that interrupts its wait().
        self._wake_up: SimpleQueue[None] = SimpleQueue()

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping

    def stop(self) -> None:
        """Have :meth:`run` return after the round it is in; from any thread or signal handler."""
        self._is_stopping = True
        self._wake_up.put(None)

    def run(self) -> None:
        """Work until :meth:`stop`."""
        failures = 0
        while not self._is_stopping:
            started = time.monotonic()
            try:
                pause = self._round()
                failures = 0
                self._end_outage()
            except Exception as error:
                if time.monotonic() - started >= HEALTHY_SECONDS:
                    failures = 0
                pause = self._pause_after(failures)
                failures += 1
                self._report(error, pause)
            self._wait(pause)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._is_stopping and (left := end - time.monotonic()) > 0:
            try:
                self._wake_up.get(timeout=min(left, 1.0) if self._meanwhile else left)
            except Empty:
                if self._meanwhile:
                    self._meanwhile()

    def _pause_after(self, failures: int) -> float:
        longest = min(self._first_pause * 2.0 ** min(failures, 30), self._longest_pause)
        return longest * random.uniform(0.5, 1.0)

    def _report(self, error: Exception, pause: float) -> None:
        cause, said, now = self._cause_of(error), first_line(error), time.monotonic()
        metrics.loop_failures.labels(self._name, cause).inc()
        # Of an outage the texts differ from one attempt to the next.
        state = cause if cause in _OUTAGES else said
        outage = self._outage
        lasts = cause in (*_OUTAGES, DEFECT, "configuration")  # and is no event of its own
        is_known = lasts and outage is not None and outage.state == state
        if outage is None:
            self._outage = outage = _Outage(state, now, now)
        outage.state, outage.fine_since, outage.failures = state, None, outage.failures + 1
        level = logging.ERROR if cause == DEFECT else logging.WARNING
        if is_known and now - outage.said_at < REMIND_SECONDS:
            level = logging.DEBUG
        else:
            outage.said_at = now
        log.log(
            level,
            "%s: %s; again in %.1f s",
            *(self._name, said, pause),
            exc_info=cause == DEFECT and level > logging.DEBUG,
        )

    def _end_outage(self) -> None:
        """After a round that went well; one that fails soon after belongs to the same outage."""
        outage, now = self._outage, time.monotonic()
        if outage is None:
            return
        if outage.fine_since is None:
            outage.fine_since = now
        if now - outage.fine_since >= STEADY_SECONDS:
            self._outage = None
            lasted = outage.fine_since - outage.since
            log.info(
                "%s: works again after %.1f s, %d failures", self._name, lasted, outage.failures
            )

    def _cause_of(self, error: Exception) -> str:
        for kind, cause in self._causes.items():
            if isinstance(error, kind):
                return cause
        if is_circumstance(error):
            return "database"
        if isinstance(error, AutorenewError):
            return error.code
        return "system" if isinstance(error, OSError) else DEFECT
