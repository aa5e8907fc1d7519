"""One call in a thread: its deadline, whether it may have changed something, its sockets.

Libcloud's timeout is of each wait for the network, not of a call: a server that sends a byte a
minute would hold a thread for ever. So at the deadline the sockets of the call are shut, whatever
waits for them gets an error, and its thread is free again.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from workers.outside.http import NotSent

_of_this_thread = threading.local()


class Call:
    """
    Attributes:
        began: a thread has taken it.
        touched: something may have been changed by it.
        acted: the last request was to change something.
        made: a machine was made; what comes after says nothing of that.
        status: of the last answer; None: there was none.
        retry_after: seconds for which the last answer asks to be left alone.
        body: the last answer's.
    """

    def __init__(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds
        self.began = False
        self.touched = False
        self.acted = False
        self.made = False
        self.status: int | None = None
        self.retry_after: float | None = None
        self.body = b""
        self._acts = False
        self._lock = threading.Lock()
        self._is_cut = False
        self._sockets: dict[int, socket.socket] = {}  # by the number of what each is a copy of

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Requests in here change something."""
        self._acts = True
        try:
            yield
        finally:
            self._acts = False

    @contextmanager
    def request(self) -> Iterator[float]:
        """One request; gives the seconds that are left for it.

        Raises:
            NotSent: the deadline has passed: nothing leaves any more.
        """
        left = self.ends_at - time.monotonic()
        if left <= 0 or self._is_cut:
            raise NotSent("no_time", "the deadline has passed")
        before = self.touched
        self.acted = self._acts
        self.touched = before or self._acts
        self.status = self.retry_after = None
        try:
            yield left
        except NotSent:
            self.touched = before
            raise
        if self._acts and self.status is not None and 400 <= self.status < 500:
            self.touched = before  # a definite no

    def answered(self, status: int, retry_after: float | None, body: bytes) -> None:
        self.status, self.retry_after, self.body = status, retry_after, body

    def watch(self, connection: socket.socket) -> None:
        """Shut this one, too, at the deadline."""
        with self._lock:
            number = connection.fileno()
            if number < 0:
                return
            if number in self._sockets:
                self._sockets.pop(number).close()
            # A copy of its own: the original may be wrapped, closed, and its number used anew.
            copy = socket.socket(fileno=os.dup(number))
            self._sockets[number] = copy
            if self._is_cut:
                _shut(copy)

    def cut(self) -> None:
        """End it: from any thread, without waiting."""
        with self._lock:
            self._is_cut = True
            for one in self._sockets.values():
                _shut(one)

    def __enter__(self) -> "Call":
        _of_this_thread.call = self
        return self

    def __exit__(self, *_: object) -> None:
        _of_this_thread.call = None
        with self._lock:
            for one in self._sockets.values():
                one.close()
            self._sockets.clear()


def current() -> Call | None:
    """The call that this thread makes."""
    call: Call | None = getattr(_of_this_thread, "call", None)
    return call


def acting() -> AbstractContextManager[None]:
    """Requests of this thread in here change something."""
    call = current()
    return nullcontext() if call is None else call.acting()


def made() -> None:
    """The call of this thread has made the machine that it was to make."""
    call = current()
    if call is not None:
        call.made = True


def is_refused() -> bool:
    """The last request of this thread was answered with a definite no."""
    call = current()
    return call is not None and call.status is not None and 400 <= call.status < 500


def watch(connection: socket.socket | None) -> None:
    """Shut it at the deadline of the call that this thread makes."""
    call = current()
    if call is not None and connection is not None:
        call.watch(connection)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is not connected any more
        pass
