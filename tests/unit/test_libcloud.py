"""The driver of virtual machines, against an EC2 on this machine."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from libcloud.compute.base import NodeImage, NodeSize
from libcloud.compute.drivers.ec2 import EC2NodeDriver
from pydantic import ValidationError

from autorenew.local.ports import free_port
from schemas.errors import ConfigurationError
from schemas.values import ResourceState
from tests.support.ec2 import IMAGE, KEY, SECRET, Answer, Ec2, answer_is_lost, error, says
from workers.conformance import DriverConformance
from workers.conformance.drivers import Service, whole
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.libcloud import LibcloudDriver, families
from workers.provisioning.drivers.libcloud import driver as driver_module
from workers.provisioning.drivers.port import Driver, DriverState, OperationKind

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT = ResourceState.ABSENT
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
            yield driver_of(ec2.url)

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


class TestByNameOnly(DriverConformance):
    """A provider where the name of a machine is all that can be kept of a service."""

    keeps_paid_until = False
    keeps_keys = False
    keeps_generations = False
    keeps_the_gone = False
    takes_over = False

    @pytest.fixture
    def driver(self, ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> Driver:
        ec2.heeds_tokens = False
        monkeypatch.setattr(families, "family_of", lambda _: families.Named())
        return driver_of(ec2.url)


def kinds(ec2: Ec2) -> list[str]:
    """The sizes of the machines that were asked for."""
    return [r["InstanceType"] for r in ec2.requests if r["Action"] == "RunInstances"]


class TestWhatIsBuilt:
    @pytest.mark.parametrize(
        ("configuration", "size"),
        [({}, "t3.small"), ({"memory": "8"}, "t3.large"), ({"domain": "x.example"}, "t3.small")],
    )
    def test_option_replaces_what_the_plan_has(
        self, ec2: Ec2, configuration: dict[str, str], size: str
    ) -> None:
        with Waiting(driver_of(ec2.url)) as driver:
            answer = Service(driver).does(CREATE, 1, configuration=configuration)
        assert answer.state is DriverState.DONE
        assert kinds(ec2) == [size]

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"configuration": {"memory": "512"}}, "option_not_offered: memory"),
            ({"plan": "unheard-of"}, "no_machine_for_plan"),
        ],
    )
    def test_what_the_settings_do_not_offer_is_refused(
        self, ec2: Ec2, change: dict[str, Any], reason: str
    ) -> None:
        with Waiting(driver_of(ec2.url)) as driver:
            answer = Service(driver).does(CREATE, 1, **change)
        assert (answer.state, answer.reason) == (DriverState.REFUSED, reason)
        assert kinds(ec2) == []

    def test_arguments_of_a_plan_are_passed_on(self, ec2: Ec2) -> None:
        more = {"location": "eu-west-1b", "arguments": {"ex_userdata": "#!/bin/sh"}}
        with Waiting(driver_of(ec2.url, plans={"web-perso": PLAN | more})) as driver:
            assert Service(driver).does(CREATE, 1).state is DriverState.DONE
        (run,) = [r for r in ec2.requests if r["Action"] == "RunInstances"]
        assert run["Placement.AvailabilityZone"] == "eu-west-1b"
        assert run["UserData"]

    def test_customer_is_told_name_and_address_only(self, ec2: Ec2) -> None:
        with Waiting(driver_of(ec2.url)) as driver:
            resource = Service(driver).does(CREATE, 1).resource
        assert resource is not None
        assert set(resource.details) == {"name", "address"}


class TestTwoProcesses:
    """Two drivers that know nothing of each other."""

    def test_generations_keys_and_dates_are_kept_at_the_provider(self, ec2: Ec2) -> None:
        with Waiting(driver_of(ec2.url)) as one, Waiting(driver_of(ec2.url)) as other:
            service = Service(one)
            create = service.operation(CREATE, 3)
            service.perform(create)
            before = service.resource
            seen = other.ask(create)
            assert (seen.state, seen.resource) == (DriverState.DONE, before)
            assert other.perform(service.operation(SUSPEND, 2)).state is DriverState.STALE
            reused = other.perform(replace(create, customer="c-2"))
            assert (reused.state, reused.reason) == (DriverState.REFUSED, "key_reused")
            assert service.resource == before

    def test_creation_after_the_termination_is_stale_while_the_provider_shows_it(
        self, ec2: Ec2
    ) -> None:
        with Waiting(driver_of(ec2.url)) as one, Waiting(driver_of(ec2.url)) as other:
            service = Service(one)
            service.does(CREATE, 1)
            service.does(TERMINATE, 3)
            assert other.perform(service.operation(CREATE, 2)).state is DriverState.STALE
            # A second termination raises the generation, too.
            service.does(TERMINATE, 5)
            assert other.perform(service.operation(CREATE, 4)).state is DriverState.STALE

    def test_termination_of_nothing_waits_out_a_creation_that_is_under_way(self, ec2: Ec2) -> None:
        with (
            Waiting(driver_of(ec2.url, late_seconds=0.5)) as one,
            Waiting(driver_of(ec2.url)) as other,
        ):
            service = Service(one)
            first = one.perform(service.operation(TERMINATE, 2))
            assert (first.state, first.reason) == (
                DriverState.IN_PROGRESS,
                "waiting_out_creates",
            )
            assert first.retry_after is not None
            assert 0 < first.retry_after <= 0.5
            # When the creation arrives meanwhile
            assert other.perform(service.operation(CREATE, 1)).state is DriverState.DONE
            # Then it is found, and deleted.
            assert service.does(TERMINATE, 2).state is DriverState.DONE
            assert service.state is ABSENT
            assert whole(one) == []

    def test_creations_at_the_same_time_under_one_key_make_one_machine(self, ec2: Ec2) -> None:
        with Waiting(driver_of(ec2.url)) as one, Waiting(driver_of(ec2.url)) as other:
            create = Service(one).operation(CREATE, 1)
            answers = both(one, other, create, create)
        assert {answer.state for answer in answers} == {DriverState.DONE}
        assert {r["ClientToken"] for r in ec2.requests if "ClientToken" in r} == {create.key}
        assert len({answer.resource.resource_id for answer in answers}) == 1

    def test_machines_that_were_made_twice_become_one(self, ec2: Ec2) -> None:
        # Given a provider that makes one for each call, and two calls that both saw nothing before
        ec2.heeds_tokens = False
        together = threading.Barrier(2)

        def at_once(_asked: dict[str, str], real: Callable[[], Answer]) -> Answer:
            together.wait(5)
            return real()

        with Waiting(driver_of(ec2.url)) as one, Waiting(driver_of(ec2.url)) as other:
            service = Service(one)
            creates = [service.operation(CREATE, 1), service.operation(CREATE, 1)]
            with ec2.fault("RunInstances", at_once):
                both(one, other, *creates)
            assert len(kinds(ec2)) == 2
            # When it is looked at again, one is left, and both say which.
            answers = [one.perform(creates[0]), other.perform(creates[0])]
            assert {answer.state for answer in answers} == {DriverState.DONE}
            assert len({answer.resource.resource_id for answer in answers}) == 1
            assert [e.service_id for e in whole(one)] == [str(service.id)]

    def test_machine_of_another_service_is_not_taken_over(self, ec2: Ec2) -> None:
        with Waiting(driver_of(ec2.url)) as driver:
            one, other = Service(driver), Service(driver)
            taken = one.does(CREATE, 1).resource
            assert taken is not None
            for kind in (SUSPEND, TERMINATE):
                answer = other.does(kind, 1, resource_id=taken.resource_id)
                assert answer.state is DriverState.REFUSED
                assert answer.reason == "belongs_to_another_service"
            assert one.resource == taken


def both(one: Waiting, other: Waiting, *operations: Any) -> list[Any]:
    """Performed at the same time, each on an event loop of its own."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda d, o: d.perform(o), (one, other), operations))


