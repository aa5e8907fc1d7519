"""Token buckets of keys: what each may ask for in a second, of all processes of a group together.

They are in memory that the processes of a group share, behind a lock of a file; of a process alone
they are its own. A bucket that has filled up again is as one that was never used, so its place is
free for another key: their number is bounded, and nothing has to be cleared away.
"""

import fcntl
import mmap
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PLACE = struct.Struct("<16sddd")  # key, rate, left, at
PLACES = 4096
# Where a key may be, from its own place on. If all of them are in use the fullest bucket goes.
_LOOKED_AT = 8
_BYTES = (PLACES + _LOOKED_AT) * _PLACE.size


class Buckets:
    """For all threads.

    Args:
        file: made by :meth:`make`; None: for this process alone.
        monotonic: of all processes of this host the same.
    """

    def __init__(
        self, file: Path | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()  # the kernel's lock is between processes, not threads
        self._monotonic = monotonic
        self._file = None if file is None else file.open("r+b")
        shared = -1 if self._file is None else self._file.fileno()
        self._memory = mmap.mmap(shared, _BYTES)

    @staticmethod
    def make(file: Path) -> None:
        """A file of buckets that are full."""
        file.write_bytes(bytes(_BYTES))

    def take(self, key: uuid.UUID, rate: int, cost: int = 1) -> float:
        """Take from what a key may ask for in a second.

        Args:
            rate: tokens a second, and how many its bucket holds; another one fills it.
            cost: tokens; more than there are is taken, too, and waited for the next time.

        Returns:
            0: go on; else after how many seconds to come again: then nothing was taken.
        """
        with self._alone():
            now = self._monotonic()
            place, left = self._find(key.bytes, rate, now)
            if left < 1:
                return (1 - left) / rate
            _PLACE.pack_into(self._memory, place, key.bytes, rate, left - cost, now)
            return 0.0

    def _find(self, key: bytes, rate: int, now: float) -> tuple[int, float]:
        """Where a key's bucket is or may be, and how many tokens are in it."""
        first = int.from_bytes(key[-4:], "big") % PLACES
        fullest, free = -1.0, 0
        for place in range(first, first + _LOOKED_AT):
            offset = place * _PLACE.size
            holder, of_holder, left, at = _PLACE.unpack_from(self._memory, offset)
            left = min(of_holder, left + (now - at) * of_holder)
            if holder == key:
                return offset, left if of_holder == rate else float(rate)
            fullness = left / of_holder if of_holder else 2.0
            if fullness > fullest:
                fullest, free = fullness, offset
        return free, float(rate)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            if self._file is None:
                yield
                return
            fcntl.lockf(self._file, fcntl.LOCK_EX)  # gone with its process, however that ends
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)
