"""A TCP proxy that can fall silent: it stays open, takes connections, and says nothing."""

import contextlib
import socket
import threading


class Silence:
    """Stands before a port of this machine.

    Args:
        to: that port.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._speaks = threading.Event()
        self._speaks.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, name="silence", daemon=True).start()

    def fall_silent(self) -> None:
        self._speaks.clear()

    def speak(self) -> None:
        """Speak again; what was held back is delivered, late, as a network does."""
        self._speaks.set()

    def close(self) -> None:
        self._speaks.set()
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while read := source.recv(65536):
                self._speaks.wait()
                target.sendall(read)
        self._speaks.wait()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
