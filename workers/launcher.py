"""Starts a group of Dramatiq worker processes, and restarts it when it ends.

Dramatiq ends the whole group when one of its processes dies. SIGTERM is sent to the group's master
only, which lets running handlers finish. A second SIGTERM, or one to every process, kills them.
"""

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from monitoring import metrics
from producers.loop import Loop
from schemas import logs
from schemas.settings import Settings
from workers.group_metrics import GroupMetrics, children_of, is_zombie
from workers.metrics_folder import metrics_folder
from workers.parent import end_with

log = logging.getLogger(__name__)

# How long Dramatiq may take to end its processes once the handlers' time is over.
EXIT_SECONDS = 5.0
# How long a stop may go unnoticed while a group is being started.
WAIT_SECONDS = 1.0
# How long Dramatiq waits for its processes to be ready, deaf to signals; 30 by its own default. Its
# master forks nothing of ours that would have to wait for them.
START_SECONDS = 5.0


class WorkerGroupEnded(Exception):
    """The group ended although nobody stopped it."""


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    """Until it has ended, or some time is over. ``Popen.wait`` looks 20 times a second."""
    if not hasattr(os, "pidfd_open"):  # not Linux
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        return
    try:
        ended = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.poll(WAIT_SECONDS * 1000)
    finally:
        os.close(ended)


class Launcher:
    """Keeps one group of worker processes running until stopped.

    Args:
        check: called before a group is started; what it raises puts that off.
        own: metrics of this process, which are served beside those of the group.
    """

    def __init__(
        self,
        settings: Settings,
        queues: Sequence[str],
        *,
        processes: int,
        threads: int,
        check: Callable[[], None] = lambda: None,
        own: Sequence[Collector] = (),
    ) -> None:
        self._settings = settings
        self._own = own
        self._check = check
        self._queues = queues
        self._processes = processes
        self._threads = threads
        self._metrics_folder = ""
        self._group: subprocess.Popen[bytes] | None = None
        self._loop = Loop(
            "worker", self._run_group, causes={WorkerGroupEnded: "crashed"}, first_pause=0.5
        )

    def stop(self) -> None:
        """Drain: the group finishes the handlers that run."""
        if not self._loop.is_stopping:
            self._loop.stop()
            if self._group is not None and self._group.poll() is None:
                self._group.send_signal(signal.SIGTERM)

    def run(self) -> int:
        """Run until :meth:`stop`.

        Returns:
            An exit code: 0 if the group was drained in time, else 1.
        """
        with metrics_folder() as self._metrics_folder:
            self._metrics = GroupMetrics(Path(self._metrics_folder), self._running)
            registry = CollectorRegistry()
            for collector in (self._metrics, *self._own):
                registry.register(collector)
            metrics.serve(self._settings, registry=registry)
            self._loop.run()
            return self._drained()

    def _run_group(self) -> float:
        """Run one group until it ends, or until :meth:`stop`.

        Raises:
            WorkerGroupEnded: it ended by itself.
        """
        self._check()
        self._group = self._start()
        if self._loop.is_stopping:  # stop() came while the group was being started
            self._group.send_signal(signal.SIGTERM)
        lost: set[int] = set()
        while not self._loop.is_stopping:
            _wait_for(self._group)
            code = self._group.poll()
            if code is None:
                lost = self._end_if_crippled(self._group, lost)
                continue
            if not self._loop.is_stopping:
                self._metrics.bury()
                self._metrics.restarted()
                self._group = None  # nothing to drain until the next one is started
                raise WorkerGroupEnded(f"the worker group ended with code {code}")
        return 0.0

    @staticmethod
    def _end_if_crippled(group: subprocess.Popen[bytes], before: set[int]) -> set[int]:
        """Dramatiq waits for a process that dies before all of them are ready, deaf to signals, and
        may go on without it for ever.

        Args:
            before: processes that had died by the last look; it has had the time to notice them.

        Returns:
            Those that have by now.
        """
        children = set(children_of(group.pid))
        lost = {pid for pid in children if is_zombie(pid)}
        if lost & before:
            log.warning("a worker process died while its group was starting: starting it anew")
            # If none is left there is nothing to drain.
            group.send_signal(signal.SIGKILL if lost == children else signal.SIGTERM)
        return lost

    def _running(self) -> list[tuple[str, int]]:
        """The processes of the group: itself, Dramatiq's master, and workers by number."""
        processes = [("launcher", os.getpid())]
        group = self._group
        if group is not None:
            processes.append(("master", group.pid))
            processes += [(str(n), pid) for n, pid in enumerate(children_of(group.pid))]
        return processes

    def _drained(self) -> int:
        if self._group is None:
            return 0
        try:
            limit = self._settings.shutdown_seconds + EXIT_SECONDS
            # One that was only just started has no handler for the signal yet, and no work.
            return 0 if self._group.wait(limit) in (0, -signal.SIGTERM) else 1
        except subprocess.TimeoutExpired:
            log.error("not drained within %g s: killed", limit)
            self._group.kill()
            return 1

    def _start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "AUTORENEW_QUEUES": ",".join(self._queues),
            "AUTORENEW_THREADS": str(self._threads),
            "PROMETHEUS_MULTIPROC_DIR": self._metrics_folder,
            "AUTORENEW_LOG_FORMAT": logs.chosen(self._settings.log_format),
        }
        command = [
            *(sys.executable, "-m", "workers.group", "workers.fleet:broker"),
            *("--processes", str(self._processes), "--threads", str(self._threads)),
            *("--queues", *self._queues),
            "--skip-logging",
            *("--worker-fork-timeout", str(int(START_SECONDS * 1000))),
            "--worker-shutdown-timeout",
            str(int(self._settings.shutdown_seconds * 1000)),
        ]
        return subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C must not reach every process
            preexec_fn=partial(end_with, os.getpid(), signal.SIGTERM),
        )
