"""One PowerDNS for all tests of its driver; every test has domains of its own."""

from collections.abc import Iterator

import pytest

from tests.integration.powerdns.sites import Site, driver_of
from tests.support.powerdns import PowerDns
from workers.conformance.waiting import Waiting


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDns]:
    server = PowerDns(tmp_path_factory.mktemp("powerdns"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def driver(server: PowerDns) -> Iterator[Waiting]:
    with Waiting(driver_of(server)) as waiting:
        yield waiting


@pytest.fixture
def site(driver: Waiting, server: PowerDns) -> Site:
    return Site(driver, server)
