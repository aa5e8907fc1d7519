"""Worker processes of a peer: started, waited for, and ended."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pika
from pika.exceptions import AMQPError

from workers.parent import end_with

ROOT = Path(__file__).parents[2]

# Celery says this of every SIGTERM, whatever its log level is.
ORDINARY = "Warm shutdown"


class Workers(subprocess.Popen[bytes]):
    """``python -m module arguments``, in a session of its own; start it from the main thread.

    What it says is kept and told when it has ended, so that tables stay readable.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        database_url: str,
        broker_url: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # Open until the workers have ended.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        settings = {"AUTORENEW_DATABASE_URL": database_url, "AUTORENEW_BROKER_URL": broker_url}
        super().__init__(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **settings, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,  # a terminal's Ctrl-C must not reach every process
            preexec_fn=partial(end_with, os.getpid(), signal.SIGTERM),
        )

    def wait_for_consumers(self, broker_url: str, queue: str, count: int) -> None:
        """Until so many read the queue: workers that still start up must not be measured.

        Raises:
            RuntimeError: the workers ended instead, or are not there after a minute.
        """
        deadline = time.monotonic() + 60
        while _consumers(broker_url, queue) < count:
            if self.poll() is not None or time.monotonic() > deadline:
                stop([self])
                raise RuntimeError(f"the workers of queue {queue} did not start")
            time.sleep(0.1)

    def tell(self) -> None:
        """Pass on what was said, to standard error."""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        self._said.close()
        for line in lines:
            if line.strip() and ORDINARY not in line:
                print(line, file=sys.stderr)


def stop(workers: Sequence[Workers], seconds: float = 60.0) -> None:
    """SIGTERM to each master, which lets its children finish what they run; wait for all."""
    for master in workers:
        if master.poll() is None:
            master.send_signal(signal.SIGTERM)
    for master in workers:
        try:
            master.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(master.pid, signal.SIGKILL)
            master.wait()
        master.tell()


def _consumers(broker_url: str, queue: str) -> int:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    try:
        answer = connection.channel().queue_declare(queue, passive=True)
        return int(answer.method.consumer_count)
    except AMQPError:  # not declared yet
        return 0
    finally:
        connection.close()
