"""The driver of DNS zones, over a real PowerDNS."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from autorenew.local.ports import free_port
from schemas.books import BookUnavailable
from schemas.values import ResourceState
from tests.support.between import Between, Fate
from tests.support.far_side import FarSide, answers
from tests.support.powerdns import KEY, PowerDns, options
from workers.conformance import DriverConformance
from workers.conformance.drivers import Service, whole
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import Driver, DriverState, OperationKind
from workers.provisioning.drivers.powerdns import PowerDnsDriver

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDns]:
    server = PowerDns(tmp_path_factory.mktemp("powerdns"))
    server.start()
    yield server
    server.stop()


def a_domain() -> str:
    return f"site-{uuid.uuid4().hex[:10]}.example"


def driver_of(server: PowerDns, **changes: Any) -> PowerDnsDriver:
    return PowerDnsDriver("web", PowerDnsDriver.Settings(**options(server, **changes)))


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
            yield driver_of(server, url=between.url, seconds=0.5)

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


class Site:
    """A service with a domain of its own, as its driver and as resolvers see it."""

    def __init__(self, driver: Waiting, server: PowerDns, domain: str = "") -> None:
        self.domain = domain or a_domain()
        self.server = server
        self.service = Service(driver, {"configuration": {"domain": self.domain}})
        self.does = self.service.does

    def on(self, driver: Waiting) -> Service:
        """The same service, at another driver of the same server."""
        same = Service(driver, {"configuration": {"domain": self.domain}})
        same.id = self.service.id
        return same

    def ask(self, kind: str = "A", name: str = "") -> list[str] | str:
        return self.server.ask(f"{name}.{self.domain}" if name else self.domain, kind)


@pytest.fixture
def driver(server: PowerDns) -> Iterator[Waiting]:
    with Waiting(driver_of(server)) as waiting:
        yield waiting


@pytest.fixture
def site(driver: Waiting, server: PowerDns) -> Site:
    return Site(driver, server)


def served(site: Site) -> dict[str, Any]:
    return {
        "A": site.ask("A"), "AAAA": site.ask("AAAA"), "MX": site.ask("MX"),
        "www": site.ask("CNAME", "www"), "text": site.ask("TXT", "_service"),
    }  # fmt: skip


class TestWhatResolversGet:
    def test_created_zone_has_the_records_of_its_plan(self, site: Site) -> None:
        assert site.ask() == "REFUSED"

        answer = site.does(CREATE, 1)

        assert answer.resource is not None
        assert answer.resource.resource_id == site.domain
        assert answer.resource.details == {
            "zone": site.domain,
            "nameservers": "ns1.hosting.example, ns2.hosting.example",
        }
        assert served(site) == {
            "A": ["192.0.2.10"],
            "AAAA": ["2001:db8::10"],
            "MX": ["10 mx.hosting.example."],
            "www": [f"{site.domain}."],
            "text": [f'"service {site.service.id}"'],
        }
        assert site.ask("NS") == ["ns1.hosting.example.", "ns2.hosting.example."]
        (soa,) = site.ask("SOA")
        assert soa.startswith(f"ns1.hosting.example. hostmaster.{site.domain}. ")

    def test_plan_without_a_template_of_its_own_has_that_of_all_others(self, site: Site) -> None:
        site.does(CREATE, 1, plan="web-pro")
        assert site.ask() == ["192.0.2.20"]
        assert site.ask("CNAME", "www") == "NXDOMAIN"

    def test_suspended_zone_has_the_parking_records_only(self, site: Site) -> None:
        site.does(CREATE, 1)
        site.does(SUSPEND, 2)
        assert site.ask() == site.ask(name="www") == site.ask(name="any") == ["192.0.2.99"]
        assert site.ask("AAAA") == ["2001:db8::99"]
        assert site.ask("TXT") == ['"v=spf1 -all"']
        assert site.ask("MX") == site.ask("CNAME", "www") == []
        assert site.ask("NS") == ["ns1.hosting.example.", "ns2.hosting.example."]

    def test_resumed_zone_has_what_the_customer_had_put_into_it(
        self, site: Site, server: PowerDns
    ) -> None:
        # Given records of the customer's, one of which they switched off
        site.does(CREATE, 1)
        domain = site.domain
        server.put(domain, domain, "A", "198.51.100.7", "198.51.100.8")
        server.put(domain, domain, "MX")
        server.put(domain, f"shop.{domain}", "A", "198.51.100.9")
        server.put(domain, f"old.{domain}", "A", "198.51.100.1", disabled=True)
        server.put(domain, f"*.{domain}", "CNAME", "elsewhere.example.")
        server.put(domain, f"sub.{domain}", "NS", "ns.elsewhere.example.")
        before = server.api("GET", f"/zones/{domain}.")["rrsets"]
        # When it is suspended, twice, and resumed, twice
        for generation, kind in enumerate((SUSPEND, SUSPEND, RESUME, RESUME), 2):
            assert site.does(kind, generation).state is DriverState.DONE
            if kind is SUSPEND:
                assert site.ask(name="shop") == site.ask(name="sub") == ["192.0.2.99"]
        # Then everything is as it was.
        after = server.api("GET", f"/zones/{domain}.")["rrsets"]
        assert _theirs(after) == _theirs(before)
        assert site.ask() == ["198.51.100.7", "198.51.100.8"]
        assert site.ask("CNAME", "any") == ["elsewhere.example."]
        assert site.ask(name="old") == []

    def test_record_of_the_customer_that_is_the_parking_record_survives_it(
        self, site: Site, server: PowerDns
    ) -> None:
        site.does(CREATE, 1)
        server.put(site.domain, site.domain, "A", "192.0.2.99", "198.51.100.7")
        server.put(site.domain, site.domain, "AAAA", "2001:db8::99", disabled=True)
        site.does(SUSPEND, 2)
        assert site.ask() == ["192.0.2.99"]
        assert site.ask("AAAA") == ["2001:db8::99"]
        site.does(RESUME, 3)
        assert site.ask() == ["192.0.2.99", "198.51.100.7"]
        assert site.ask("AAAA") == []

    def test_record_that_was_added_to_a_suspended_zone_stays(
        self, site: Site, server: PowerDns
    ) -> None:
        site.does(CREATE, 1)
        site.does(SUSPEND, 2)
        server.put(site.domain, f"_acme-challenge.{site.domain}", "TXT", '"token"')
        site.does(RESUME, 3)
        assert site.ask("TXT", "_acme-challenge") == ['"token"']

    def test_parking_records_of_other_settings_are_taken_away_as_they_were_put(
        self, site: Site, server: PowerDns
    ) -> None:
        site.does(CREATE, 1)
        site.does(SUSPEND, 2)
        with Waiting(driver_of(server, parking=[{"type": "A", "content": "192.0.2.1"}])) as other:
            site.on(other).does(RESUME, 3)
        assert site.ask() == ["192.0.2.10"]
        assert site.ask("TXT") == []

    def test_what_the_driver_keeps_in_a_zone_is_not_served(self, site: Site) -> None:
        site.does(CREATE, 1)
        for name in ("_autorenew", "keys._autorenew", "parked._autorenew"):
            assert site.ask("TXT", name) in ([], "NXDOMAIN")

    def test_terminated_zone_is_served_no_more(self, site: Site, server: PowerDns) -> None:
        site.does(CREATE, 1)
        site.does(TERMINATE, 2)
        assert site.ask() == "REFUSED"
        assert site.domain not in server.zones()

    def test_adopted_zone_keeps_its_records(self, site: Site, server: PowerDns) -> None:
        server.make_zone(site.domain, (site.domain, "A", "203.0.113.5"))
        site.does(SUSPEND, 1, resource_id=f"{site.domain}.")
        assert site.ask() == ["192.0.2.99"]
        site.does(RESUME, 2, resource_id=site.domain)
        assert site.ask() == ["203.0.113.5"]
        assert site.ask("NS") == ["ns.elsewhere.example."]


def _theirs(rrsets: list[dict[str, Any]]) -> list[Any]:
    return sorted(
        (
            r["name"],
            r["type"],
            r["ttl"],
            sorted((x["content"], x["disabled"]) for x in r["records"]),
        )
        for r in rrsets
        if "_autorenew" not in r["name"] and r["type"] != "SOA"
    )


class TestWhoseZoneItIs:
    def test_zone_of_another_service_is_taken(
        self, site: Site, driver: Waiting, server: PowerDns
    ) -> None:
        site.does(CREATE, 1)
        other = Site(driver, server, site.domain.upper())
        for kind in (CREATE, SUSPEND, RESUME, EXTEND):
            answer = other.does(kind, 1)
            assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_taken")
        # And ending the service that got nothing leaves the other's zone alone.
        assert other.does(TERMINATE, 2).state is DriverState.DONE
        assert site.ask() == ["192.0.2.10"]
        assert site.service.resource.generation == 1

    def test_zone_that_somebody_else_made_is_never_touched(
        self, site: Site, server: PowerDns
    ) -> None:
        server.make_zone(site.domain, (site.domain, "A", "203.0.113.5"))
        before = server.api("GET", f"/zones/{site.domain}.")
        answer = site.does(CREATE, 1)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_taken")
        assert site.does(SUSPEND, 2).reason == "zone_taken"
        assert site.does(TERMINATE, 3).state is DriverState.DONE
        assert server.api("GET", f"/zones/{site.domain}.") == before

    def test_zone_that_was_put_in_the_place_of_a_service_is_not_adopted(
        self, site: Site, server: PowerDns
    ) -> None:
        # Given a service whose zone was deleted by hand, and made anew for somebody else
        site.does(CREATE, 1)
        server.api("DELETE", f"/zones/{site.domain}.")
        server.make_zone(site.domain, (site.domain, "A", "203.0.113.5"))
        # When something is done to it by the name that the fleet has written down
        for kind in (SUSPEND, TERMINATE):
            site.does(kind, 2, resource_id=site.domain)
        # Then it is not done to that one.
        assert site.ask() == ["203.0.113.5"]

    def test_name_below_a_zone_of_somebody_else_is_taken(
        self, site: Site, driver: Waiting, server: PowerDns
    ) -> None:
        site.does(CREATE, 1)
        answer = Site(driver, server, f"a.www.{site.domain}").does(CREATE, 1)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_taken")
        assert answer.words == f"it would lie in {site.domain}"

    def test_registry_is_not_for_sale(self, driver: Waiting, server: PowerDns) -> None:
        for name in ("autorenew.invalid", "www.autorenew.invalid"):
            assert Site(driver, server, name).does(CREATE, 1).reason == "zone_taken"

    @pytest.mark.parametrize(
        "domain",
        [
            "", "example", "a b.example", "-a.example", "a_b.example", "münchen.example",
            "192.0.2.1", "a..example", "../zones", "x" * 64 + ".example", "a." * 120 + "example",
            "*.example", "a.example/x",
        ],
    )  # fmt: skip
    def test_domain_that_is_none_is_refused(
        self, driver: Waiting, server: PowerDns, domain: str
    ) -> None:
        service = Service(driver, {"configuration": {"domain": domain}})
        answer = service.does(CREATE, 1)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "domain_invalid")
        assert service.does(TERMINATE, 2).state is DriverState.DONE

    def test_order_without_a_domain_is_refused(self, driver: Waiting) -> None:
        service = Service(driver, {"configuration": {}})
        assert service.does(CREATE, 1).reason == "domain_invalid"

    @pytest.mark.parametrize("name", ["", "a b", "ü.example", "../../x", "a" * 300, ".", "a..b"])
    def test_name_of_an_import_that_is_no_zone_is_refused(self, site: Site, name: str) -> None:
        answer = site.does(SUSPEND, 1, resource_id=name)
        assert answer.state is DriverState.REFUSED
        assert answer.reason

    def test_plan_that_has_no_template_is_refused(self, site: Site, server: PowerDns) -> None:
        with Waiting(driver_of(server, templates={})) as other:
            assert site.on(other).does(CREATE, 1).reason == "no_template"
        assert site.domain not in server.zones()

    def test_template_that_the_server_refuses_says_why(self, site: Site, server: PowerDns) -> None:
        bad = [{"name": "www", "type": t, "content": c} for t, c in
               (("A", "192.0.2.1"), ("CNAME", "x.example."))]  # fmt: skip
        with Waiting(driver_of(server, templates={"*": bad})) as other:
            answer = site.on(other).does(CREATE, 1)
            assert (answer.state, answer.reason) == (DriverState.REFUSED, "unprocessable")
            assert f"www.{site.domain}" in (answer.words or "")
            assert site.service.state is ABSENT
        # Once the template is mended, it is created by trying again.
        assert site.does(CREATE, 1).state is DriverState.DONE
        assert site.ask() == ["192.0.2.10"]


class TestFaults:
    def test_server_that_is_down_has_done_nothing(self, tmp_path: Path) -> None:
        server = PowerDns(tmp_path)
        with Waiting(driver_of(server, seconds=0.3)) as driver:
            site = Site(driver, server)
            assert site.does(CREATE, 1).state is DriverState.UNAVAILABLE
            server.start()
            try:
                assert site.does(CREATE, 1).state is DriverState.DONE
            finally:
                server.stop()

    def test_server_that_hangs_leaves_it_unknown_within_the_deadline(self, tmp_path: Path) -> None:
        server = PowerDns(tmp_path)
        server.start()
        try:
            with Waiting(driver_of(server, seconds=0.5)) as driver:
                site = Site(driver, server)
                server.pause()
                started = time.monotonic()
                answer = site.does(CREATE, 1)
                assert time.monotonic() - started < 1.5
                assert answer.state is DriverState.UNKNOWN
                server.go_on()
                assert Site(driver, server).service.state is ABSENT
            with Waiting(driver_of(server)) as driver:
                assert site.on(driver).does(CREATE, 1).state is DriverState.DONE
        finally:
            server.stop()

    def test_wrong_key_is_permanent_and_says_so_without_it(
        self, site: Site, server: PowerDns
    ) -> None:
        with Waiting(driver_of(server, token="no-such-key-55")) as other:
            answer = site.on(other).does(CREATE, 1)
        assert (answer.state, answer.reason) == (DriverState.PERMANENT, "unauthorized")
        assert "no-such-key-55" not in repr(answer)

    @pytest.mark.parametrize(
        "change", [{"server": "elsewhere"}, {"url": "/v1"}, {"url": "/api/v1/zones"}], ids=str
    )
    def test_url_that_is_not_the_api_is_never_taken_for_an_empty_server(
        self, site: Site, server: PowerDns, change: dict[str, str]
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

    def test_mark_that_somebody_changed_is_for_a_person(self, site: Site, server: PowerDns) -> None:
        site.does(CREATE, 1)
        server.put(site.domain, f"_autorenew.{site.domain}", "TXT")
        for answer in (site.does(SUSPEND, 2), site.service.ask()):
            assert (answer.state, answer.reason) == (DriverState.REFUSED, "mark_broken")
        assert site.ask() == ["192.0.2.10"]

    @pytest.mark.parametrize("name", ["", "gone."])
    def test_registry_that_somebody_changed_is_for_a_person(
        self, site: Site, server: PowerDns, name: str
    ) -> None:
        site.does(CREATE, 1)
        entry = f"{name}{site.service.id}.autorenew.invalid"
        server.put("autorenew.invalid", entry, "TXT", '"generation=soon"')
        answer = site.does(SUSPEND, 2)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "mark_broken")
        assert answer.words == entry

    def test_zone_that_no_request_can_hold_is_refused_and_left_as_it_is(
        self, site: Site, server: PowerDns
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
        answer = site.does(SUSPEND, 2)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_too_large")
        assert site.ask() == ["192.0.2.10"]
        # What changes no records can still be done to it.
        assert site.does(EXTEND, 2).state is DriverState.DONE

    def test_key_of_the_api_is_in_no_answer_and_no_text_of_the_settings(
        self, server: PowerDns
    ) -> None:
        settings = PowerDnsDriver.Settings(**options(server))
        assert KEY not in f"{settings!r} {settings} {settings.model_dump()}"


def is_publishing(method: str, path: str) -> bool:
    return method == "PATCH" and "autorenew.invalid" not in path


class TestWhatArrivesLate:
    """Two workers, and requests that the server gets when nobody waits for them any more."""

    @pytest.fixture
    def late(self, server: PowerDns) -> Iterator[Between]:
        def fate(method: str, path: str) -> Fate:
            return Fate.IS_LATE if is_publishing(method, path) else Fate.PASSES

        with Between(server.url, fate) as between:
            yield between

    def test_suspension_that_arrives_after_the_resumption_changes_nothing(
        self, site: Site, server: PowerDns, late: Between
    ) -> None:
        # Given a suspension that is still on its way when its worker has given up
        site.does(CREATE, 1)
        with Waiting(driver_of(server, url=late.url, seconds=0.3)) as slow:
            assert site.on(slow).does(SUSPEND, 2).state is DriverState.UNKNOWN
        # When the customer has paid, the zone is resumed, and then it arrives
        assert site.does(RESUME, 3).state is DriverState.DONE
        assert late.deliver() > 0
        # Then the zone is as it was resumed.
        assert site.service.resource.generation == 3
        assert site.service.state is ACTIVE
        assert site.ask() == ["192.0.2.10"]

    def test_suspension_that_arrives_in_time_is_found_and_not_repeated(
        self, site: Site, server: PowerDns, late: Between
    ) -> None:
        site.does(CREATE, 1)
        suspend = site.service.operation(SUSPEND, 2)
        with Waiting(driver_of(server, url=late.url, seconds=0.3)) as slow:
            assert slow.perform(suspend).state is DriverState.UNKNOWN
        late.deliver()
        serial = site.ask("SOA")
        assert site.service.state is SUSPENDED
        assert site.service.perform(suspend).state is DriverState.DONE
        assert site.ask("SOA") == serial
        site.does(RESUME, 3)
        assert site.ask() == ["192.0.2.10"]

    def test_content_that_arrives_after_the_termination_is_not_served(
        self, site: Site, server: PowerDns, late: Between
    ) -> None:
        with Waiting(driver_of(server, url=late.url, seconds=0.3)) as slow:
            assert site.on(slow).does(CREATE, 1).state is DriverState.UNKNOWN
        assert site.does(TERMINATE, 2).state is DriverState.DONE
        late.deliver()
        assert site.service.state is ABSENT
        assert site.ask() == "REFUSED"

    def test_zone_that_is_made_after_the_termination_is_empty_and_can_be_ended(
        self, site: Site, server: PowerDns, driver: Waiting
    ) -> None:
        def fate(method: str, path: str) -> Fate:
            return Fate.IS_LATE if method == "POST" else Fate.PASSES

        # Given a create whose zone is made after the service was terminated
        site.does(TERMINATE, 1)  # the registry exists
        with Between(server.url, fate) as between:
            with Waiting(driver_of(server, url=between.url, seconds=0.3)) as slow:
                create = site.on(slow).operation(CREATE, 2)
                assert slow.perform(create).state is DriverState.UNKNOWN
            assert site.does(TERMINATE, 3).state is DriverState.DONE
            between.deliver()
        # Then nothing of it is served, the audit sees it, and it is no service.
        assert site.ask() == site.ask("CNAME", "www") or site.ask() == []
        assert site.service.state is ABSENT
        assert site.domain in [e.resource_id for e in whole(driver)]
        # And whoever comes next takes it away: the create that is stale, or another termination.
        assert site.service.perform(create).state is DriverState.STALE
        assert site.domain not in server.zones()

    def test_of_many_at_once_the_newest_generation_remains(
        self, site: Site, server: PowerDns, driver: Waiting
    ) -> None:
        site.does(CREATE, 1)
        kinds = (SUSPEND, RESUME, EXTEND)
        operations = [site.service.operation(kinds[g % 3], g) for g in range(2, 22)]

        async def at_once() -> list[Any]:
            return await asyncio.gather(*(driver.port.perform(o) for o in operations))

        answers = driver.run(at_once())

        # Some were late, some found that others were quicker each time, and one was last.
        states = {answer.state for answer in answers}
        assert states <= {DriverState.DONE, DriverState.STALE, DriverState.UNKNOWN}
        done = [o for o, a in zip(operations, answers, strict=True) if a.state is DriverState.DONE]
        newest = max(done, key=lambda operation: operation.generation)
        resource = site.service.resource
        assert resource.generation == newest.generation
        assert site.ask() == (["192.0.2.99"] if resource.state is SUSPENDED else ["192.0.2.10"])
        # Whatever happened on the way, nothing of the customer's was lost.
        site.does(RESUME, 30)
        assert served(site)["www"] == [f"{site.domain}."]
        assert site.ask() == ["192.0.2.10"]


class TestWhatExists:
    def test_list_has_zones_of_services_and_others_but_not_those_that_are_not_sold(
        self, site: Site, server: PowerDns
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
        self, site: Site, driver: Waiting, server: PowerDns
    ) -> None:
        server.make_zone(site.domain)
        site.does(SUSPEND, 1, resource_id=site.domain)
        (entry,) = [e for e in whole(driver) if e.resource_id == site.domain]
        assert (entry.service_id, entry.state) == (str(site.service.id), SUSPENDED)
        assert server.zones()[site.domain] == f"ar-{site.service.id}"


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
