"""A zone that is not the service's is never touched, and what is no domain is refused."""

import pytest

from schemas.values import ResourceState
from tests.integration.powerdns.sites import Site, a_domain, driver_of
from tests.support.powerdns import PowerDns
from workers.conformance.drivers import Service
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import DriverState, OperationKind

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState


def test_zone_of_another_service_is_taken(site: Site, driver: Waiting, server: PowerDns) -> None:
    site.does(CREATE, 1)
    other = Site(driver, server, site.domain.upper())
    for kind in (CREATE, SUSPEND, RESUME, EXTEND):
        answer = other.does(kind, 1)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_taken")
    # And ending the service that got nothing leaves the other's zone alone.
    assert other.does(TERMINATE, 2).state is DriverState.DONE
    assert site.ask() == ["192.0.2.10"]
    assert site.service.resource.generation == 1


def test_zone_that_somebody_else_made_is_never_touched(site: Site, server: PowerDns) -> None:
    server.make_zone(site.domain, (site.domain, "A", "203.0.113.5"))
    before = server.api("GET", f"/zones/{site.domain}.")
    answer = site.does(CREATE, 1)
    assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_taken")
    assert site.does(SUSPEND, 2).reason == "zone_taken"
    assert site.does(TERMINATE, 3).state is DriverState.DONE
    assert server.api("GET", f"/zones/{site.domain}.") == before


def test_zone_that_was_put_in_the_place_of_a_service_is_not_adopted(
    site: Site, server: PowerDns
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
    site: Site, driver: Waiting, server: PowerDns
) -> None:
    site.does(CREATE, 1)
    answer = Site(driver, server, f"a.www.{site.domain}").does(CREATE, 1)
    assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_taken")
    assert answer.words == f"it would lie in {site.domain}"


def test_registry_is_not_for_sale(driver: Waiting, server: PowerDns) -> None:
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
def test_domain_that_is_none_is_refused(driver: Waiting, server: PowerDns, domain: str) -> None:
    service = Service(driver, {"configuration": {"domain": domain}})
    answer = service.does(CREATE, 1)
    assert (answer.state, answer.reason) == (DriverState.REFUSED, "domain_invalid")
    assert service.does(TERMINATE, 2).state is DriverState.DONE


def test_order_without_a_domain_is_refused(driver: Waiting) -> None:
    service = Service(driver, {"configuration": {}})
    assert service.does(CREATE, 1).reason == "domain_invalid"


@pytest.mark.parametrize("name", ["", "a b", "ü.example", "../../x", "a" * 300, ".", "a..b"])
def test_name_of_an_import_that_is_no_zone_is_refused(site: Site, name: str) -> None:
    answer = site.does(SUSPEND, 1, resource_id=name)
    assert answer.state is DriverState.REFUSED
    assert answer.reason


def test_plan_that_has_no_template_is_refused(site: Site, server: PowerDns) -> None:
    with Waiting(driver_of(server, templates={})) as other:
        assert site.on(other).does(CREATE, 1).reason == "no_template"
    assert site.domain not in server.zones()


def test_template_that_the_server_refuses_says_why(site: Site, server: PowerDns) -> None:
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


class TestCorrectedDomain:
    """A create was refused when its zone was already there; then its domain was corrected."""

    @pytest.fixture
    def first(self, driver: Waiting, server: PowerDns) -> Site:
        site = Site(driver, server)
        bad = [{"name": "www", "type": "CNAME", "content": "x.example."}] * 2
        bad[1] = {"name": "www", "type": "A", "content": "192.0.2.1"}
        with Waiting(driver_of(server, templates={"*": bad})) as other:
            assert site.on(other).does(CREATE, 1).reason == "unprocessable"
        assert site.domain in server.zones()
        return site

    @staticmethod
    def corrected(first: Site, driver: Waiting, domain: str) -> Site:
        """The same service, with another domain."""
        site = Site(driver, first.server, domain)
        site.service.id = first.service.id
        return site

    def test_free_one_is_delivered_and_the_first_is_free_again(
        self, first: Site, driver: Waiting, server: PowerDns
    ) -> None:
        site = self.corrected(first, driver, a_domain())
        answer = site.does(CREATE, 1)
        assert answer.state is DriverState.DONE
        assert answer.resource is not None
        assert answer.resource.resource_id == site.domain
        assert site.ask() == ["192.0.2.10"]
        assert first.domain not in server.zones()
        assert Site(driver, server, first.domain).does(CREATE, 1).state is DriverState.DONE
        assert site.does(TERMINATE, 2).state is DriverState.DONE
        assert site.domain not in server.zones()
        assert first.ask() == ["192.0.2.10"]

    @pytest.mark.parametrize("below", ["", "www."])
    def test_one_of_somebody_else_is_refused_and_left_as_it_is(
        self, first: Site, driver: Waiting, server: PowerDns, below: str
    ) -> None:
        domain = a_domain()
        server.make_zone(domain, (domain, "A", "198.51.100.1"))
        before = server.api("GET", f"/zones/{domain}.")
        answer = self.corrected(first, driver, below + domain).does(CREATE, 1)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_taken")
        assert server.api("GET", f"/zones/{domain}.") == before
        # Nothing keeps the service from its first domain.
        assert first.does(CREATE, 1).state is DriverState.DONE
        assert first.ask() == ["192.0.2.10"]

    def test_one_of_another_service_is_refused_and_left_as_it_is(
        self, first: Site, driver: Waiting, server: PowerDns
    ) -> None:
        other = Site(driver, server)
        other.does(CREATE, 1)
        before = server.api("GET", f"/zones/{other.domain}.")
        answer = self.corrected(first, driver, other.domain).does(CREATE, 1)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "zone_taken")
        assert server.api("GET", f"/zones/{other.domain}.") == before

    def test_first_one_is_not_deleted_if_somebody_has_put_records_into_it(
        self, first: Site, driver: Waiting, server: PowerDns
    ) -> None:
        server.put(first.domain, f"www.{first.domain}", "A", "198.51.100.1")
        answer = self.corrected(first, driver, a_domain()).does(CREATE, 1)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, "mark_broken")
        assert first.ask(name="www") == ["198.51.100.1"]
