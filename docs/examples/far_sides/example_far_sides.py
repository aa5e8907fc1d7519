"""A gateway that keeps its book in a file, and a driver for which a service is a folder.

Nobody would sell this; it shows all that a gateway and a driver have to do.
"""

import asyncio
import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.books import BookEntry, ResourceEntry
from schemas.values import Money, ResourceState
from workers.billing.gateways.port import Charge, GatewayAnswer, GatewayState, Refund
from workers.provisioning.drivers.port import (
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)


@contextmanager
def _kept(path: Path) -> Iterator[dict[str, Any]]:
    """What a file remembers, held by one process at a time and written back at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        held = json.loads(file.read() or "{}")
        yield held
        file.seek(0)
        file.truncate()
        json.dump(held, file)


class LedgerFileGateway:
    """Every charge succeeds and is a line of a file; a refund as far as its charge goes."""

    class Settings(BaseModel):
        path: Path

    immediate = False

    def __init__(self, name: str, settings: Settings) -> None:
        self._path = settings.path

    async def perform(self, operation: Charge | Refund) -> GatewayAnswer:
        # Files wait: not on the event loop, where all other calls of the process are.
        return await asyncio.to_thread(self._perform, operation)

    async def ask(self, operation: Charge | Refund) -> GatewayAnswer:
        return await asyncio.to_thread(self._ask, operation)

    async def book(self, after: str | None) -> Sequence[BookEntry]:
        return await asyncio.to_thread(self._book, int(after or 0))

    async def close(self) -> None:
        pass

    def _perform(self, operation: Charge | Refund) -> GatewayAnswer:
        wanted = _entry(operation)
        with _kept(self._path) as held:
            known = held.get(operation.key)
            if known is not None and known["wanted"] != wanted:
                return GatewayAnswer(GatewayState.UNKNOWN, reason="key_reused")
            if known is None:
                why = _why_not(operation, held) if isinstance(operation, Refund) else None
                known = held[operation.key] = {"wanted": wanted, "declined": why}
        return _answer(operation.key, known)

    def _ask(self, operation: Charge | Refund) -> GatewayAnswer:
        with _kept(self._path) as held:
            known = held.get(operation.key)
        if known is None or known["wanted"]["kind"] != _entry(operation)["kind"]:
            return GatewayAnswer(GatewayState.NOT_FOUND)
        if known["wanted"]["amount"] != operation.amount.amount:
            return GatewayAnswer(GatewayState.UNKNOWN, reason="another_amount")
        return _answer(operation.key, known)

    def _book(self, after: int) -> list[BookEntry]:
        with _kept(self._path) as held:
            moved = [(key, one["wanted"]) for key, one in held.items() if not one["declined"]]
        return [
            BookEntry(
                str(number), one["kind"], key, Money(one["amount"], one["currency"]),
                one.get("customer"),
            )
            for number, (key, one) in enumerate(moved, 1)
            if number > after
        ]  # fmt: skip


def _entry(operation: Charge | Refund) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "amount": operation.amount.amount,
        "currency": operation.amount.currency,
    }
    if isinstance(operation, Charge):
        more = {"customer": operation.customer, "token": operation.token}
        return entry | {"kind": "charge"} | more
    return entry | {"kind": "refund", "charge_key": operation.charge_key}


def _why_not(refund: Refund, held: dict[str, Any]) -> str | None:
    charge = held.get(refund.charge_key, {"wanted": {}})["wanted"]
    if charge.get("kind") != "charge" or charge["currency"] != refund.amount.currency:
        return "no_such_charge"
    given_back = sum(
        one["wanted"]["amount"]
        for one in held.values()
        if one["wanted"].get("charge_key") == refund.charge_key and not one["declined"]
    )
    return "exceeds_charge" if given_back + refund.amount.amount > charge["amount"] else None


def _answer(key: str, known: dict[str, Any]) -> GatewayAnswer:
    if known["declined"]:
        return GatewayAnswer(GatewayState.DECLINED, reason=known["declined"])
    return GatewayAnswer(GatewayState.SUCCEEDED, reference=key)


_BECOMES = {
    OperationKind.CREATE: ResourceState.ACTIVE,
    OperationKind.SUSPEND: ResourceState.SUSPENDED,
    OperationKind.RESUME: ResourceState.ACTIVE,
    OperationKind.EXTEND: None,  # what it is
    OperationKind.TERMINATE: ResourceState.ABSENT,
}


class FolderDriver:
    """A service is a folder; what is there is written in it."""

    class Settings(BaseModel):
        folder: Path

    immediate = False

    def __init__(self, name: str, settings: Settings) -> None:
        self._folder = settings.folder

    async def perform(self, operation: Operation) -> DriverAnswer:
        return await asyncio.to_thread(self._perform, operation)

    async def ask(self, operation: Operation) -> DriverAnswer:
        return await asyncio.to_thread(self._ask, operation)

    async def resources(self, after: str | None) -> Sequence[ResourceEntry]:
        return await asyncio.to_thread(self._resources, after)

    async def close(self) -> None:
        pass

    def _perform(self, operation: Operation) -> DriverAnswer:
        body = repr(operation)
        with _kept(self._folder / "keys.json") as keys:
            known = keys.setdefault(operation.key, body)
        with _kept(self._folder / str(operation.service_id) / "state.json") as now:
            if operation.generation < now.get("generation", 0):
                return DriverAnswer(DriverState.STALE, reason="stale_generation")
            if known != body:
                return DriverAnswer(DriverState.REFUSED, reason="key_reused")
            is_there = now.get("state", "absent") != "absent"
            adopts = operation.resource_id is not None and not now
            if not is_there and not adopts and operation.kind not in ("create", "terminate"):
                return DriverAnswer(DriverState.REFUSED, reason="no_such_resource")
            state = _BECOMES[operation.kind] or ResourceState(now.get("state", "active"))
            absent = state is ResourceState.ABSENT
            now |= {
                "state": state,
                "generation": operation.generation,
                "resource_id": None if absent else str(operation.service_id),
                "paid_until": None if absent else operation.paid_until.isoformat(),
            }
            return DriverAnswer(DriverState.DONE, _resource(now))

    def _ask(self, operation: Operation) -> DriverAnswer:
        with _kept(self._folder / str(operation.service_id) / "state.json") as now:
            return DriverAnswer(DriverState.DONE, _resource(now))

    def _resources(self, after: str | None) -> list[ResourceEntry]:
        entries = []
        for path in sorted(self._folder.glob("*/state.json")):
            name = path.parent.name
            with _kept(path) as now:
                resource = _resource(now)
            if name > (after or "") and resource.state is not ResourceState.ABSENT:
                entries.append(ResourceEntry(name, name, name, resource.state))
        return entries


def _resource(now: dict[str, Any]) -> Resource:
    until = now.get("paid_until")
    return Resource(
        now.get("resource_id"),
        ResourceState(now.get("state", "absent")),
        now.get("generation", 0),
        date.fromisoformat(until) if until else None,
    )
