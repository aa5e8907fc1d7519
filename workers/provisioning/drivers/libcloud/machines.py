"""What an operation is at a provider: look, do the one thing, look again. Blocking.

Every operation first writes its generation, its key and its date to the machine, so that one that
is older finds them, and then acts. Imports Libcloud.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum, auto
from typing import Any

from libcloud.compute.types import NodeState

from schemas.books import ResourceEntry
from schemas.values import ResourceState
from workers.outside.texts import cleaned
from workers.provisioning.drivers.details import told
from workers.provisioning.drivers.libcloud.call import acting, is_refused, made
from workers.provisioning.drivers.libcloud.families import (
    BODY,
    GENERATION,
    KEY,
    PAID_UNTIL,
    SERVICE,
    Family,
    name_of,
)
from workers.provisioning.drivers.libcloud.memory import Memory
from workers.provisioning.drivers.libcloud.settings import Machine, OptionRefused
from workers.provisioning.drivers.port import (
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)

DONE, IN_PROGRESS = DriverState.DONE, DriverState.IN_PROGRESS


class Phase(Enum):
    RUNS = auto()
    STOPPED = auto()
    CHANGES = auto()
    LEAVES = auto()
    GONE = auto()
    BROKEN = auto()


_PHASES = {
    NodeState.RUNNING: Phase.RUNS,
    NodeState.NORMAL: Phase.RUNS,
    NodeState.STOPPED: Phase.STOPPED,
    NodeState.SUSPENDED: Phase.STOPPED,
    NodeState.PAUSED: Phase.STOPPED,
    NodeState.TERMINATED: Phase.GONE,
    NodeState.ERROR: Phase.BROKEN,
}
_STATES = {Phase.RUNS: ResourceState.ACTIVE, Phase.STOPPED: ResourceState.SUSPENDED}


def phase_of(node: Any) -> Phase:
    if node.extra.get("status") == "shutting-down":
        return Phase.LEAVES
    return _PHASES.get(node.state, Phase.CHANGES)


@dataclass(frozen=True, slots=True)
class Found:
    """The machines of a service.

    Attributes:
        living: those that exist, the one that is kept first.
        left: those that are gone, or about to be, and still shown.
        generation: the newest that was seen.
    """

    living: list[Any]
    left: list[Any]
    generation: int

    @property
    def node(self) -> Any | None:
        return self.living[0] if self.living else None


def body_of(operation: Operation) -> str:
    """What an operation says, short: the same for the same words."""
    words = [
        str(operation.service_id),
        operation.kind,
        operation.generation,
        operation.customer,
        operation.plan,
        operation.configuration,
        operation.paid_until.isoformat(),
    ]
    said = json.dumps(words, sort_keys=True, default=str).encode()
    return hashlib.sha256(said).hexdigest()[:32]


class Machines:
    """
    Args:
        plans: what each plan is built as.
        late: seconds for which a create that was begun elsewhere may still arrive.
    """

    def __init__(
        self, family: Family, plans: dict[str, Machine], memory: Memory, late: float
    ) -> None:
        self._family = family
        self._plans = plans
        self._memory = memory
        self._late = late

    def ask(self, client: Any, operation: Operation) -> DriverAnswer:
        """What there is of a service; what changes by itself is in progress."""
        found = self._look(client, operation)
        node = found.node
        if node is None:
            if any(phase_of(one) is Phase.LEAVES for one in found.left):
                return DriverAnswer(IN_PROGRESS, reason="terminating")
            return DriverAnswer(DONE, Resource(None, ResourceState.ABSENT, found.generation))
        if operation.kind is OperationKind.TERMINATE and phase_of(node) not in _STATES:
            # However it is: it is not gone, and can be deleted.
            return DriverAnswer(DONE, self._resource(node, found, ResourceState.ACTIVE))
        return self._shown(node, found)

    def perform(self, client: Any, operation: Operation) -> DriverAnswer:
        found = self._look(client, operation)
        body = body_of(operation)
        if operation.generation < found.generation:
            return DriverAnswer(DriverState.STALE, reason="stale_generation")
        if self._is_reused(operation, found, body):
            return DriverAnswer(DriverState.REFUSED, reason="key_reused")
        kind = operation.kind
        if kind is OperationKind.TERMINATE:
            return self._terminate(client, operation, found, body)
        if found.node is None:
            if kind is not OperationKind.CREATE:
                return DriverAnswer(DriverState.REFUSED, reason="no_such_resource")
            return self._create(client, operation, body)
        if kind is OperationKind.CREATE:
            self._leave_one(client, found)
        return self._change(client, operation, found.node, body)

    def resources(self, client: Any) -> list[ResourceEntry]:
        """All that belong to services, sorted."""
        entries = []
        for node in self._family.ours(client):
            facts, phase = self._family.facts(node), phase_of(node)
            if phase not in (Phase.GONE, Phase.LEAVES):
                state = _STATES.get(phase, ResourceState.ACTIVE)
                until = _date(facts.get(PAID_UNTIL))
                entries.append(ResourceEntry(node.id, node.id, facts[SERVICE], state, until))
        return sorted(entries, key=lambda entry: entry.cursor)

    def _look(self, client: Any, operation: Operation) -> Found:
        service = operation.service_id
        nodes = self._family.of_service(client, service)
        named = operation.resource_id
        if named is not None and not any(node.id == named for node in nodes):
            node = self._family.by_id(client, named)
            if node is not None:
                owner = self._family.facts(node).get(SERVICE)
                if owner not in (None, str(service)):
                    raise OptionRefused("belongs_to_another_service")
                nodes = [*nodes, node]
        generations = [self._memory.seen(service), self._memory.gone(service) or 0]
        generations += [_number(self._family.facts(node).get(GENERATION)) for node in nodes]
        living = [n for n in nodes if phase_of(n) not in (Phase.GONE, Phase.LEAVES)]
        if living:
            self._memory.exists(service)
        left = [n for n in nodes if phase_of(n) in (Phase.GONE, Phase.LEAVES)]
        return Found(sorted(living, key=_age), left, max(generations))

    def _is_reused(self, operation: Operation, found: Found, body: str) -> bool:
        known = self._memory.body_of(operation.key)
        if known is None:
            for node in (*found.living, *found.left):
                facts = self._family.facts(node)
                if facts.get(KEY) == operation.key:
                    known = facts.get(BODY)
        return known not in (None, body)

    def _create(self, client: Any, operation: Operation, body: str) -> DriverAnswer:
        plan = self._plans.get(operation.plan)
        if plan is None:
            raise OptionRefused("no_machine_for_plan")
        machine = plan.ordered(operation.configuration)
        self._memory.begun(operation, body)
        with acting():
            self._family.create(
                client,
                machine,
                name_of(operation.service_id),
                operation.key,
                self._facts(operation, body),
            )
        made()
        found = self._look(client, operation)
        if found.node is None:  # not shown yet
            return DriverAnswer(IN_PROGRESS, reason="creating")
        self._leave_one(client, found)
        return self._ended(operation, found)

    def _leave_one(self, client: Any, found: Found) -> None:
        """Of several that were made at the same time, all but the oldest go."""
        for node in found.living[1:]:
            with acting():
                client.destroy_node(node)

    def _change(self, client: Any, operation: Operation, node: Any, body: str) -> DriverAnswer:
        phase = phase_of(node)
        if phase is Phase.BROKEN:
            return DriverAnswer(DriverState.REFUSED, reason="machine_in_error")
        self._memory.begun(operation, body)
        self._write(client, node, self._facts(operation, body))
        if phase is Phase.CHANGES:
            return DriverAnswer(IN_PROGRESS, reason=_changing(node))
        kind = operation.kind
        if kind is OperationKind.SUSPEND and phase is Phase.RUNS:
            with acting():
                client.stop_node(node)
        elif kind in (OperationKind.RESUME, OperationKind.CREATE) and phase is Phase.STOPPED:
            with acting():
                client.start_node(node)
        return self._ended(operation, self._look(client, operation))

    def _terminate(
        self, client: Any, operation: Operation, found: Found, body: str
    ) -> DriverAnswer:
        service = operation.service_id
        for node in found.living:
            self._memory.begun(operation, body)
            if phase_of(node) is not Phase.BROKEN:
                self._write(client, node, self._facts(operation, body))
            with acting():
                client.destroy_node(node)
        if found.living:
            found = self._look(client, operation)
            if found.living:
                return DriverAnswer(IN_PROGRESS, reason="terminating")
        if any(phase_of(node) is Phase.LEAVES for node in found.left):
            return DriverAnswer(IN_PROGRESS, reason="terminating")
        was_seen = found.left or self._memory.gone(service) is not None
        if not was_seen and (waits := self._late - self._memory.absent_for(operation)) > 0:
            # A create that was begun elsewhere may be on its way: look again when it cannot be.
            return DriverAnswer(IN_PROGRESS, reason="waiting_out_creates", retry_after=waits)
        for node in found.left:
            self._write_to_the_gone(client, node, self._facts(operation, body))
        self._memory.begun(operation, body)
        self._memory.terminated(operation)
        return DriverAnswer(DONE, Resource(None, ResourceState.ABSENT, operation.generation))

    def _ended(self, operation: Operation, found: Found) -> DriverAnswer:
        """What an operation that was sent has led to so far."""
        if found.generation > operation.generation:
            return DriverAnswer(DriverState.STALE, reason="stale_generation")
        if found.node is None:
            return DriverAnswer(IN_PROGRESS, reason="changing")
        answer = self._shown(found.node, found)
        wanted = {
            OperationKind.SUSPEND: ResourceState.SUSPENDED,
            OperationKind.EXTEND: answer.resource and answer.resource.state,
        }.get(operation.kind, ResourceState.ACTIVE)
        if answer.state is DONE and answer.resource and answer.resource.state is not wanted:
            return DriverAnswer(IN_PROGRESS, reason="changing")
        return answer

    def _shown(self, node: Any, found: Found) -> DriverAnswer:
        phase = phase_of(node)
        if phase is Phase.BROKEN:
            return DriverAnswer(DriverState.REFUSED, reason="machine_in_error")
        if phase not in _STATES:
            return DriverAnswer(IN_PROGRESS, reason=_changing(node))
        return DriverAnswer(DONE, self._resource(node, found, _STATES[phase]))

    def _resource(self, node: Any, found: Found, state: ResourceState) -> Resource:
        details = {"name": str(node.name)}
        if node.public_ips:
            details["address"] = str(node.public_ips[0])
        until = _date(self._family.facts(node).get(PAID_UNTIL))
        return Resource(node.id, state, found.generation, until, told(details))

    def _facts(self, operation: Operation, body: str) -> dict[str, str]:
        return {
            SERVICE: str(operation.service_id),
            GENERATION: str(operation.generation),
            PAID_UNTIL: operation.paid_until.isoformat(),
            KEY: operation.key,
            BODY: body,
        }

    def _write(self, client: Any, node: Any, facts: dict[str, str]) -> None:
        known = self._family.facts(node)
        if any(known.get(name) != value for name, value in facts.items()):
            with acting():
                self._family.write(client, node, facts)

    def _write_to_the_gone(self, client: Any, node: Any, facts: dict[str, str]) -> None:
        """So that creations that are older than this stay stale. A provider may refuse it."""
        try:
            self._write(client, node, facts)
        except Exception:
            if not is_refused():
                raise


def _age(node: Any) -> tuple[bool, datetime | None, str]:
    """By which of several is the oldest; two workers that look say the same."""
    made = node.created_at if isinstance(node.created_at, datetime) else None
    return made is None, made, node.id


def _changing(node: Any) -> str:
    return cleaned(str(node.extra.get("status") or node.state), 50)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else 0


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None
