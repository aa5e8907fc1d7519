"""What a driver says exists beside what should: a book is read page by page, each page compared
with our services, and what differs is asked about once more, by itself.

No transaction is open while the driver is called. What is under way, or was until a short while
ago, is not judged. A book that lacks or contradicts too much is believed in nothing.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, text

from schemas.books import BookUnavailable, ResourceEntry
from schemas.values import Period, ResourceState, ServiceId, derived_id
from workers.outside.books import pages
from workers.provisioning.drivers.port import (
    MOST_AHEAD,
    Driver,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)

# What an operation changed so shortly before the book is read may not be listed yet.
SETTLED_SECONDS = 600.0
# So few are never too many.
FEW = 10
# More are not kept: whose list it is that differs so much is no question of single services.
MOST = 20_000
PAGE = 5000
ASKED_AT_ONCE = 8
# Why what was taken over is not made anew when a list lacks it.
BY_NAME = "it is known there by its own name only: it cannot be asked about"


class Kind(StrEnum):
    """How a driver's book differs from ours."""

    MISSING = "missing"  # a service should be there, and nothing is
    STATE = "state"  # it is active and should be suspended, or the other way round
    PAID_UNTIL = "paid_until"  # it lasts there for less than was paid
    LONGER = "longer"  # it lasts there for longer than we were told
    ORPHAN = "orphan"  # it is there, and no service should be


MENDABLE = (Kind.MISSING, Kind.STATE, Kind.PAID_UNTIL)


class Outcome(StrEnum):
    CLEAN = "clean"
    DIFFERENCES = "differences"
    TOO_MANY = "too_many"  # so many that the book is not believed: nothing is mended
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Difference:
    """
    Attributes:
        service: ours; None: of an orphan that is no service's.
        resource_id: what the driver calls it.
        seen: what is there.
        why: why it is not to be mended by itself, if it is not; for people.
        named: the service's id as the driver has it, of an orphan.
    """

    driver: str
    kind: Kind
    service: ServiceId | None
    resource_id: str | None
    seen: Resource
    customer: str | None = None
    plan: str | None = None
    generation: int = 0
    ours: ResourceState = ResourceState.ABSENT
    ours_until: date | None = None
    why: str | None = None
    named: str | None = None

    @property
    def named_service(self) -> ServiceId:
        """What the driver is to know an orphan by: its own id for it, or one made of its name."""
        own = _uuid(self.named)
        return ServiceId(own or derived_id("orphan", self.driver, self.resource_id))


@dataclass(slots=True)
class Found:
    """What came of looking.

    Attributes:
        services: how many services should be there.
        entries: how many entries the driver's book has.
        unsettled: what differs and is not judged: it is under way, or was a short while ago.
        why: why nothing can be concluded.
    """

    driver: str
    services: int = 0
    entries: int = 0
    differences: list[Difference] = field(default_factory=list)
    unsettled: list[Difference] = field(default_factory=list)
    outcome: Outcome = Outcome.CLEAN
    why: str | None = None

    @property
    def counts(self) -> Counter[Kind]:
        return Counter(difference.kind for difference in self.differences)


_NOW = text("SELECT now() - make_interval(secs => :settled)")
# The names of all that is there by our books. What was taken over is known there by its own name
# only until an operation was done there; one that was refused, or is in doubt, tells nothing.
_NAMES = text("""
    SELECT resource_id, id FROM services
    WHERE driver = :driver AND resource_id IS NOT NULL
      AND (confirmed <> 'absent' OR state IN ('active', 'suspended'))
""")
_BY_ID = text("""
    SELECT id, customer_id, plan, configuration, desired, confirmed, confirmed_until, resource_id,
        generation, anchor, period_months, paid_periods
    FROM services WHERE id = ANY(:ids) AND driver = :driver
""")
_THERE = text("""
    SELECT id, customer_id, plan, configuration, desired, confirmed, confirmed_until, resource_id,
        generation, anchor, period_months, paid_periods,
        order_id IS NULL AND NOT EXISTS (SELECT FROM operations AS o
            WHERE o.service_id = s.id AND o.state = 'done' AND o.reason IS DISTINCT FROM 'by_hand')
            AS is_by_name
    FROM services AS s
    WHERE id > :after_id AND driver = :driver AND state IN ('active', 'suspended')
      AND desired <> 'absent'
    ORDER BY id LIMIT :limit
""")
# Not under way, and not changed since: by the generation that was read, too.
_AT_REST = text("""
    SELECT s.id, s.generation FROM services AS s WHERE s.id = ANY(:ids)
      AND (s.confirmed = s.desired OR s.state IN ('terminated', 'cancelled'))
      AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'converge' AND t.subject = s.id)
      AND NOT EXISTS (SELECT FROM operations AS o WHERE o.service_id = s.id
        AND (o.state IN ('pending', 'unknown') OR greatest(o.started_at, o.ended_at) > :since))
""")


