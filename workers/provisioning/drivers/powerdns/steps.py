"""What is done next at the server for an operation, from what there is now. Pure functions.

An operation is a few requests, and a worker may die between any two of them. After each one, what
there is is looked at anew, and the next step follows from that alone.
"""

from dataclasses import dataclass, replace
from typing import Any

from schemas.values import ResourceState
from workers.provisioning.drivers.port import (
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
    Resource,
)
from workers.provisioning.drivers.powerdns import records
from workers.provisioning.drivers.powerdns.settings import PowerDnsSettings, host_name
from workers.provisioning.drivers.powerdns.zone import (
    Mark,
    Parked,
    Zone,
    account_of,
    body_of,
    hashed,
    replaced,
)

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState
DOMAIN = "domain"


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is.

    Attributes:
        claim: the zone that is remembered for the service.
        gone: the generation of the service's last termination.
        zone: the zone that the operation is about.
        above: a zone of somebody else's in which a new one would lie.
    """

    claim: str | None = None
    gone: int | None = None
    zone: Zone | None = None
    above: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Remember which zone is the service's."""

    zone: str


@dataclass(frozen=True, slots=True)
class Bury:
    """Remember that the service was terminated, and with which generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class CreateZone:
    """Create it, without anything of the template."""

    zone: str


@dataclass(frozen=True, slots=True)
class SetAccount:
    zone: str


@dataclass(frozen=True, slots=True)
class DeleteZone:
    zone: str


@dataclass(frozen=True, slots=True)
class Change:
    """Change records and the mark, if nobody has changed it since it was read.

    Attributes:
        mark: as it will be, with the version that was read.
        ends: whether the operation is done by that.
    """

    zone: str
    mark: Mark
    changes: list[dict[str, Any]]
    ends: bool


Step = Claim | Bury | CreateZone | SetAccount | DeleteZone | Change


def named(operation: Operation) -> str | None:
    """The zone that an operation names; None: it names none that could be."""
    if operation.resource_id:
        return operation.resource_id.lower().removesuffix(".")
    try:
        return host_name(str(operation.configuration.get(DOMAIN)))
    except ValueError:
        return None


def next_step(operation: Operation, seen: Seen, settings: PowerDnsSettings) -> Step | DriverAnswer:
    """What to do, or the answer if nothing is left to do."""
    service_id, zone = str(operation.service_id), seen.zone
    mine = zone if zone is not None and zone.service_id == service_id else None
    mark = mine.mark if mine else None
    if operation.generation < max(seen.gone or 0, mark.generation if mark else 0):
        if mine and mark is None:
            return DeleteZone(mine.name)  # made by a create that the termination has overtaken
        return DriverAnswer(DriverState.STALE, reason="stale_generation")
    if mark and (body := mark.keys.get(hashed(operation.key))) is not None:
        if body != body_of(operation):
            return _refused("key_reused")
        if operation.kind is not TERMINATE:
            assert zone is not None
            return DriverAnswer(DriverState.DONE, resource_of(zone.name, mark, settings))
    if mine is None and _is_to_be_adopted(operation, seen):
        assert zone is not None
        return Change(zone.name, Mark(service_id), [], ends=False)
    if mine and mark and seen.claim is None:
        return Claim(mine.name)
    if mine and mine.account != account_of(service_id):
        return SetAccount(mine.name)
    if operation.kind is TERMINATE:
        return _terminate(operation, seen, mine)
    if operation.kind is CREATE and (mine is None or mark is None):
        return _create(operation, seen, settings)
    if mine is None:
        return _refused("no_zone" if zone is None else "zone_taken")
    if mark is None:
        return _refused("no_zone", "it was not created yet")
    if mark.is_ending:
        return DeleteZone(mine.name) if operation.kind is CREATE else _refused("no_zone")
    return _change(operation, mine, mark, settings)


def resource_of(zone: str, mark: Mark, settings: PowerDnsSettings) -> Resource:
    details = {"zone": zone, "nameservers": ", ".join(settings.nameservers)}
    return Resource(zone, mark.state, mark.generation, mark.paid_until, details)


def _is_to_be_adopted(operation: Operation, seen: Seen) -> bool:
    """The name is of an import: the first operation on it makes it the service's. A service that
    was seen here already had a zone, and one that somebody else put in its place is not its."""
    return (
        bool(operation.resource_id)
        and seen.claim is None
        and seen.gone is None
        and seen.zone is not None
        and seen.zone.service_id is None
    )


def _terminate(operation: Operation, seen: Seen, mine: Zone | None) -> Step | DriverAnswer:
    if seen.gone is None or seen.gone < operation.generation:
        return Bury(operation.generation)
    if mine is None:
        return DriverAnswer(DriverState.DONE, Resource(None, ABSENT, seen.gone))
    if mine.mark is None or mine.mark.is_ending:
        return DeleteZone(mine.name)
    # Whoever changes it at the same time sees that this was first, or was first, and is seen.
    mark = replace(mine.mark.after(operation), is_ending=True)
    return Change(mine.name, mark, [], ends=False)


def _create(operation: Operation, seen: Seen, settings: PowerDnsSettings) -> Step | DriverAnswer:
    service_id = str(operation.service_id)
    try:
        domain = host_name(str(operation.configuration.get(DOMAIN)))
    except ValueError as error:
        return _refused("domain_invalid", str(error))
    template = settings.template(operation.plan)
    if template is None:
        return _refused("no_template", f"the driver has no template for {operation.plan}")
    if seen.above is not None:
        return _refused("zone_taken", f"it would lie in {seen.above}")
    if seen.zone is not None and seen.zone.service_id != service_id:
        return _refused("zone_taken", "there is a zone of this name")
    if seen.zone is not None and seen.zone.name != domain:
        # Left by a create that was refused, before its domain was corrected. Only without it are
        # the owner of the other name, and of what is above that, looked at.
        if any(seen.zone.theirs()):
            return _refused("mark_broken", f"{seen.zone.name} has records, and no mark")
        return DeleteZone(seen.zone.name)
    if seen.claim != domain:
        return Claim(domain)
    if seen.zone is None:
        return CreateZone(domain)
    mark = Mark(service_id).after(operation)
    served = records.filled(template, seen.zone.name, service_id)
    return Change(seen.zone.name, mark, [replaced(rrset) for rrset in served], ends=True)


def _change(
    operation: Operation, zone: Zone, mark: Mark, settings: PowerDnsSettings
) -> Step | DriverAnswer:
    becomes = {SUSPEND: SUSPENDED, EXTEND: mark.state}.get(operation.kind, ACTIVE)
    changes: list[dict[str, Any]] = []
    parked = mark.parked
    if becomes is SUSPENDED and mark.state is ACTIVE:
        parking = records.filled(settings.parking, zone.name, mark.service_id)
        changes, parked = records.parked(zone, parking)
    elif becomes is ACTIVE and mark.state is SUSPENDED:
        changes, parked = records.unparked(zone, mark.parked), Parked()
    after = mark.after(operation, state=becomes, parked=parked)
    return Change(zone.name, after, changes, ends=True)


def _refused(reason: str, words: str | None = None) -> DriverAnswer:
    return DriverAnswer(DriverState.REFUSED, reason=reason, words=words)
