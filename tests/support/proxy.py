"""A TCP proxy that spoils connections: what networks do between a worker and a far side."""

import contextlib
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable

IDLE_SECONDS = 0.2
Fault = Callable[["Connection"], None]


class Connection:
    """One connection through the proxy: the client is near, the server far.

    Attributes:
        over: set when the proxy is closed.
    """

    def __init__(self, near: socket.socket, to: int, over: threading.Event) -> None:
        self.near, self._to, self.over = near, to, over
        self._far: socket.socket | None = None

    @property
    def far(self) -> socket.socket:
        if self._far is None:
            self._far = socket.create_connection(("127.0.0.1", self._to))
        return self._far

    def carry_until_answered(self) -> bytes:
        """Hand on what the client says; returns the first bytes of the answer, empty if none."""
        while not self.over.is_set():
            for ready in select.select([self.near, self.far], [], [], IDLE_SECONDS)[0]:
                read = ready.recv(65536)
                if ready is self.far or not read:
                    return read
                self.far.sendall(read)
        return b""

    def close(self, *, reset: bool = False) -> None:
        for one in (self.near, self._far):
            if one is None:
                continue
            if reset:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()


def passes(connection: Connection) -> None:
    """Everything is handed on; a connection that is idle is closed, so that others are made."""
    near, far = connection.near, connection.far
    while ready := select.select([near, far], [], [], IDLE_SECONDS)[0]:
        for one in ready:
            read = one.recv(65536)
            if not read:
                return
            (far if one is near else near).sendall(read)


def loses_the_answer(connection: Connection) -> None:
    """The request arrives, and the connection ends before its answer."""
    connection.carry_until_answered()


def cuts_the_answer(connection: Connection) -> None:
    """The request arrives, and the connection is reset in the middle of its answer."""
    answer = connection.carry_until_answered()
    connection.near.sendall(answer[: len(answer) // 2])
    connection.close(reset=True)


def cuts_the_request(connection: Connection) -> None:
    """The request arrives without its end."""
    request = connection.near.recv(65536)
    while select.select([connection.near], [], [], 0.05)[0]:
        if not (more := connection.near.recv(65536)):
            break
        request += more
    connection.far.sendall(request[:-20])


def falls_silent(connection: Connection) -> None:
    """The request arrives; its answer does not, and the connection stays open."""
    connection.carry_until_answered()
    connection.over.wait(30)


def is_half_open(connection: Connection) -> None:
    """The connection is made, and nothing arrives at the other end."""
    connection.over.wait(30)


def trickles(connection: Connection) -> None:
    """The answer arrives byte by byte, for seconds."""
    answer = connection.carry_until_answered()
    for byte in answer:
        if connection.over.wait(0.01):
            return
        connection.near.sendall(bytes([byte]))


FAULTS = (
    loses_the_answer, cuts_the_answer, cuts_the_request, falls_silent, is_half_open, trickles,
)  # fmt: skip


class Proxy:
    """Stands before a port of this machine.

    Args:
        to: that port.
        script: what happens to one connection after the other; after that, all of them pass.

    Attributes:
        struck: how many connections met what.
    """

    def __init__(self, to: int, script: Iterable[Fault] = ()) -> None:
        self.struck: Counter[str] = Counter()
        self._to = to
        self._script = iter(script)
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def calm_down(self) -> None:
        """Let everything pass from now on."""
        self._script = iter(())

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                fault = next(self._script, passes)
                self.struck[fault.__name__] += 1
                threading.Thread(target=self._serve, args=(near, fault), daemon=True).start()

    def _serve(self, near: socket.socket, fault: Fault) -> None:
        connection = Connection(near, self._to, self._over)
        with contextlib.suppress(OSError):
            fault(connection)
        connection.close()
