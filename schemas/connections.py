"""A connection to PostgreSQL that waits for no answer for ever.

A server or a proxy that stays open and says nothing is noticed neither by PostgreSQL's own timeouts
nor by TCP keepalives. One thread of a process looks at all waits, and cuts one that is overdue.
"""

import select
import socket
import threading
import time
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakSet

import psycopg
from psycopg.abc import PQGen

R = TypeVar("R")

# PostgreSQL is given this long to give a statement up by itself, beyond its ``statement_timeout``.
GRACE_SECONDS = 5.0
# How often a wait looks for a Ctrl-C; psycopg's own default.
WAIT_INTERVAL = 0.1
_LOOK_SECONDS = 0.5
# Nobody says so much to an idle connection that is to be used again.
MOST_READS = 20


class ServerSilent(psycopg.OperationalError):
    """No answer came in time; the connection is lost, and whether the statement ran is unknown."""


class Connection(psycopg.Connection[Any]):
    """
    Attributes:
        seconds: how long an answer may take.
        usual_seconds: the same, if nothing else was said for a transaction.
        is_direct: no pooler is between; None: not known yet.
        disposals: how often its engine had been disposed of when it was opened.
    """

    seconds = usual_seconds = 30.0
    is_direct: bool | None = None
    disposals: int = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting_since = 0.0
        self._is_cut = False
        # Its own, so that it is never another one's that got the same number.
        self._socket = socket.socket(fileno=socket.dup(self.pgconn.socket))
        _watch.add(self)

    def wait(
        self, gen: PQGen[R], interval: float = WAIT_INTERVAL, timeout: float | None = None
    ) -> R:
        self._waiting_since = monotonic()
        try:
            return psycopg.Connection.wait(self, gen, interval, timeout)
        except psycopg.OperationalError:
            if self._is_cut:
                raise ServerSilent(
                    f"the database has not answered for {self.seconds:g} s"
                ) from None
            raise
        finally:
            self._waiting_since = 0.0

    def is_lost(self) -> bool:
        """Whether the other end has closed it while it lay idle: what a restart leaves behind.

        Asks nobody, so that it costs a microsecond. A server that has vanished is not noticed.
        """
        for _ in range(MOST_READS):
            readable = select.poll()
            readable.register(self._socket, select.POLLIN)
            if not readable.poll(0):
                return False
            try:
                self.pgconn.consume_input()  # a notice, or the reason why it is closed
            except psycopg.Error:
                return True
        return True

    def close(self) -> None:
        super().close()
        self._socket.close()

    def cut_if_overdue(self, now: float) -> None:
        """Shut the socket of a wait that takes too long; for another thread than the one that
        waits. A wait that ends at this moment loses its connection, too."""
        since = self._waiting_since
        if since and now - since >= self.seconds and not self._is_cut:
            self._is_cut = True
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _Watch:
    """The thread that looks, started with the first connection, anew after a fork."""

    def __init__(self) -> None:
        self._connections: WeakSet[Connection] = WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, connection: Connection) -> None:
        with self._lock:
            self._connections.add(connection)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="database watch", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            with self._lock:
                connections = list(self._connections)
            now = monotonic()
            for connection in connections:
                connection.cut_if_overdue(now)
            del connections


_watch = _Watch()
