"""What is in a zone while it is parked and after it, and what the driver reads in its own mark."""

import uuid
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.values import ResourceState, ServiceId
from workers.provisioning.drivers.port import DriverAnswer, DriverState, Operation, OperationKind
from workers.provisioning.drivers.powerdns import records
from workers.provisioning.drivers.powerdns.settings import (
    ParkingRecord,
    PowerDnsSettings,
    RecordTemplate,
)
from workers.provisioning.drivers.powerdns.steps import (
    Bury,
    Change,
    Claim,
    CreateZone,
    DeleteZone,
    Seen,
    next_step,
)
from workers.provisioning.drivers.powerdns.zone import (
    FENCES_KEPT,
    KEYS_KEPT,
    Mark,
    MarkBroken,
    Parked,
    Record,
    RRset,
    Zone,
    ZoneDocument,
    account_of,
    marking,
    read_mark,
    read_zone,
    write_mark,
)

DOMAIN = "shop.example"
SERVICE = ServiceId(uuid.UUID("3f0c1111-2222-4333-8444-555566667777"))
SETTINGS = PowerDnsSettings(
    url="https://dns.example/api/v1",
    token="key",
    nameservers=("ns1.example.net",),
    templates={"*": (RecordTemplate(type="A", content="192.0.2.10"),)},
    parking=(
        ParkingRecord(type="A", content="192.0.2.1"),
        ParkingRecord(name="*", type="A", content="192.0.2.1"),
        ParkingRecord(name="www", type="AAAA", content="2001:DB8::1"),
        ParkingRecord(name="www", type="TXT", content="parked"),
    ),
)
PARKING = records.filled(SETTINGS.parking, DOMAIN, SERVICE)

Rrsets = dict[tuple[str, str], RRset]

CONTENTS = {
    "A": ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
    "AAAA": ["2001:db8::1", "2001:db8::2"],
    "CNAME": ["a.example.", "b.example."],
    "TXT": ['"parked"', '"Parked"', '"other"'],
}


@st.composite
def zones(draw: st.DrawFn) -> Rrsets:
    """What the server takes: at one name, a CNAME that is served stands alone."""
    found: Rrsets = {}
    for name in (f"{DOMAIN}.", f"www.{DOMAIN}.", f"*.{DOMAIN}."):
        for kind, contents in CONTENTS.items():
            most = 1 if kind == "CNAME" else len(contents)
            chosen = draw(st.lists(st.sampled_from(contents), max_size=most, unique=True))
            if chosen:
                made = tuple(Record(content=c, disabled=draw(st.booleans())) for c in chosen)
                ttl = draw(st.sampled_from((60, 3600)))
                found[name, kind] = RRset(name=name, type=kind, ttl=ttl, records=made)
        cname = found.get((name, "CNAME"))
        others = [r for (n, k), r in found.items() if n == name and k != "CNAME" and r.is_served]
        if cname and cname.is_served and others:
            del found[name, "CNAME"]
    return found


def applied(rrsets: Rrsets, changes: list[dict[str, Any]]) -> Rrsets:
    """What PowerDNS makes of changes, one after the other; it refuses a CNAME beside another."""
    found = dict(rrsets)
    for change in changes:
        key = change["name"], change["type"]
        found.pop(key, None)
        if change["changetype"] == "DELETE":
            continue
        beside = [k for (n, k), r in found.items() if n == change["name"] and r.is_served]
        assert "CNAME" not in beside, f"conflict at {key}"
        assert change["type"] != "CNAME" or not beside, f"conflict at {key}"
        found[key] = RRset.model_validate(change)
    return found


def zone(rrsets: Rrsets, mark: Mark | None = None) -> Zone:
    return Zone(DOMAIN, account_of(SERVICE), list(rrsets.values()), mark)


def unordered(rrsets: Rrsets) -> dict[tuple[str, str], Any]:
    return {key: (r.ttl, frozenset(r.records)) for key, r in rrsets.items()}


@given(zones())
def test_zone_that_was_parked_has_all_its_own_records_back(before: Rrsets) -> None:
    changes, noted = records.parked(zone(before), PARKING)
    parked = applied(before, changes)
    after = applied(parked, records.unparked(zone(parked), noted))
    assert unordered(after) == unordered(before)


