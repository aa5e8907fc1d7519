"""What resolvers get of a zone: created, suspended, resumed, terminated, taken over."""

from typing import Any

from schemas.values import ResourceState
from tests.integration.powerdns.sites import Site, driver_of, served
from tests.support.powerdns import PowerDns
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import DriverState, OperationKind

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState


def test_created_zone_has_the_records_of_its_plan(site: Site) -> None:
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


def test_plan_without_a_template_of_its_own_has_that_of_all_others(site: Site) -> None:
    site.does(CREATE, 1, plan="web-pro")
    assert site.ask() == ["192.0.2.20"]
    assert site.ask("CNAME", "www") == "NXDOMAIN"


def test_suspended_zone_has_the_parking_records_only(site: Site) -> None:
    site.does(CREATE, 1)
    site.does(SUSPEND, 2)
    assert site.ask() == site.ask(name="www") == site.ask(name="any") == ["192.0.2.99"]
    assert site.ask("AAAA") == ["2001:db8::99"]
    assert site.ask("TXT") == ['"v=spf1 -all"']
    assert site.ask("MX") == site.ask("CNAME", "www") == []
    assert site.ask("NS") == ["ns1.hosting.example.", "ns2.hosting.example."]


def test_resumed_zone_has_what_the_customer_had_put_into_it(site: Site, server: PowerDns) -> None:
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
    site: Site, server: PowerDns
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


def test_record_that_was_added_to_a_suspended_zone_stays(site: Site, server: PowerDns) -> None:
    site.does(CREATE, 1)
    site.does(SUSPEND, 2)
    server.put(site.domain, f"_acme-challenge.{site.domain}", "TXT", '"token"')
    site.does(RESUME, 3)
    assert site.ask("TXT", "_acme-challenge") == ['"token"']


def test_parking_records_of_other_settings_are_taken_away_as_they_were_put(
    site: Site, server: PowerDns
) -> None:
    site.does(CREATE, 1)
    site.does(SUSPEND, 2)
    with Waiting(driver_of(server, parking=[{"type": "A", "content": "192.0.2.1"}])) as other:
        site.on(other).does(RESUME, 3)
    assert site.ask() == ["192.0.2.10"]
    assert site.ask("TXT") == []


def test_what_the_driver_keeps_in_a_zone_is_not_served(site: Site) -> None:
    site.does(CREATE, 1)
    for name in ("_autorenew", "keys._autorenew", "parked._autorenew"):
        assert site.ask("TXT", name) in ([], "NXDOMAIN")


def test_terminated_zone_is_served_no_more(site: Site, server: PowerDns) -> None:
    site.does(CREATE, 1)
    site.does(TERMINATE, 2)
    assert site.ask() == "REFUSED"
    assert site.domain not in server.zones()


def test_adopted_zone_keeps_its_records(site: Site, server: PowerDns) -> None:
    server.make_zone(site.domain, (site.domain, "A", "203.0.113.5"))
    site.does(SUSPEND, 1, resource_id=f"{site.domain}.")
    assert site.ask() == ["192.0.2.99"]
    site.does(RESUME, 2, resource_id=site.domain)
    assert site.ask() == ["203.0.113.5"]
    assert site.ask("NS") == ["ns.elsewhere.example."]


def _theirs(rrsets: list[dict[str, Any]]) -> list[Any]:
    def content(rrset: dict[str, Any]) -> list[tuple[str, bool]]:
        return sorted((record["content"], record["disabled"]) for record in rrset["records"])

    return sorted(
        (rrset["name"], rrset["type"], rrset["ttl"], content(rrset))
        for rrset in rrsets
        if "_autorenew" not in rrset["name"] and rrset["type"] != "SOA"
    )
