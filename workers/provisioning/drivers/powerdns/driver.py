"""The driver ``powerdns``: a service is a DNS zone. What it promises: docs/reference/drivers.md."""

import asyncio
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from schemas.books import BookUnavailable, ResourceEntry
from schemas.values import ResourceState
from workers.provisioning.drivers.port import (
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)
from workers.provisioning.drivers.powerdns.api import (
    Conversation,
    Fault,
    Unprocessable,
    calls_of,
)
from workers.provisioning.drivers.powerdns.settings import PowerDnsSettings
from workers.provisioning.drivers.powerdns.steps import (
    Bury,
    Change,
    Claim,
    CreateZone,
    DeleteZone,
    Seen,
    SetAccount,
    Step,
    named,
    next_step,
    resource_of,
)
from workers.provisioning.drivers.powerdns.zone import (
    MARK,
    Mark,
    MarkBroken,
    Record,
    RRset,
    Zone,
    account_of,
    lost_the_race,
    marking,
    put,
    quoted,
    read_mark,
    read_zone,
    service_of,
)

RESOURCES_PAGE = 1000
# An operation is done after five or six; others that change the same zone meanwhile add some.
MOST_STEPS = 20
REGISTRY_TTL = 60


class PowerDnsDriver:
    Settings = PowerDnsSettings
    immediate = False

    def __init__(self, name: str, settings: PowerDnsSettings) -> None:
        self._settings = settings
        self._calls = calls_of(name, settings)
        self._listed: list[ResourceEntry] = []

    async def perform(self, operation: Operation) -> DriverAnswer:
        answer = await self._answer(operation.kind, operation, self._perform)
        self._calls.count(operation.kind, answer.state)
        return answer

    async def ask(self, operation: Operation) -> DriverAnswer:
        answer = await self._answer("get", operation, self._ask)
        self._calls.count("get", answer.state)
        return answer

    async def resources(self, after: str | None) -> list[ResourceEntry]:
        """See :class:`schemas.books.ResourceBook`. The server lists all zones or none, so they are
        read with the first page; the others are of the same list, which goes with the last one."""
        if after is None or not self._listed:
            try:
                self._listed = await self._list()
            except Fault as fault:
                raise BookUnavailable(str(fault)) from None
            except Unprocessable as error:
                raise BookUnavailable(error.words) from None
            self._calls.count("resources", "done")
        at = 0 if after is None else bisect_right(self._listed, after, key=lambda e: e.cursor)
        page = self._listed[at : at + RESOURCES_PAGE]
        if not page:
            self._listed = []
        return page

    async def close(self) -> None:
        self._listed = []
        await self._calls.close()

    async def _answer(self, name: str, operation: Operation, does: Any) -> DriverAnswer:
        try:
            answer: DriverAnswer = await does(
                Conversation(self._calls, self._settings, name), operation
            )
        except Fault as fault:
            return fault.answer
        except Unprocessable as error:
            return DriverAnswer(DriverState.REFUSED, reason="unprocessable", words=error.words)
        except MarkBroken as error:
            return DriverAnswer(DriverState.REFUSED, reason="mark_broken", words=str(error))
        return answer

    async def _perform(self, server: Conversation, operation: Operation) -> DriverAnswer:
        for _ in range(MOST_STEPS):
            seen = await self._look(server, operation)
            step = next_step(operation, seen, self._settings)
            if isinstance(step, DriverAnswer):
                return step
            resource = await self._do(server, operation, step)
            if resource is not None:
                return DriverAnswer(DriverState.DONE, resource)
        return DriverAnswer(DriverState.UNKNOWN, reason="changed_by_others")

    async def _ask(self, server: Conversation, operation: Operation) -> DriverAnswer:
        seen = await self._look(server, operation)
        zone = seen.zone
        if zone is None or zone.service_id != str(operation.service_id):
            resource = Resource(None, ResourceState.ABSENT, seen.gone or 0)
        elif zone.mark is None:  # nothing is delivered yet, and nothing is gone for good
            resource = Resource(None, ResourceState.ABSENT)
        else:
            resource = resource_of(zone.name, zone.mark, self._settings)
        return DriverAnswer(DriverState.DONE, resource)

    async def _look(self, server: Conversation, operation: Operation) -> Seen:
        service_id, is_create = str(operation.service_id), operation.kind is OperationKind.CREATE
        claim = await self._remembered(server, service_id, "zone")
        gone = await self._gone(server, service_id)
        zone = None if claim is None else await self._zone(server, claim)
        above = None
        if claim is None or (is_create and (zone is None or zone.service_id != service_id)):
            name = named(operation)
            if name is not None and name != claim:
                zone = await self._zone(server, name)
            if name is not None and zone is None and is_create:
                above = await self._above(server, name)
        return Seen(claim, gone, zone, above)

    async def _do(self, server: Conversation, operation: Operation, step: Step) -> Resource | None:
        """Take a step; returns the resource if the operation is done by that."""
        match step:
            case Claim(zone):
                await self._remember(server, str(operation.service_id), f"zone={zone}")
            case Bury(generation):
                await self._remember(
                    server, f"gone.{operation.service_id}", f"generation={generation}"
                )
            case CreateZone(zone):
                await self._create(server, zone, account_of(operation.service_id))
            case SetAccount(zone):
                await server.set_account(zone, account_of(operation.service_id))
            case DeleteZone(zone):
                await server.delete(zone)
            case Change(zone, mark, changes, ends):
                try:
                    is_there = await server.change(zone, [*marking(zone, mark), *changes])
                except Unprocessable as error:
                    if lost_the_race(zone, mark.version, error.words):
                        return None
                    raise
                if is_there and ends:
                    return resource_of(zone, mark, self._settings)
        return None

    async def _zone(self, server: Conversation, name: str) -> Zone | None:
        document = await server.zone(name)
        return None if document is None else read_zone(document)

    async def _above(self, server: Conversation, name: str) -> str | None:
        """The zone that a new one would be cut out of: whoever orders ``www`` of somebody's domain
        would take it away from them."""
        labels = name.split(".")
        for at in range(1, len(labels) - 1):
            above = ".".join(labels[at:])
            if await server.is_there(above):
                return above
        return None

    async def _create(self, server: Conversation, name: str, account: str, **facts: Any) -> None:
        settings = self._settings
        first = f"{settings.nameservers[0]}."
        hostmaster = settings.hostmaster.replace("{domain}", name)
        soa = f"{first} {hostmaster} 0 10800 3600 604800 3600"
        rrsets = [
            RRset(name=f"{name}.", type="SOA", records=(Record(content=soa),)),
            RRset(
                name=f"{name}.",
                type="NS",
                records=tuple(Record(content=f"{host}.") for host in settings.nameservers),
            ),
        ]
        await server.create(name, kind=settings.zone_kind, account=account, rrsets=rrsets, **facts)

    async def _gone(self, server: Conversation, service_id: str) -> int | None:
        """The generation of a service's last termination."""
        name = f"gone.{service_id}"
        generation = await self._remembered(server, name, "generation")
        if generation is not None and not generation.isdecimal():
            raise MarkBroken(f"{name}.{self._settings.registry}")
        return None if generation is None else int(generation)

    async def _remembered(self, server: Conversation, name: str, fact: str) -> str | None:
        """A fact of the registry."""
        registry = self._settings.registry
        document = await server.zone(registry, only=f"{name}.{registry}")
        for rrset in document.rrsets if document else ():
            if rrset.type == "TXT" and rrset.records:
                kind, _, value = rrset.records[0].content.strip('"').partition("=")
                if kind != fact or not value:
                    raise MarkBroken(f"{name}.{registry}")
                return value
        return None

    async def _remember(self, server: Conversation, name: str, fact: str) -> None:
        registry = self._settings.registry
        change = put(f"{name}.{registry}.", "TXT", [quoted(fact)], ttl=REGISTRY_TTL)
        if not await server.change(registry, [change]):
            await self._create(server, registry, "autorenew", api_rectify=False)
            if not await server.change(registry, [change]):
                raise Fault(DriverState.UNKNOWN, "no_registry", f"no zone {registry}")

    async def _list(self) -> list[ResourceEntry]:
        settings = self._settings
        server = Conversation(self._calls, settings, "resources", seconds=settings.list_seconds)
        zones = await server.listed()
        # One mark a zone, and room for those that come meanwhile.
        marks = await server.texts(MARK, 2 * len(zones) + 1000)
        return await asyncio.to_thread(_entries, zones, marks, settings)


def _entries(
    zones: Mapping[str, str], marks: Mapping[str, str | None], settings: PowerDnsSettings
) -> list[ResourceEntry]:
    """Zones by their mark, and by their account if there is none, or none that can be read:
    customers may have records of its name, and one zone must not hide all others.

    Args:
        zones: zone -> its account.
        marks: zone -> what may be its mark; None: several may.
    """
    entries = []
    for name in sorted(zones.keys() - settings.not_sold - {settings.registry}):
        mark = _mark(marks.get(name))
        if mark is not None:
            entry = ResourceEntry(name, name, mark.service_id, mark.state, mark.paid_until)
        else:
            entry = ResourceEntry(name, name, service_of(zones[name]), ResourceState.ACTIVE)
        entries.append(entry)
    return entries


def _mark(line: str | None) -> Mark | None:
    try:
        return None if line is None else read_mark(line)
    except ValueError:
        return None
