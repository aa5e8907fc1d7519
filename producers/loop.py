"""The one shape of every background loop: a round, a wait, a round."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue

from monitoring import metrics
from schemas.database import is_circumstance
from schemas.errors import AutorenewError, first_line

log = logging.getLogger(__name__)

# A round that went well for this long before it failed counts as a success.
HEALTHY_SECONDS = 10.0
DEFECT = "defect"


class Loop:
    """Runs rounds until stopped; no error of a round ends it.

    After an error it waits: ``first_pause`` seconds, twice as long after each further one, at most
    ``longest_pause``, less up to a half at random so that processes do not come back all at once.
    Each error is one line in the log and one in ``autorenew_loop_failures_total``. An error that
    nobody foresaw is logged with its traceback.

    Args:
        name: the loop's, in the log and as a label: ``relay``, ``scheduler``.
        round: does a round of work; returns how many seconds to wait until the next one.
        causes: exceptions to expect, and what each is called in the metric. Those of the database,
            of the operating system and of Autorenew itself need no entry.
        first_pause, longest_pause: seconds.
    """

    def __init__(
        self,
        name: str,
        round: Callable[[], float],
        *,
        causes: Mapping[type[Exception], str] | None = None,
        first_pause: float = 0.1,
        longest_pause: float = 5.0,
    ) -> None:
        self._name = name
        self._round = round
        self._causes = causes or {}
        self._first_pause = first_pause
        self._longest_pause = longest_pause
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
            except Exception as error:
                if time.monotonic() - started >= HEALTHY_SECONDS:
                    failures = 0
                pause = self._pause_after(failures)
                failures += 1
                self._report(error, pause)
            self._wait(pause)

    def _wait(self, seconds: float) -> None:
        if seconds > 0 and not self._is_stopping:
            try:
                self._wake_up.get(timeout=seconds)
            except Empty:
                pass

    def _pause_after(self, failures: int) -> float:
        longest = min(self._first_pause * 2.0 ** min(failures, 30), self._longest_pause)
        return longest * random.uniform(0.5, 1.0)

    def _report(self, error: Exception, pause: float) -> None:
        cause = self._cause_of(error)
        metrics.loop_failures.labels(self._name, cause).inc()
        log.log(
            logging.ERROR if cause == DEFECT else logging.WARNING,
            "%s: %s; again in %.1f s",
            *(self._name, first_line(error), pause),
            exc_info=cause == DEFECT,
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
