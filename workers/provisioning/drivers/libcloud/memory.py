"""What this process has seen, where a provider keeps nothing of it. Bounded."""

import threading
import time
from collections import OrderedDict
from typing import Generic, TypeVar

from schemas.values import ServiceId
from workers.provisioning.drivers.port import Operation

MOST = 20_000

K = TypeVar("K")
V = TypeVar("V")


class _Latest(OrderedDict[K, V], Generic[K, V]):
    """The entries that were written last."""

    def put(self, key: K, value: V) -> None:
        self[key] = value
        self.move_to_end(key)
        while len(self) > MOST:
            self.popitem(last=False)


class Memory:
    """Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: _Latest[ServiceId, int] = _Latest()
        self._gone: _Latest[ServiceId, int] = _Latest()
        self._bodies: _Latest[str, str] = _Latest()
        self._absent_since: _Latest[tuple[ServiceId, int], float] = _Latest()

    def seen(self, service: ServiceId) -> int:
        """The newest generation that was asked for here."""
        return self._seen.get(service, 0)

    def gone(self, service: ServiceId) -> int | None:
        """The generation with which it was terminated here."""
        return self._gone.get(service)

    def body_of(self, key: str) -> str | None:
        return self._bodies.get(key)

    def begun(self, operation: Operation, body: str) -> None:
        with self._lock:
            newest = max(self._seen.get(operation.service_id, 0), operation.generation)
            self._seen.put(operation.service_id, newest)
            self._bodies.put(operation.key, body)

    def exists(self, service: ServiceId) -> None:
        with self._lock:
            self._gone.pop(service, None)

    def terminated(self, operation: Operation) -> None:
        with self._lock:
            self._gone.put(operation.service_id, operation.generation)

    def absent_for(self, operation: Operation) -> float:
        """Seconds since this operation first found nothing of its service."""
        which, now = (operation.service_id, operation.generation), time.monotonic()
        with self._lock:
            if which not in self._absent_since:
                self._absent_since.put(which, now)
            return now - self._absent_since[which]
