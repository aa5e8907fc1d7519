"""Several processes that accept from one socket, each started again when it ends or hangs.

The socket stays with this process: what is connected while a process is started again waits in its
queue, or is accepted by another one. Each process beats once a second from the thread that answers,
through a pipe; the first beat tells that it serves. At a stop the socket is closed here first, so
that nothing queues up for nobody; then each process gives the answers that are under way.
"""

import logging
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from monitoring import metrics
from schemas import logs
from schemas.errors import ConfigurationError
from schemas.settings import Settings
from workers.group_metrics import GroupMetrics
from workers.metrics_folder import metrics_folder
from workers.parent import end_with

log = logging.getLogger(__name__)

SOCKET = "AUTORENEW_GROUP_SOCKET"
BEATS = "AUTORENEW_GROUP_BEATS"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

# Whoever has not served by then, or not beaten for so long, is killed and started again.
START_SECONDS = 60.0
SILENT_SECONDS = 30.0
# A process that lived for less is started again after a pause, which doubles.
SHORT_LIFE_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
LOOK_SECONDS = 1.0
# What is left to a process beyond the time of its answers.
EXIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Membership:
    """What a process of a group was given by the one that started it."""

    listening: socket.socket
    folder: Path
    _beats: int

    @classmethod
    def of_environment(cls) -> "Membership | None":
        """None: this process is none of a group."""
        if SOCKET not in os.environ:
            return None
        listening = socket.socket(fileno=int(os.environ.pop(SOCKET)))
        beats = int(os.environ.pop(BEATS))
        os.set_blocking(beats, False)
        return cls(listening, Path(os.environ[FOLDER]), beats)

    def beat(self) -> None:
        """
        Raises:
            BrokenPipeError: the process that started this one is gone.
        """
        with suppress(BlockingIOError):  # it has not looked for a day
            os.write(self._beats, b".")


@dataclass(slots=True)
class _Member:
    """A process, and the next ones in its place."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    beats: int = -1
    serves: bool = False
    started_at: float = 0.0
    beaten_at: float = 0.0
    pause: float = 0.0
    start_at: float = 0.0


class WebGroup:
    """Keeps so many processes running until stopped.

    Args:
        command: of a process, which finds its :class:`Membership`.
        listening: what they accept from; closed here at the end.
        grace: seconds that answers under way may take at a stop.
        prepare: fills the folder that they share, before the first one is started.
    """

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str],
        *,
        listening: socket.socket,
        processes: int,
        grace: float,
        prepare: Callable[[Path], None] = lambda _folder: None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._command = list(command)
        self._listening = listening
        self._members = [_Member(number) for number in range(processes)]
        self._grace = grace
        self._prepare = prepare
        self._on_ready = on_ready
        self._has_served = False
        self._stopping = False
        self._wake_read, self._wake = os.pipe()
        self._folder = Path()
        self._metrics: GroupMetrics | None = None

    def stop(self) -> None:
        """Accept no more; from any thread, or from a signal handler."""
        self._stopping = True
        with suppress(OSError):
            os.write(self._wake, b".")

    def run(self) -> int:
        """Run until :meth:`stop`.

        Returns:
            An exit code: 0 if all answers were given in time; 1 if not, or if a process could not
            begin to serve.
        """
        with metrics_folder() as folder:
            self._folder = Path(folder)
            self._prepare(self._folder)
            self._metrics = GroupMetrics(self._folder, self._running)
            registry = CollectorRegistry()
            registry.register(self._metrics)
            metrics.serve(self._settings, registry=registry)
            try:
                self._keep()
            except ConfigurationError as error:
                log.error("%s", error)
                self._drain()
                return 1
            return 0 if self._drain() else 1

    def _keep(self) -> None:
        """
        Raises:
            ConfigurationError: a process ended before any could serve.
        """
        while not self._stopping:
            now = time.monotonic()
            for member in self._members:
                if member.process is None and now >= member.start_at:
                    self._start(member)
            self._look()
            for member in self._members:
                if member.process is not None:
                    self._check(member, time.monotonic())
            if not self._has_served and all(member.serves for member in self._members):
                self._has_served = True
                self._on_ready()

    def _look(self) -> None:
        """Until a process beats or ends, or it is time to look at them."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        of = {m.beats: m for m in self._members if m.process is not None}
        for beats in of:
            poll.register(beats, select.POLLIN)
        pause = min(
            [m.start_at - time.monotonic() for m in self._members if m.process is None],
            default=LOOK_SECONDS,
        )
        for beats, _ in poll.poll(max(0.0, min(pause, LOOK_SECONDS)) * 1000):
            if beats not in of:
                continue
            if os.read(beats, 4096):
                of[beats].beaten_at = time.monotonic()
                of[beats].serves = True
            else:  # it has closed its end: it is about to end, or has
                self._ended(of[beats])

    def _check(self, member: _Member, now: float) -> None:
        assert member.process is not None
        longest = SILENT_SECONDS if member.serves else START_SECONDS
        if now - member.beaten_at > longest:
            log.error(
                "process %d answers nothing for %g s: killed, and started again",
                member.process.pid,
                longest,
            )
            member.process.kill()
            self._ended(member)

    def _ended(self, member: _Member) -> None:
        """
        Raises:
            ConfigurationError: it ended before any could serve.
        """
        process = member.process
        assert process is not None
        assert self._metrics is not None
        if self._stopping:
            return
        try:
            code = process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        member.process = None
        os.close(member.beats)
        self._metrics.bury(process.pid)
        if not self._has_served and not member.serves:
            raise ConfigurationError(f"a process ended with code {code} before it could serve")
        self._metrics.restarted()
        now = time.monotonic()
        is_short = now - member.started_at < SHORT_LIFE_SECONDS
        member.pause = min(max(FIRST_PAUSE, 2 * member.pause), LONGEST_PAUSE) if is_short else 0.0
        member.start_at = now + member.pause
        member.serves = False
        log.warning(
            "process %d ended with code %d: started again in %g s", process.pid, code, member.pause
        )

    def _start(self, member: _Member) -> None:
        member.beats, beats = os.pipe()
        listening = self._listening.fileno()
        environment = os.environ | {
            SOCKET: str(listening),
            BEATS: str(beats),
            FOLDER: str(self._folder),
            "AUTORENEW_LOG_FORMAT": logs.chosen(self._settings.log_format),
        }
        try:
            member.process = subprocess.Popen(
                self._command,
                env=environment,
                pass_fds=(listening, beats),
                start_new_session=True,  # a terminal's Ctrl-C must not reach every process
                preexec_fn=partial(end_with, os.getpid(), signal.SIGTERM),
            )
        finally:
            os.close(beats)
        member.started_at = member.beaten_at = time.monotonic()

    def _running(self) -> list[tuple[str, int]]:
        """This process, and those that serve, by number."""
        return [
            ("supervisor", os.getpid()),
            *((str(m.number), m.process.pid) for m in self._members if m.process is not None),
        ]

    def _drain(self) -> bool:
        """Whether all processes ended by themselves, in time."""
        self._listening.close()
        running = [m.process for m in self._members if m.process is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        ends, drained = time.monotonic() + self._grace + EXIT_SECONDS, True
        for process in running:
            try:
                # One that was only just started has no handler for the signal yet.
                code = process.wait(max(0.1, ends - time.monotonic()))
                drained &= code in (0, -signal.SIGTERM)
            except subprocess.TimeoutExpired:
                log.error("process %d has not ended in time: killed", process.pid)
                process.kill()
                process.wait()
                drained = False
        return drained