def test_list_comes_in_pages(ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "RESOURCES_PAGE", 2)
    with Waiting(driver_of(ec2.url)) as driver:
        services = {str(s.id) for s in [Service(driver) for _ in range(5)] if s.does(CREATE, 1)}
        ec2.requests.clear()
        first = driver.resources(None)
        assert len(first) == 2
        assert {e.service_id for e in whole(driver)} == services


class TestConfiguration:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"provider": "ec3"}, "Libcloud has none that is called 'ec3'"),
            ({"region": "eu-nowhere-1"}, "Invalid region: eu-nowhere-1"),
            ({"options": {"signature_version": "99"}}, "signature_version"),
        ],
    )
    def test_what_libcloud_does_not_take_is_said_at_the_start(
        self, change: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ConfigurationError) as refused:
            driver_of("http://127.0.0.1:1", **change)
        assert words in str(refused.value)
        assert "AUTORENEW_DRIVERS['vm']" in str(refused.value)
        assert SECRET not in str(refused.value)

    @pytest.mark.parametrize(
        "change",
        [
            {"url": "http://127.0.0.1:1/path"},
            {"plans": {}},
            {"plans": {"vm": PLAN | {"arguments": {"ex_maxcount": 2}}}},
            {"plans": {"vm": PLAN | {"arguments": {"ex_clienttoken": "x"}}}},
        ],
    )
    def test_wrong_setting_is_refused(self, change: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            LibcloudDriver.Settings(**options("http://127.0.0.1:1") | change)

    def test_without_libcloud_one_line_says_what_to_install(self) -> None:
        result = python(
            "import sys\n"
            "sys.modules['libcloud'] = None\n"  # as if it were not installed
            "from schemas.settings import load_settings\n"
            "from workers.bootstrap import drivers_of\n"
            "try:\n"
            "    drivers_of(load_settings())\n"
            "except Exception as error:\n"
            "    print(type(error).__name__, error)\n"
        )
        assert result.stdout.startswith("ConfigurationError AUTORENEW_DRIVERS['vm']: "), result
        assert "pip install 'autorenew[libcloud]'" in result.stdout
        assert result.stdout.count("\n") == 1

    def test_process_without_such_a_driver_does_not_import_libcloud(self) -> None:
        program = (
            "import sys\n"
            "import workers.bootstrap\n"
            "from schemas.settings import load_settings\n"
            "settings = load_settings()\n"
            "workers.bootstrap.drivers_of(settings)\n"
            "print(sorted({'libcloud', 'requests'} & sys.modules.keys()))\n"
        )
        web = {"web": {"kind": "http", "url": "http://127.0.0.1:1"}}
        assert python(program, web).stdout == "[]\n"
        # Not so where there is one: the test can fail.
        assert python(program).stdout == "['libcloud', 'requests']\n"


def python(program: str, drivers: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    configured = drivers or {"vm": {"kind": "libcloud", **options("http://127.0.0.1:1")}}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "AUTORENEW_DRIVERS": json.dumps(configured)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
