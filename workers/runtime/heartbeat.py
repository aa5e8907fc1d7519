"""What a process does again and again beside its work, from one thread: it renews the leases of
what is still being worked on, and looks whether what it recorded is still there."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from producers import ledger
from producers.ledger import Claim
from producers.loop import Loop

STOP_SECONDS = 2.0


class Heartbeat:
    """
    Args:
        lease_seconds: how long a lease lasts; it is renewed four times as often.
    """

    def __init__(self, engine: Engine, lease_seconds: float) -> None:
        self._engine = engine
        self._lease = lease_seconds
        # Token -> when its lease was last known to be ours.
        self._held: dict[uuid.UUID, float] = {}
        self._looks: list[Callable[[Engine], None]] = []
        self._lock = threading.Lock()
        self._loop = Loop("heartbeat", self.round)
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        """End after the round it is in; a round that hangs is not waited for."""
        self._loop.stop()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(STOP_SECONDS)

    def also(self, look: Callable[[Engine], None]) -> None:
        """Call this, too, about as often as leases are renewed."""
        with self._lock:
            if look not in self._looks:
                self._looks.append(look)

    @contextmanager
    def holding(self, claim: Claim, since: float) -> Iterator[None]:
        self.hold(claim, since)
        try:
            yield
        finally:
            self.drop(claim)

    def hold(self, claim: Claim, since: float) -> None:
        """Renew the lease of a claim, until :meth:`drop` or until it is lost.

        Args:
            since: ``time.monotonic()`` before the claim was made: its lease is no younger.
        """
        with self._lock:
            self._held[claim.token] = since
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._loop.run, name="heartbeat", daemon=True
                )
                self._thread.start()

    def drop(self, claim: Claim) -> None:
        with self._lock:
            self._held.pop(claim.token, None)

    def is_held(self, claim: Claim) -> bool:
        """Whether the lease is still ours as far as is known: nothing is begun after it."""
        with self._lock:
            renewed_at = self._held.get(claim.token, float("-inf"))
        return time.monotonic() - renewed_at < self._lease

    def round(self) -> float:
        """Renew what was not renewed for a beat; returns the seconds until the next one."""
        beat = self._lease / 4
        started = time.monotonic()
        with self._lock:
            due = [token for token, at in self._held.items() if started - at >= beat]
            looks = list(self._looks)
        if due:
            with self._engine.begin() as tx:
                renewal = ledger.renew(tx, due, seconds=self._lease)
            with self._lock:
                for token in renewal.lost:  # rescued, or finished: never again held
                    self._held.pop(token, None)
                self._held |= dict.fromkeys(renewal.renewed & self._held.keys(), started)
        for look in looks:
            look(self._engine)
        return beat / 2
