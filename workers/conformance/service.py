"""One service as its driver sees it, for the suite of drivers."""

import time
import uuid
from collections.abc import Mapping
from datetime import date
from typing import Any

from schemas.books import ResourceEntry
from schemas.values import ResourceState, ServiceId
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import (
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)

# How often what is in progress is asked about, in seconds.
POLL_SECONDS = 0.02
MARCH, APRIL = date(2026, 3, 2), date(2026, 4, 2)


class Service:
    """A service with an id of its own; every operation has a key of its own.

    What takes long is waited for, as the fleet does: asked about, and then sent again under its
    key.

    Args:
        facts: of its operations; what is left out has a default.
        patience: seconds within which everything that was begun must have ended.
    """

    def __init__(
        self, driver: Waiting, facts: Mapping[str, Any] | None = None, patience: float = 10.0
    ) -> None:
        self.id = ServiceId(uuid.uuid4())
        self._driver = driver
        self._facts = facts or {}
        self._patience = patience

    def does(self, kind: OperationKind, generation: int, **changes: Any) -> DriverAnswer:
        return self.perform(self.operation(kind, generation, **changes))

    def perform(self, operation: Operation) -> DriverAnswer:
        """The answer once nothing of it is in progress."""
        end = time.monotonic() + self._patience
        answer: DriverAnswer = self._driver.perform(operation)
        while answer.state is DriverState.IN_PROGRESS:
            assert time.monotonic() < end, "still in progress"
            self.ask(end)
            answer = self._driver.perform(operation)
        return answer

    def ask(self, end: float | None = None) -> DriverAnswer:
        """What there is of it, once nothing of it is in progress."""
        end = end or time.monotonic() + self._patience
        while True:
            answer: DriverAnswer = self._driver.ask(self.operation(OperationKind.CREATE, 1))
            if answer.state is not DriverState.IN_PROGRESS:
                return answer
            assert time.monotonic() < end, "still in progress"
            time.sleep(POLL_SECONDS)

    def operation(self, kind: OperationKind, generation: int, **changes: Any) -> Operation:
        facts: dict[str, Any] = {
            "key": str(uuid.uuid4()),
            "customer": "c-1",
            "plan": "web-perso",
            "configuration": {"domain": "example.com"},
            "paid_until": MARCH,
        }
        facts |= {**self._facts, **changes}
        return Operation(kind=kind, generation=generation, service_id=self.id, **facts)

    @property
    def state(self) -> ResourceState:
        return self.resource.state

    @property
    def resource(self) -> Resource:
        answer = self.ask()
        assert answer.state is DriverState.DONE
        assert answer.resource is not None
        resource: Resource = answer.resource
        return resource


def whole(driver: Waiting) -> list[ResourceEntry]:
    """What exists, page by page."""
    entries: list[ResourceEntry] = []
    while page := driver.resources(entries[-1].cursor if entries else None):
        entries += page
    return entries
