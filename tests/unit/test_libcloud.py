"""The driver of virtual machines, against an EC2 on this machine."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from libcloud.compute.base import NodeImage, NodeSize
from libcloud.compute.drivers.ec2 import EC2NodeDriver

from autorenew.local.ports import free_port
from tests.support.ec2 import (
    IMAGE,
    KEY,
    SECRET,
    Ec2,
    answer_is_lost,
    error,
    says,
)
from workers.conformance import DriverConformance
from workers.provisioning.drivers.libcloud import LibcloudDriver
from workers.provisioning.drivers.port import Driver

PLAN = {
    "size": "t3.small",
    "image": IMAGE,
    "options": {"memory": {"8": {"size": "t3.large"}, "none": {"size": "t9.huge"}}},
}


def options(url: str, **changes: Any) -> dict[str, Any]:
    given = {
        "provider": "ec2",
        "key": KEY,
        "secret": SECRET,
        "region": "eu-west-1",
        "url": url,
        "seconds": 10,
        "late_seconds": 0.1,
        "plans": {"web-perso": PLAN, "web-pro": PLAN},
    }
    return given | changes


def driver_of(url: str, **changes: Any) -> LibcloudDriver:
    return LibcloudDriver("vm", LibcloudDriver.Settings(**options(url, **changes)))


@pytest.fixture(scope="module")
def running() -> Iterator[Ec2]:
    with Ec2() as started:
        yield started


@pytest.fixture
def ec2(running: Ec2) -> Ec2:
    running.reset()
    return running


class TestOverEc2(DriverConformance):
    @pytest.fixture
    def driver(self, ec2: Ec2) -> Driver:
        return driver_of(ec2.url)

    @pytest.fixture
    def named(self, ec2: Ec2) -> Callable[[], str]:
        return lambda: machine_of_another(ec2)

    @pytest.fixture
    def unreachable(self) -> Driver:
        return driver_of(f"http://127.0.0.1:{free_port()}", seconds=1)

    @pytest.fixture
    def unauthorized(self, ec2: Ec2) -> Driver:
        return driver_of(ec2.url, key="AKIANOBODY")

    @pytest.fixture
    def deaf(self, ec2: Ec2) -> Iterator[Driver]:
        with ec2.fault("RunInstances", answer_is_lost):
            yield driver_of(ec2.url, seconds=1)

    @pytest.fixture
    def busy(self, ec2: Ec2) -> Iterator[Driver]:
        with ec2.fault("*", says(error(503, "RequestLimitExceeded"))):
            yield driver_of(ec2.url)

    @pytest.fixture
    def unacceptable(self) -> dict[str, Any]:
        return {"configuration": {"memory": "none"}}


class TestSlowEc2(TestOverEc2):
    slow = True

    @pytest.fixture
    def driver(self, ec2: Ec2) -> Driver:
        ec2.pending_seconds = 0.3
        return driver_of(ec2.url)


def machine_of_another(ec2: Ec2) -> str:
    """One that was not made by us; its id."""
    host, _, port = ec2.url.removeprefix("http://").partition(":")
    client = EC2NodeDriver(
        KEY, SECRET, secure=False, host=host, port=int(port), region="eu-west-1",
        signature_version="4",
    )  # fmt: skip
    size = NodeSize("t3.small", "", None, None, None, None, client)
    node = client.create_node(name="old", size=size, image=NodeImage(IMAGE, "", client))
    return str(node.id)
