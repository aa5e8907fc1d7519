"""The folder in which the processes of a worker group keep their metrics."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "autorenew-metrics-"
_LOCK = "launcher.lock"
# A folder this young may belong to a launcher that has not locked it yet.
YOUNG_SECONDS = 60.0


@contextmanager
def metrics_folder() -> Iterator[str]:
    """A new folder, deleted at the end; so are those of launchers that were killed.

    A launcher holds a lock on its folder. The kernel releases it however the launcher ends.
    """
    _delete_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield str(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _delete_abandoned() -> None:
    for lock_file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{_LOCK}"):
        try:
            with lock_file.open("r+") as lock:
                found = os.fstat(lock.fileno())
                if found.st_uid != os.getuid() or time.time() - found.st_mtime < YOUNG_SECONDS:
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_file.parent, ignore_errors=True)
        except OSError:
            continue  # another launcher's, or deleted by one meanwhile
