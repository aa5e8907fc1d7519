"""What a zone's records become: of a template, while it is parked, and after it. Pure functions."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from workers.provisioning.drivers.powerdns.settings import RecordTemplate
from workers.provisioning.drivers.powerdns.zone import (
    Parked,
    Record,
    RRset,
    Zone,
    hashed,
    quoted,
    replaced,
)


def filled(templates: Iterable[RecordTemplate], domain: str, service_id: object) -> list[RRset]:
    """The records of a template, for one service."""

    def fill(text: str) -> str:
        return text.replace("{domain}", domain).replace("{service}", str(service_id))

    found: dict[tuple[str, str], RRset] = {}
    for template in templates:
        name = fill(template.name)
        name = f"{domain}." if name == "@" else f"{name}.{domain}."
        content = fill(template.content)
        if template.type == "TXT" and not content.startswith('"'):
            content = quoted(content)
        rrset = found.get((name, template.type)) or RRset(
            name=name, type=template.type, ttl=template.ttl
        )
        records = tuple(dict.fromkeys((*rrset.records, Record(content=content))))
        found[name, template.type] = rrset.model_copy(update={"records": records})
    return list(found.values())


def parked(zone: Zone, parking: Sequence[RRset]) -> tuple[list[dict[str, Any]], Parked]:
    """The changes that park a zone, and what undoing them has to know.

    The customer's records stay where they are, disabled.
    """
    theirs = {(rrset.name, rrset.type): rrset for rrset in zone.theirs()}
    ours = {(rrset.name, rrset.type): rrset for rrset in parking}
    notes: dict[str, set[str]] = {"parking": set(), "off": set(), "kept": set()}
    found = []
    for key in theirs | ours:
        before = theirs.get(key) or ours[key].model_copy(update={"records": ()})
        put_there = {
            _hash(before, record): record for record in (ours[key].records if key in ours else ())
        }
        notes["parking"] |= put_there.keys()
        records = []
        for record in before.records:
            mine = _hash(before, record)
            if record.disabled:
                notes["off"].add(mine)
            elif mine in put_there:
                notes["kept"].add(mine)
            records.append(record.model_copy(update={"disabled": mine not in put_there}))
            put_there.pop(mine, None)
        records += put_there.values()
        after = before.model_copy(update={"records": tuple(records)})
        if after != before:
            found.append(after)
    return _ordered(found), Parked(**{what: frozenset(ones) for what, ones in notes.items()})


def unparked(zone: Zone, noted: Parked) -> list[dict[str, Any]]:
    """The changes that give a parked zone its own records back.

    What somebody else has put into it since, and is served, stays.
    """
    found = []
    for before in zone.theirs():
        records = []
        for record in before.records:
            mine = _hash(before, record)
            is_parking = mine in noted.parking and not record.disabled
            if is_parking and mine not in noted.kept | noted.off:
                continue
            records.append(record.model_copy(update={"disabled": mine in noted.off}))
        after = before.model_copy(update={"records": tuple(records)})
        if after != before:
            found.append(after)
    return _ordered(found)


def _hash(rrset: RRset, record: Record) -> str:
    """A record, however it is written."""
    content = " ".join(record.content.split())
    if rrset.type != "TXT":
        content = content.lower()
    if rrset.type in ("A", "AAAA"):
        try:
            content = str(ipaddress.ip_address(content))
        except ValueError:
            pass  # not what the server would keep: compared as it is
    return hashed(rrset.name, rrset.type, content)[:24]


def _ordered(rrsets: Iterable[RRset]) -> list[dict[str, Any]]:
    """Changes in an order in which no CNAME is ever served beside another type: the server refuses
    that, and looks at each change in turn."""

    def rank(rrset: RRset) -> tuple[int, bool]:
        if not rrset.records:
            return 0, False
        if not rrset.is_served:
            return 1, rrset.type != "CNAME"
        return 2, rrset.type == "CNAME"

    return [replaced(rrset) for rrset in sorted(rrsets, key=rank)]
