"""Faults of the server, of the settings, and of people who change what is the driver's."""

import time
from pathlib import Path

import pytest

from schemas.books import BookUnavailable
from schemas.values import ResourceState
from tests.integration.powerdns.sites import Site, driver_of
from tests.support.powerdns import KEY, PowerDns, options
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import DriverState, OperationKind
from workers.provisioning.drivers.powerdns import PowerDnsDriver

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState


def test_server_that_is_down_has_done_nothing(tmp_path: Path) -> None:
    server = PowerDns(tmp_path)
    with Waiting(driver_of(server)) as driver:
        site = Site(driver, server)
        assert site.does(CREATE, 1).state is DriverState.UNAVAILABLE
        server.start()
        try:
            assert site.does(CREATE, 1).state is DriverState.DONE
        finally:
            server.stop()


def test_server_that_hangs_leaves_it_unknown_within_the_deadline(tmp_path: Path) -> None:
    server = PowerDns(tmp_path)
    server.start()
    try:
        with Waiting(driver_of(server, seconds=0.5)) as driver:
            site = Site(driver, server)
            server.pause()
            started = time.monotonic()
            answer = site.does(CREATE, 1)
            assert time.monotonic() - started < 15
            assert answer.state is DriverState.UNKNOWN
            server.go_on()
            assert Site(driver, server).service.state is ABSENT
        with Waiting(driver_of(server)) as driver:
            assert site.on(driver).does(CREATE, 1).state is DriverState.DONE
    finally:
        server.stop()


def test_wrong_key_is_permanent_and_says_so_without_it(site: Site, server: PowerDns) -> None:
    with Waiting(driver_of(server, token="no-such-key-55")) as other:
        answer = site.on(other).does(CREATE, 1)
    assert (answer.state, answer.reason) == (DriverState.PERMANENT, "unauthorized")
    assert "no-such-key-55" not in repr(answer)


@pytest.mark.parametrize(
    "change", [{"server": "elsewhere"}, {"url": "/v1"}, {"url": "/api/v1/zones"}], ids=str
)
def test_url_that_is_not_the_api_is_never_taken_for_an_empty_server(
    site: Site, server: PowerDns, change: dict[str, str]
) -> None:
    base = server.url.removesuffix("/api/v1")
    changes = {name: base + v if name == "url" else v for name, v in change.items()}
    with Waiting(driver_of(server, **changes)) as other:
        service = site.on(other)
        create, terminate = service.operation(CREATE, 1), service.operation(TERMINATE, 1)
        for answer in (other.perform(create), other.ask(create), other.perform(terminate)):
            assert (answer.state, answer.reason) == (DriverState.PERMANENT, "no_such_server")
        with pytest.raises(BookUnavailable):
            other.resources(None)


def test_mark_that_somebody_changed_is_for_a_person(site: Site, server: PowerDns) -> None:
    site.does(CREATE, 1)
    server.put(site.domain, f"_autorenew.{site.domain}", "TXT")
    for answer in (site.does(SUSPEND, 2), site.service.ask()):
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "mark_broken")
    assert site.ask() == ["192.0.2.10"]


@pytest.mark.parametrize("name", ["", "gone."])
def test_registry_that_somebody_changed_is_for_a_person(
    site: Site, server: PowerDns, name: str
) -> None:
    site.does(CREATE, 1)
    entry = f"{name}{site.service.id}.autorenew.invalid"
    server.put("autorenew.invalid", entry, "TXT", '"generation=soon"')
    answer = site.does(SUSPEND, 2)
    assert (answer.state, answer.reason) == (DriverState.REFUSED, "mark_broken")
    assert answer.words == entry


def test_zone_that_no_request_can_hold_is_refused_and_left_as_it_is(
    site: Site, server: PowerDns
) -> None:
    site.does(CREATE, 1)
    long = " ".join(['"' + "x" * 255 + '"'] * 15)
    for part in range(3):
        names = [f"t{part}-{n}.{site.domain}" for n in range(200)]
        changes = [
            {"name": f"{name}.", "type": "TXT", "ttl": 60, "changetype": "REPLACE",
             "records": [{"content": long, "disabled": False}]}
            for name in names
        ]  # fmt: skip
        server.api("PATCH", f"/zones/{site.domain}.", {"rrsets": changes})
    for _ in range(5):  # the server closes what is too large, sometimes before it has answered
        answer = site.does(SUSPEND, 2)
        if answer.state is not DriverState.UNKNOWN:
            break
    assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_too_large")
    assert site.ask() == ["192.0.2.10"]
    # What changes no records can still be done to it.
    assert site.does(EXTEND, 2).state is DriverState.DONE


def test_key_of_the_api_is_in_no_answer_and_no_text_of_the_settings(server: PowerDns) -> None:
    settings = PowerDnsDriver.Settings(**options(server))
    assert KEY not in f"{settings!r} {settings} {settings.model_dump()}"
