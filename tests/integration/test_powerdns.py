"""The driver of DNS zones, over a real PowerDNS."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autorenew.local.ports import free_port
from tests.support.powerdns import PowerDns, options
from workers.conformance import DriverConformance
from workers.conformance.drivers import Service
from workers.provisioning.drivers.port import Driver, DriverState, OperationKind
from workers.provisioning.drivers.powerdns import PowerDnsDriver

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind


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
    def unacceptable(self) -> dict[str, Any]:
        return {"configuration": {"domain": "not a domain"}}

    def test_a_key_belongs_to_its_service(self, new_service: Callable[[], Service]) -> None:
        # What is remembered is in the zone, and another service has another one.
        service, other = new_service(), new_service()
        create = service.operation(CREATE, 1)
        service.perform(create)
        assert other.does(CREATE, 1, key=create.key).state is DriverState.DONE
