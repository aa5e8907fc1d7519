"""The driver of virtual machines, over the API of OpenStack."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autorenew.local.ports import free_port
from schemas.values import ResourceState
from tests.support.nova import TOKEN, Nova
from workers.conformance import DriverConformance
from workers.conformance.drivers import Service
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.libcloud import LibcloudDriver
from workers.provisioning.drivers.port import Driver, DriverState, OperationKind

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind


def driver_of(url: str, token: str = TOKEN) -> LibcloudDriver:
    plan = {
        "size": "small",
        "image": "debian",
        "options": {"memory": {"512": {"size": "huge"}}},
    }
    settings = LibcloudDriver.Settings(
        provider="openstack",
        key="user",
        secret="password-of-the-project",
        options={
            "ex_force_base_url": f"{url}/v2.1/p",
            "ex_force_auth_url": url,
            "ex_force_auth_token": token,
            "ex_force_auth_version": "3.x_password",
            "ex_tenant_name": "project",
            "ex_domain_name": "Default",
            "api_version": "2.0",
            "secure": False,
        },
        plans={"web-perso": plan, "web-pro": plan},
        seconds=5,
        late_seconds=0.1,
    )
    return LibcloudDriver("vm", settings)


@pytest.fixture
def nova() -> Iterator[Nova]:
    with Nova() as running:
        yield running


class TestOverOpenStack(DriverConformance):
    @pytest.fixture
    def driver(self, nova: Nova) -> Driver:
        return driver_of(nova.url)

    @pytest.fixture
    def named(self, nova: Nova) -> Callable[[], str]:
        return lambda: nova.make("old", "small", "debian")[1]["server"]["id"]

    @pytest.fixture
    def unreachable(self) -> Driver:
        return driver_of(f"http://127.0.0.1:{free_port()}")

    @pytest.fixture
    def unauthorized(self, nova: Nova) -> Driver:
        return driver_of(nova.url, "another-token")

    @pytest.fixture
    def unacceptable(self) -> dict[str, Any]:
        return {"configuration": {"memory": "512"}}


def test_quota_is_refused_with_the_words_of_the_provider(nova: Nova) -> None:
    with Waiting(driver_of(nova.url)) as driver:
        answer = Service(driver).does(CREATE, 1, configuration={"memory": "512"})
    assert (answer.state, answer.reason) == (DriverState.REFUSED, "forbidden")
    assert answer.words is not None
    assert "Quota exceeded" in answer.words


@pytest.mark.parametrize("kind", [SUSPEND, EXTEND])
def test_machine_in_error_is_refused_and_can_be_terminated(nova: Nova, kind: OperationKind) -> None:
    nova.fails = True
    with Waiting(driver_of(nova.url)) as driver:
        service = Service(driver)
        said = [service.does(CREATE, 1), service.does(kind, 2)]
        assert {(a.state, a.reason) for a in said} == {(DriverState.REFUSED, "machine_in_error")}
        assert service.does(TERMINATE, 3).state is DriverState.DONE
        assert service.state is ResourceState.ABSENT
        assert nova.servers == {}


def test_metadata_of_others_stays(nova: Nova) -> None:
    with Waiting(driver_of(nova.url)) as driver:
        service = Service(driver)
        service.does(CREATE, 1)
        (server,) = nova.servers.values()
        server["metadata"]["cost-centre"] = "42"
        service.does(SUSPEND, 2)
        assert server["metadata"]["cost-centre"] == "42"
        assert server["metadata"]["autorenew-generation"] == "2"


def test_machine_that_cannot_be_stopped_yet_is_in_progress(nova: Nova) -> None:
    with Waiting(driver_of(nova.url)) as driver:
        service = Service(driver)
        service.does(CREATE, 1)
        nova.is_locked = True
        answer = driver.perform(service.operation(SUSPEND, 2))
        assert (answer.state, answer.reason) == (DriverState.IN_PROGRESS, "conflictingRequest")
        nova.is_locked = False
        assert service.does(SUSPEND, 2).state is DriverState.DONE