@given(zones())
def test_parked_zone_serves_the_parking_records_and_no_others(before: Rrsets) -> None:
    changes, _ = records.parked(zone(before), PARKING)
    served = {
        (r.name, r.type, record.content)
        for r in applied(before, changes).values()
        for record in r.records
        if not record.disabled
    }
    wanted = {(r.name, r.type, record.content.lower()) for r in PARKING for record in r.records}
    assert {(name, kind, content.lower()) for name, kind, content in served} == wanted


marks = st.builds(
    Mark,
    service_id=st.just(str(SERVICE)),
    version=st.integers(0, 10_000),
    generation=st.integers(0, 10_000),
    state=st.sampled_from([ResourceState.ACTIVE, ResourceState.SUSPENDED]),
    paid_until=st.none() | st.dates(),
    is_ending=st.booleans(),
    keys=st.dictionaries(
        st.text("0123456789abcdef", min_size=32, max_size=32),
        st.text("0123456789abcdef", min_size=32, max_size=32),
        max_size=KEYS_KEPT,
    ),
    parked=st.builds(
        Parked, *[st.frozensets(st.text("0123456789abcdef", min_size=24, max_size=24))] * 3
    ),
)


@given(marks)
def test_mark_is_read_as_it_was_written(mark: Mark) -> None:
    rrsets = applied({}, marking(DOMAIN, mark))
    document = ZoneDocument(name=f"{DOMAIN}.", rrsets=tuple(rrsets.values()))
    read = read_zone(document).mark
    assert read is not None
    assert read == replace(mark, version=mark.version + 1)
    assert list(read.keys) == list(mark.keys)
    assert all(len(r.content) <= 255 for rrset in rrsets.values() for r in rrset.records)


def test_last_fences_of_a_zone_stay_and_older_ones_go() -> None:
    rrsets: Rrsets = {}
    for version in range(FENCES_KEPT + 10):
        rrsets = applied(rrsets, marking(DOMAIN, Mark(str(SERVICE), version)))
    fences = {int(name.split(".")[0]) for name, kind in rrsets if kind == "CNAME"}
    assert fences == set(range(10, FENCES_KEPT + 10))


def test_version_that_somebody_else_has_written_cannot_be_written_again() -> None:
    rrsets = applied({}, marking(DOMAIN, Mark(str(SERVICE), 7)))
    with pytest.raises(AssertionError, match=r"conflict at .'7\._autorenew"):
        applied(rrsets, marking(DOMAIN, Mark(str(SERVICE), 7)))


@pytest.mark.parametrize(
    "rrset",
    [
        RRset(name=f"3._autorenew.{DOMAIN}.", type="CNAME", records=(Record(content="x."),)),
        RRset(name=f"_autorenew.{DOMAIN}.", type="TXT", records=(Record(content='"hello"'),)),
        RRset(name=f"_autorenew.{DOMAIN}.", type="TXT",
              records=(Record(content='"service=x generation=y version=1 state=active"'),)),
        RRset(name=f"_autorenew.{DOMAIN}.", type="A", records=(Record(content="192.0.2.1"),)),
    ],
)  # fmt: skip
def test_mark_that_cannot_be_read_is_not_taken_for_none(rrset: RRset) -> None:
    with pytest.raises(MarkBroken):
        read_zone(ZoneDocument(name=f"{DOMAIN}.", rrsets=(rrset,)))


def test_line_of_a_mark_is_what_a_person_can_read() -> None:
    mark = Mark(str(SERVICE), 4, 2, ResourceState.SUSPENDED, date(2026, 3, 2))
    line = f"service={SERVICE} generation=2 state=suspended paid_until=2026-03-02 version=4"
    assert write_mark(mark) == line
    assert read_mark(line) == mark


CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind


def operation(kind: OperationKind, generation: int = 5, **changes: Any) -> Operation:
    facts: dict[str, Any] = {
        "key": "key-1", "customer": "c-1", "plan": "web", "configuration": {"domain": DOMAIN},
        "paid_until": date(2026, 3, 2),
    }  # fmt: skip
    return Operation(kind=kind, generation=generation, service_id=SERVICE, **(facts | changes))


