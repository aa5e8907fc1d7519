"""That a process of the fleet is there: a row of its own, written seldom.

The exporter counts them. Nothing depends on them: a process works on, whatever becomes of its row.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from functools import cache
from importlib import metadata

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from schemas.errors import first_line

log = logging.getLogger(__name__)

BEAT_SECONDS = 15.0
# Rows of processes that are gone stay for so long: when a relay was last seen can be told.
KEEP = "1 day"

_BEAT = text("UPDATE processes SET beat_at = clock_timestamp() WHERE id = :id")
_BEGIN = text("""
    INSERT INTO processes (id, process, queues, version, host, pid)
    VALUES (:id, :process, :queues, :version, :host, :pid)
""")
_END = text("UPDATE processes SET ended_at = clock_timestamp() WHERE id = :id")
_FORGET = text(f"DELETE FROM processes WHERE beat_at < clock_timestamp() - interval '{KEEP}'")


@cache
def version() -> str:
    """Of the release that runs."""
    return metadata.version("autorenew")


class Presence:
    """One process's row.

    Args:
        engine: as the database role of the process.
        process: what it is: ``worker``, ``relay``, ``scheduler``, ``intake``, ``api``, ``pages``,
            ``console``, ``exporter``.
        queues: those it works on.
    """

    def __init__(self, engine: Engine, process: str, queues: Sequence[str] = ()) -> None:
        self._engine = engine
        self._id = uuid.uuid4()
        self._process = process
        self._queues = list(queues)
        self._next = 0.0
        self._begun = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """Say so, if it is time to; never raises for the database's sake."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + BEAT_SECONDS
        try:
            with self._engine.begin() as tx:
                if self._begun and tx.execute(_BEAT, {"id": self._id}).rowcount:
                    return
                tx.execute(_FORGET)
                tx.execute(
                    _BEGIN,
                    {
                        "id": self._id,
                        "process": self._process,
                        "queues": self._queues,
                        "version": version(),
                        "host": socket.gethostname(),
                        "pid": os.getpid(),
                    },
                )
            self._begun = True
        except SQLAlchemyError as error:
            log.debug("cannot say that this process is there: %s", first_line(error))

    def keep(self) -> "Presence":
        """Beat from a thread of its own until :meth:`end`: for who has no rounds."""
        self._thread = threading.Thread(target=self._keep, name="presence", daemon=True)
        self._thread.start()
        return self

    def end(self) -> None:
        """The process stops; not said by one that is killed."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(BEAT_SECONDS)
        if not self._begun:
            return
        try:
            with self._engine.begin() as tx:
                tx.execute(_END, {"id": self._id})
        except SQLAlchemyError as error:
            log.debug("cannot say that this process ends: %s", first_line(error))

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self.beat()
            self._stopping.wait(BEAT_SECONDS)
