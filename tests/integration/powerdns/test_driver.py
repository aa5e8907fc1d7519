"""The driver of DNS zones passes the suite of drivers, and says what exists."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from autorenew.local.ports import free_port
from schemas.values import ResourceState
from tests.integration.powerdns.sites import Site, a_domain, driver_of, is_publishing
from tests.support.between import Between, Fate
from tests.support.far_side import FarSide, answers
from tests.support.powerdns import KEY, PowerDns
from workers.conformance import DriverConformance
from workers.conformance.drivers import Service, whole
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import Driver, DriverState, OperationKind
from workers.provisioning.drivers.powerdns import PowerDnsDriver

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState


class TestConformance(DriverConformance):
    @pytest.fixture
    def driver(self, server: PowerDns) -> Driver:
        return driver_of(server)

    @pytest.fixture
    def facts(self) -> Callable[[], dict[str, Any]]:
        return lambda: {"configuration": {"domain": a_domain()}}

    @pytest.fixture
    def named(self, server: PowerDns) -> Callable[[], str]:
        def make() -> str:
            name = a_domain()
            server.make_zone(name, (name, "A", "203.0.113.5"))
            return name

        return make

    @pytest.fixture
    def unreachable(self, server: PowerDns) -> Driver:
        return driver_of(server, url=f"http://127.0.0.1:{free_port()}/api/v1", seconds=0.2)

    @pytest.fixture
    def unauthorized(self, server: PowerDns) -> Driver:
        return driver_of(server, token="not-the-key")

    @pytest.fixture
    def deaf(self, server: PowerDns) -> Iterator[Driver]:
        """Nobody hears that the zone got its records, which is what a create ends with."""

        def fate(method: str, path: str) -> Fate:
            return Fate.LOSES_ITS_ANSWER if is_publishing(method, path) else Fate.PASSES

        with Between(server.url, fate) as between:
            yield driver_of(server, url=between.url, seconds=2)

    @pytest.fixture
    def busy(self, server: PowerDns) -> Iterator[Driver]:
        """What stands before a PowerDNS may limit calls."""
        with FarSide(answers(429, b"slow down", Retry_After="7")) as far_side:
            yield driver_of(server, url=far_side.url)

    @pytest.fixture
    def unacceptable(self) -> dict[str, Any]:
        return {"configuration": {"domain": "not a domain"}}

    def test_a_key_belongs_to_its_service(self, new_service: Callable[[], Service]) -> None:
        # What is remembered is in the zone, and another service has another one.
        service, other = new_service(), new_service()
        create = service.operation(CREATE, 1)
        service.perform(create)
        assert other.does(CREATE, 1, key=create.key).state is DriverState.DONE


def test_list_has_zones_of_services_and_others_but_not_those_that_are_not_sold(
    site: Site, server: PowerDns
) -> None:
    site.does(CREATE, 1)
    foreign, own = a_domain(), a_domain()
    server.make_zone(foreign)
    server.make_zone(own)
    with Waiting(driver_of(server, not_sold=[own])) as other:
        listed = {entry.resource_id: entry for entry in whole(other)}
    assert listed[site.domain].service_id == str(site.service.id)
    assert listed[site.domain].paid_until == date(2026, 3, 2)
    assert listed[foreign].service_id is None
    assert not {own, "autorenew.invalid"} & listed.keys()


def test_zone_that_was_adopted_is_listed_as_its_service(
    site: Site, driver: Waiting, server: PowerDns
) -> None:
    server.make_zone(site.domain)
    site.does(SUSPEND, 1, resource_id=site.domain)
    (entry,) = [e for e in whole(driver) if e.resource_id == site.domain]
    assert (entry.service_id, entry.state) == (str(site.service.id), SUSPENDED)
    assert server.zones()[site.domain] == f"ar-{site.service.id}"


@pytest.mark.parametrize(
    ("kind", "contents"),
    [
        ("A", ["192.0.2.1"]),
        ("TXT", ['"hello"']),
        ("TXT", ['"service=x generation=soon version=1 state=active"']),
        ("TXT", ['"service=x generation=1 version=1 state=active"', '"hello"']),
    ],
    ids=str,
)
def test_record_that_is_no_mark_hides_no_zone_from_the_list(
    site: Site, driver: Waiting, server: PowerDns, kind: str, contents: list[str]
) -> None:
    site.does(CREATE, 1)
    broken, foreign = Site(driver, server), a_domain()
    broken.does(CREATE, 1)
    server.make_zone(foreign)
    for domain in (broken.domain, foreign):
        server.put(domain, f"_autorenew.{domain}", "TXT")
        server.put(domain, f"_autorenew.{domain}", kind, *contents)
    listed = {entry.resource_id: entry for entry in whole(driver)}
    for domain in (broken.domain, foreign):
        server.api("DELETE", f"/zones/{domain}.")
    assert listed[site.domain].paid_until == date(2026, 3, 2)
    assert listed[broken.domain].service_id == str(broken.service.id)
    assert listed[broken.domain].paid_until is None
    assert listed[foreign].service_id is None


def test_record_of_the_customer_beside_the_mark_hides_it_neither(
    site: Site, driver: Waiting, server: PowerDns
) -> None:
    site.does(CREATE, 1)
    server.put(site.domain, f"_autorenew.{site.domain}", "A", "192.0.2.1")
    site.does(SUSPEND, 2)
    (entry,) = [e for e in whole(driver) if e.resource_id == site.domain]
    assert (entry.service_id, entry.state) == (str(site.service.id), SUSPENDED)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"nameservers": []}, "nameservers"),
        ({"nameservers": ["ns1 example"]}, "nameservers"),
        ({"templates": {"p": [{"type": "A", "content": "2001:db8::1"}]}}, "templates"),
        ({"templates": {"p": [{"type": "MX", "content": "10 mail"}]}}, "templates"),
        ({"templates": {"p": [{"type": "SOA", "content": "x."}]}}, "templates"),
        ({"templates": {"p": [{"type": "CNAME", "content": "x.example."}]}}, "templates"),
        ({"parking": [{"name": "www", "type": "CNAME", "content": "x.example."}]}, "parking"),
        ({"token": None}, "token"),
        ({"colour": "red"}, "colour"),
    ],
    ids=str,
)
def test_setting_that_cannot_work_is_named_before_anything_is_sold(
    changes: dict[str, Any], where: str
) -> None:
    good: dict[str, Any] = {
        "url": "https://dns.example/api/v1", "token": KEY, "nameservers": ["ns1.example.net"],
        "templates": {},
    }  # fmt: skip
    PowerDnsDriver.Settings(**good)
    with pytest.raises(ValidationError) as caught:
        PowerDnsDriver.Settings(**(good | changes))
    assert where in [error["loc"][0] for error in caught.value.errors()]