def step(kind: OperationKind, seen: Seen, **changes: Any) -> Any:
    return next_step(operation(kind, **changes), seen, SETTINGS)


SHELL = zone({})
MARKED = zone({}, Mark(str(SERVICE), 3, 4))
FOREIGN = Zone(DOMAIN, "", [], None)
OTHERS = Zone(DOMAIN, account_of(uuid.uuid4()), [], None)


class TestSteps:
    def test_creation_remembers_the_zone_then_makes_it_then_fills_it(self) -> None:
        assert step(CREATE, Seen()) == Claim(DOMAIN)
        assert step(CREATE, Seen(claim=DOMAIN)) == CreateZone(DOMAIN)
        filled = step(CREATE, Seen(claim=DOMAIN, zone=SHELL))
        assert isinstance(filled, Change)
        assert (filled.ends, filled.mark.version, filled.mark.generation) == (True, 0, 5)

    def test_zone_that_is_filled_is_the_one_that_is_remembered(self) -> None:
        assert step(CREATE, Seen(claim="first.example", zone=SHELL)) == Claim(DOMAIN)

    def test_zone_of_a_domain_that_was_corrected_is_deleted_first(self) -> None:
        old = replace(SHELL, name="first.example")
        assert step(CREATE, Seen(claim=old.name, zone=old)) == DeleteZone(old.name)
        assert step(CREATE, Seen(claim=old.name)) == Claim(DOMAIN)

    def test_termination_is_remembered_before_anything_is_deleted(self) -> None:
        assert step(TERMINATE, Seen(claim=DOMAIN, zone=MARKED)) == Bury(5)
        ending = step(TERMINATE, Seen(claim=DOMAIN, zone=MARKED, gone=5))
        assert isinstance(ending, Change)
        assert (ending.mark.is_ending, ending.mark.version, ending.ends) == (True, 3, False)
        ended = zone({}, replace(ending.mark, version=4))
        assert step(TERMINATE, Seen(claim=DOMAIN, zone=ended, gone=5)) == DeleteZone(DOMAIN)
        answer = step(TERMINATE, Seen(claim=DOMAIN, gone=5))
        assert answer.state is DriverState.DONE
        assert answer.resource.generation == 5

    @pytest.mark.parametrize("kind", list(OperationKind))
    @pytest.mark.parametrize("theirs", [FOREIGN, OTHERS])
    @pytest.mark.parametrize("claim", [DOMAIN, None])
    @pytest.mark.parametrize("gone", [5, None])
    def test_zone_that_is_not_the_services_is_never_changed(
        self, kind: OperationKind, theirs: Zone, claim: str | None, gone: int | None
    ) -> None:
        found = step(kind, Seen(claim, gone, theirs))
        assert isinstance(found, DriverAnswer | Bury | Claim)

    @pytest.mark.parametrize("kind", [SUSPEND, RESUME, EXTEND])
    def test_zone_that_is_about_to_be_deleted_is_gone(self, kind: OperationKind) -> None:
        ending = zone({}, Mark(str(SERVICE), 3, 4, is_ending=True))
        assert step(kind, Seen(claim=DOMAIN, zone=ending)).reason == "no_zone"
        assert step(CREATE, Seen(claim=DOMAIN, zone=ending)) == DeleteZone(DOMAIN)

    def test_empty_zone_of_a_create_that_was_overtaken_is_deleted(self) -> None:
        assert step(CREATE, Seen(DOMAIN, 6, SHELL)) == DeleteZone(DOMAIN)
        assert step(CREATE, Seen(DOMAIN, 6)).state is DriverState.STALE

    def test_imported_zone_is_marked_before_anything_is_done_to_it(self) -> None:
        first = step(SUSPEND, Seen(zone=FOREIGN), resource_id=DOMAIN)
        assert first == Change(DOMAIN, Mark(str(SERVICE)), [], ends=False)
        marked = replace(FOREIGN, mark=Mark(str(SERVICE), 1))
        assert step(SUSPEND, Seen(zone=marked), resource_id=DOMAIN) == Claim(DOMAIN)