async def look(engine: Engine, name: str, driver: Driver, *, share: float) -> Found:
    """Compare a driver's book with our services.

    Args:
        engine: as the database role ``provisioning``.
        share: of the services that should be there, how many may differ for the book to be
            believed; up to 10 always may.
    """
    found = Found(name)
    sides = _Sides(engine, name)
    try:
        await asyncio.to_thread(sides.begin)
        async for page in pages(driver.resources):
            found.entries += len(page)
            await asyncio.to_thread(sides.compare, page)
        await asyncio.to_thread(sides.find_missing)
    except BookUnavailable as error:
        found.outcome, found.why = Outcome.UNAVAILABLE, str(error)
        return found
    except _TooMany:
        found.outcome, found.why = Outcome.TOO_MANY, f"it differs in more than {MOST} resources"
        return found
    found.services = sides.services
    found.differences, found.unsettled = await asyncio.to_thread(sides.at_rest)
    most = max(FEW, int(share * found.services))
    doubtful = sum(d.kind in MENDABLE for d in found.differences)
    if doubtful > most:
        found.outcome = Outcome.TOO_MANY
        found.why = f"{doubtful} of {found.services} services differ: more than {most}"
        return found
    found.differences = await _asked(driver, sides, found.differences)
    if found.differences:
        found.outcome = Outcome.DIFFERENCES
    return found


class _TooMany(Exception):
    pass


class _Sides:
    """Our services beside pages of the book. Each method uses transactions of its own."""

    def __init__(self, engine: Engine, driver: str) -> None:
        self._engine = engine
        self._driver = driver
        self._since: Any = None
        self._names: dict[str, uuid.UUID] | None = None
        self._by_name: set[uuid.UUID] = set()
        self._seen: dict[bytes, str] = {}
        self._orphans: set[str] = set()
        self._differences: list[Difference] = []
        self.rows: dict[uuid.UUID, Any] = {}
        self.services = 0

    def begin(self) -> None:
        with self._engine.begin() as tx:
            self._since = tx.execute(_NOW, {"settled": SETTLED_SECONDS}).scalar_one()

    def compare(self, page: Sequence[ResourceEntry]) -> None:
        ids = {id_ for entry in page if (id_ := _uuid(entry.service_id)) is not None}
        ours = self._read(ids)
        strange = [e.resource_id for e in page if _uuid(e.service_id) not in ours]
        named = self._named(strange) if strange else {}
        for entry in page:
            if entry.state is ResourceState.ABSENT or entry.resource_id in self._orphans:
                continue
            row = ours.get(_uuid(entry.service_id))
            is_by_name = row is None
            if row is None:
                row = named.get(entry.resource_id)
            seen = Resource(entry.resource_id, entry.state, 0, entry.paid_until)
            if row is None:
                self._orphans.add(entry.resource_id)
                self._add(Kind.ORPHAN, None, seen, named=entry.service_id)
            elif (first := self._seen.get(row.id.bytes)) is not None:
                if first == entry.resource_id:  # the list moved while it was read
                    continue
                why = f"a second resource of service {row.id}"
                self._add(Kind.ORPHAN, row, seen, why=why, named=entry.service_id)
            else:
                self._seen[row.id.bytes] = entry.resource_id
                if (kind := difference_of(row, seen)) is not None:
                    if is_by_name:
                        self._by_name.add(row.id)
                    self._add(kind, row, seen, named=entry.service_id)

    def _read(self, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID | None, Any]:
        with self._engine.begin() as tx:
            rows = tx.execute(_BY_ID, {"ids": list(ids), "driver": self._driver})
            return {row.id: row for row in rows}

    def _named(self, names: Iterable[str]) -> dict[str, Any]:
        """Our services by the driver's names for what it does not know by our ids."""
        if self._names is None:
            with self._engine.begin() as tx:
                rows = tx.execute(_NAMES, {"driver": self._driver})
                self._names = {row.resource_id: row.id for row in rows}
        ids = {name: self._names[name] for name in names if name in self._names}
        if not ids:
            return {}
        ours = self._read(ids.values())
        return {name: ours[id_] for name, id_ in ids.items() if id_ in ours}

    def find_missing(self) -> None:
        after = uuid.UUID(int=0)
        absent = Resource(None, ResourceState.ABSENT)
        while True:
            with self._engine.begin() as tx:
                parameters = {"after_id": after, "driver": self._driver, "limit": PAGE}
                rows = tx.execute(_THERE, parameters).all()
            self.services += len(rows)
            for row in rows:
                if row.id.bytes not in self._seen:
                    self._add(Kind.MISSING, row, absent, why=BY_NAME if row.is_by_name else None)
            if len(rows) < PAGE:
                return
            after = rows[-1].id

    def at_rest(self) -> tuple[list[Difference], list[Difference]]:
        """The differences of what is not under way, and of what is."""
        known = [d.service for d in self._differences if d.service is not None]
        quiet: set[tuple[uuid.UUID, int]] = set()
        for first in range(0, len(known), PAGE):
            ids = known[first : first + PAGE]
            with self._engine.begin() as tx:
                rows = tx.execute(_AT_REST, {"ids": ids, "since": self._since})
                quiet |= {(row.id, row.generation) for row in rows}
        resting: list[Difference] = []
        moving: list[Difference] = []
        for d in self._differences:
            is_quiet = d.service is None or (d.service, d.generation) in quiet
            (resting if is_quiet else moving).append(d)
        return resting, moving

    def is_by_name(self, difference: Difference) -> bool:
        """Whether the list has it by the driver's own name only, so that it cannot be asked
        about: by our id there would be nothing."""
        return difference.service in self._by_name

    def _add(self, kind: Kind, row: Any, seen: Resource, **more: Any) -> None:
        difference = Difference(self._driver, kind, None, seen.resource_id, seen, **more)
        if row is not None:
            self.rows[row.id] = row
            difference = replace(
                difference,
                service=row.id,
                resource_id=seen.resource_id or row.resource_id,
                customer=row.customer_id,
                plan=row.plan,
                generation=row.generation,
                ours=ResourceState(row.confirmed),
                ours_until=row.confirmed_until,
            )
        self._differences.append(difference)
        if len(self._differences) > MOST:
            raise _TooMany


