"""A process ends when its parent is gone (Linux only)."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: a child has nothing to look up.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with(parent: int, with_signal: signal.Signals) -> None:
    """Have the kernel signal this process when its parent dies; at once if it is dead already.

    Called right after a fork, before anything else is done: what a parent leaves behind goes on
    with its work, deaf to signals that only the parent passes on.

    Args:
        parent: the process that has forked, by its own ``os.getpid()``.
    """
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, int(with_signal))
    if os.getppid() != parent:  # it died between the fork and here, and the kernel told nobody
        os._exit(1)


def children_end_with_their_parent() -> None:
    """From now on whatever is forked is killed when its parent dies."""
    parent = os.getpid()

    def note() -> None:
        nonlocal parent
        parent = os.getpid()

    os.register_at_fork(before=note, after_in_child=lambda: end_with(parent, signal.SIGKILL))
