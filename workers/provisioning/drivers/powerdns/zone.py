"""A zone as the API shows it, and the mark by which the driver knows it again.

The mark is in the zone itself, in records that are disabled and therefore never served: a change of
the customer's records and of the mark is one request, and one transaction of the server.

=============================  =====  ==============================================================
name                           type   what
=============================  =====  ==============================================================
``_autorenew.ZONE``            TXT    service, generation, state, paid until, version
``keys._autorenew.ZONE``       TXT    the last operations: a hash of the key and one of the body
``parked._autorenew.ZONE``     TXT    what resuming has to know of records, while it is suspended
``N._autorenew.ZONE``          CNAME  the fence of version N: it was changed. Served, and empty
=============================  =====  ==============================================================
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict

from schemas.values import ResourceState
from workers.provisioning.drivers.port import Operation

MARK = "_autorenew"
ACCOUNT_PREFIX = "ar-"
# Of a name's fences the last ones are kept: a change that comes later than that many others would
# not be noticed.
FENCES_KEPT = 16
KEYS_KEPT = 10
MARK_TTL = 3600
NOWHERE = "autorenew.invalid."


class MarkBroken(Exception):
    """The driver's own records in a zone were changed by somebody else."""


class Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    content: str
    disabled: bool = False


class RRset(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    type: str
    ttl: int = MARK_TTL
    records: tuple[Record, ...] = ()

    @property
    def is_served(self) -> bool:
        return not all(record.disabled for record in self.records)


class ZoneDocument(BaseModel):
    """What the API says of a zone; names end in a dot."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    account: str = ""
    rrsets: tuple[RRset, ...] = ()


def hashed(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def body_of(operation: Operation) -> str:
    """What an operation asks for, hashed: another body under a known key is a mistake."""
    o = operation
    facts = (o.kind, o.generation, o.customer, o.plan, o.configuration, o.paid_until)
    return hashed(str(o.service_id), *facts)


@dataclass(frozen=True, slots=True)
class Parked:
    """What resuming has to know of records, by their hashes.

    Attributes:
        parking: those that were put there by suspending.
        off: those that the customer had disabled.
        kept: those of the customer that are served while it is suspended, too.
    """

    parking: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Mark:
    """
    Attributes:
        version: how often the driver changed the zone.
        is_ending: it is about to be deleted.
        keys: hash of an operation's key -> hash of its body, the newest last.
    """

    service_id: str
    version: int = 0
    generation: int = 0
    state: ResourceState = ResourceState.ACTIVE
    paid_until: date | None = None
    is_ending: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    parked: Parked = Parked()

    def after(self, operation: Operation, **changes: Any) -> "Mark":
        """What it is once an operation has been done."""
        keys = dict(self.keys)
        keys.pop(hashed(operation.key), None)
        keys[hashed(operation.key)] = body_of(operation)
        return replace(
            self,
            generation=operation.generation,
            keys=dict(list(keys.items())[-KEYS_KEPT:]),
            paid_until=operation.paid_until,
            **changes,
        )


@dataclass(frozen=True, slots=True)
class Zone:
    """
    Attributes:
        name: without a dot at its end.
        mark: None: it was not marked yet, or is not the driver's.
    """

    name: str
    account: str
    rrsets: Sequence[RRset]
    mark: Mark | None

    @property
    def service_id(self) -> str | None:
        """Whose zone it is; None: not one of the driver's."""
        return self.mark.service_id if self.mark else service_of(self.account)

    def theirs(self) -> Iterator[RRset]:
        """What a suspension takes away: not the SOA record, the zone's own nameservers, the
        mark."""
        apex = f"{self.name}."
        for rrset in self.rrsets:
            is_apex = rrset.name == apex and rrset.type in ("SOA", "NS")
            if not is_apex and not _is_ours(rrset.name, self.name):
                yield rrset


def account_of(service_id: object) -> str:
    """What a zone's account is, in at most 40 characters."""
    return f"{ACCOUNT_PREFIX}{service_id}"


def service_of(account: str) -> str | None:
    return account.removeprefix(ACCOUNT_PREFIX) if account.startswith(ACCOUNT_PREFIX) else None


def read_zone(document: ZoneDocument) -> Zone:
    """
    Raises:
        MarkBroken: see there.
    """
    name = document.name.removesuffix(".")
    ours = [rrset for rrset in document.rrsets if _is_ours(rrset.name, name)]
    texts = {
        rrset.name.removesuffix(f"{MARK}.{name}."): [_text(r.content) for r in rrset.records]
        for rrset in ours
        if rrset.type == "TXT"
    }
    mark = None
    if ours:
        try:
            (line,) = texts[""]
            mark = replace(
                read_mark(line),
                keys=_keys(texts.get("keys.", [])),
                parked=_parked(texts.get("parked.", [])),
            )
        except (KeyError, ValueError):
            raise MarkBroken(f"{MARK}.{name}") from None
    return Zone(name, document.account, document.rrsets, mark)


def read_mark(line: str) -> Mark:
    """
    Raises:
        ValueError: it is none.
    """
    facts = dict(word.partition("=")[::2] for word in line.split())
    try:
        return Mark(
            service_id=facts["service"],
            version=int(facts["version"]),
            generation=int(facts["generation"]),
            state=ResourceState(facts["state"]),
            paid_until=date.fromisoformat(facts["paid_until"]) if "paid_until" in facts else None,
            is_ending="ending" in facts,
        )
    except KeyError as error:
        raise ValueError(f"no {error}") from None


def write_mark(mark: Mark) -> str:
    facts = {
        "service": mark.service_id,
        "generation": mark.generation,
        "state": mark.state,
        "paid_until": mark.paid_until,
        "version": mark.version,
        "ending": "yes" if mark.is_ending else None,
    }
    return " ".join(f"{name}={fact}" for name, fact in facts.items() if fact is not None)


def put(
    name: str, kind: str, contents: Iterable[str], *, ttl: int = MARK_TTL, disabled: bool = False
) -> dict[str, Any]:
    """A change that replaces a set of records."""
    return replaced(
        RRset(
            name=name,
            type=kind,
            ttl=ttl,
            records=tuple(Record(content=text, disabled=disabled) for text in contents),
        )
    )


def replaced(rrset: RRset) -> dict[str, Any]:
    if not rrset.records:
        return {"name": rrset.name, "type": rrset.type, "changetype": "DELETE"}
    return rrset.model_dump() | {"changetype": "REPLACE"}


def quoted(text: str) -> str:
    """A text as the content of a TXT record, in parts of at most 255 characters."""
    parts = [text[at : at + 255] for at in range(0, len(text), 255)]
    escaped = (part.replace("\\", "\\\\").replace('"', '\\"') for part in parts)
    return " ".join(f'"{part}"' for part in escaped)


def marking(zone: str, mark: Mark) -> list[dict[str, Any]]:
    """The changes that write a mark of the next version, if nobody has written that one.

    The server refuses the whole request if another type stands beside a CNAME (RFC 1034, 3.6.2). So
    a TXT record beside the fence of the version that was read is a comparison: it is put there and
    taken away again, and then the fence is set up.
    """
    base = f"{MARK}.{zone}."
    fence = f"{mark.version}.{base}"
    mark = replace(mark, version=mark.version + 1)
    changes = [
        put(fence, "TXT", ['"free?"']),
        put(fence, "TXT", []),
        put(fence, "CNAME", [NOWHERE]),
    ]
    outdated = mark.version - 1 - FENCES_KEPT
    if outdated >= 0:
        changes.append(put(f"{outdated}.{base}", "CNAME", []))
    parked = mark.parked
    notes = [
        f"{what} {one}"
        for what, found in (("parking", parked.parking), ("off", parked.off), ("kept", parked.kept))
        for one in sorted(found)
    ]
    keys = [f"{key} {body}" for key, body in mark.keys.items()]
    # Records have no order of their own.
    numbered = [f"{number} {line}" for number, line in enumerate(keys)]
    for name, lines in (("", [write_mark(mark)]), ("keys.", numbered), ("parked.", notes)):
        changes.append(put(name + base, "TXT", map(quoted, lines), disabled=True))
    return changes


def lost_the_race(zone: str, version: int, words: str) -> bool:
    """Whether a refusal says that somebody else has written this version."""
    return f"{version}.{MARK}.{zone}. IN TXT: Conflicts with" in words


def _is_ours(name: str, zone: str) -> bool:
    return name == f"{MARK}.{zone}." or name.endswith(f".{MARK}.{zone}.")


def _text(content: str) -> str:
    return content.replace('" "', "").strip('"')


def _keys(lines: Sequence[str]) -> dict[str, str]:
    numbered = sorted((int(number), key, body) for number, key, body in map(str.split, lines))
    return {key: body for _, key, body in numbered}


def _parked(lines: Sequence[str]) -> Parked:
    found: dict[str, set[str]] = {"parking": set(), "off": set(), "kept": set()}
    for line in lines:
        what, _, one = line.partition(" ")
        found[what].add(one)
    return Parked(**{what: frozenset(ones) for what, ones in found.items()})