def difference_of(row: Any, seen: Resource) -> Kind | None:
    """How what is there differs from what should be.

    Args:
        row: a service, with what its driver last confirmed.
    """
    wanted = ResourceState(row.desired)
    if wanted is ResourceState.ABSENT:
        return None if seen.state is ResourceState.ABSENT else Kind.ORPHAN
    if seen.state is ResourceState.ABSENT:
        return Kind.MISSING
    if seen.state is not wanted:
        return Kind.STATE
    if seen.paid_until is None or row.confirmed_until is None or row.anchor is None:
        return None
    if seen.paid_until < min(_paid_until(row), row.confirmed_until):
        return Kind.PAID_UNTIL
    return Kind.LONGER if seen.paid_until > max(_paid_until(row), row.confirmed_until) else None


def _paid_until(row: Any) -> date:
    return Period(row.period_months).end(row.anchor, row.paid_periods)


async def _asked(
    driver: Driver, sides: _Sides, differences: Iterable[Difference]
) -> list[Difference]:
    """What is still so when the driver is asked about it alone: a book that is read in pages may
    skip what is listed elsewhere meanwhile."""
    room = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask(difference: Difference) -> Difference | None:
        if difference.service is None or difference.why or sides.is_by_name(difference):
            return difference
        row = sides.rows[difference.service]
        async with room:
            answer = await driver.ask(asking_about(row))
        if answer.state is not DriverState.DONE or answer.resource is None:
            return replace(difference, why=f"asked about it alone: {answer.reason or answer.state}")
        seen = answer.resource
        if seen.generation > row.generation + MOST_AHEAD:
            return replace(difference, why="its generation is out of bounds")
        kind = difference_of(row, seen)
        return None if kind is None else replace(difference, kind=kind, seen=seen)

    asked = await asyncio.gather(*map(ask, differences))
    return [difference for difference in asked if difference is not None]


def asking_about(row: Any) -> Operation:
    """What names a service to a driver; nothing is done."""
    return Operation(
        kind=OperationKind.EXTEND,
        key=str(derived_id("question", row.id)),
        generation=row.generation,
        service_id=row.id,
        customer=row.customer_id,
        plan=row.plan,
        configuration=row.configuration,
        paid_until=row.confirmed_until or date.min,
        resource_id=row.resource_id,
    )


def rows_of(found: Found) -> Iterator[tuple[Any, ...]]:
    """What a person or a program reads of each difference."""
    for d in found.differences:
        seen = f"{d.seen.state}" + (f" until {d.seen.paid_until}" if d.seen.paid_until else "")
        ours = f"{d.ours}" + (f" until {d.ours_until}" if d.ours_until else "")
        yield d.driver, d.kind.value, d.service or d.named, d.resource_id, ours, seen, d.customer


def _uuid(name: str | None) -> uuid.UUID | None:
    try:
        return None if name is None else uuid.UUID(name)
    except ValueError:
        return None
