"""Free TCP ports on the loopback interface."""

import random
import socket


def free_port() -> int:
    """A port that is free now, below the kernel's range of ephemeral ports."""
    start = random.randrange(20_000, 30_000)
    for port in range(start, 32_000):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no free port between {start} and 32000")


_given: set[int] = set()
