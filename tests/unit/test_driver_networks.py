"""The driver over HTTP, its far side, and a bad network between."""

from collections.abc import Iterator
from itertools import repeat

import pytest

from schemas.values import ResourceState
from simulator.server import Running
from tests.support.proxy import FAULTS, Fault, Proxy
from workers.conformance.drivers import Service
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.http import HttpDriver
from workers.provisioning.drivers.port import DriverState, OperationKind

CREATE, TERMINATE = OperationKind.CREATE, OperationKind.TERMINATE
ARRIVES = {"loses_the_answer", "cuts_the_answer", "falls_silent", "trickles"}

each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)


@pytest.fixture
def simulator() -> Iterator[Running]:
    with Running() as running:
        yield running
    running.simulator.store.close()


def driver_at(port: int) -> Waiting:
    url = f"http://127.0.0.1:{port}/infrastructure/web"
    return Waiting(HttpDriver("web", HttpDriver.Settings(url=url, seconds=0.5)))


def port_of(simulator: Running) -> int:
    return int(simulator.url.rpartition(":")[2])


@each_fault
def test_call_over_a_network_that_is_bad_for_a_moment_is_done_once(
    simulator: Running, fault: Fault
) -> None:
    with Proxy(port_of(simulator), [fault]) as proxy, driver_at(proxy.port) as driver:
        service = Service(driver)
        create = service.operation(CREATE, 1)
        answer = driver.perform(create)
        assert proxy.struck == {fault.__name__: 1, "passes": 1}
        assert answer.state is DriverState.DONE
        assert driver.perform(create) == answer
        assert len(simulator.simulator.store.resources(0, 10)) == 1


@each_fault
def test_call_over_a_network_that_stays_bad_is_unknown_and_can_be_asked_about(
    capfd: pytest.CaptureFixture[str], simulator: Running, fault: Fault
) -> None:
    with driver_at(port_of(simulator)) as near:
        service = Service(near)
        create = service.operation(CREATE, 1)
        # Given a call of which nobody heard
        with Proxy(port_of(simulator), repeat(fault)) as proxy, driver_at(proxy.port) as driver:
            answer = driver.perform(create)
            asked = driver.ask(create)
        assert answer.state is asked.state is DriverState.UNKNOWN
        assert answer.reason
        # When it is asked about, the far side knows whether it arrived
        arrived = fault.__name__ in ARRIVES
        assert service.state is (ResourceState.ACTIVE if arrived else ResourceState.ABSENT)
        # Then sent again it is done, once.
        assert near.perform(create).state is DriverState.DONE
        assert len(simulator.simulator.store.resources(0, 10)) == 1
    # And a request that was cut off upsets nobody.
    assert "Traceback" not in capfd.readouterr().err


@each_fault
def test_termination_of_which_nobody_heard_leaves_nothing_once_it_is_repeated(
    simulator: Running, fault: Fault
) -> None:
    with driver_at(port_of(simulator)) as near:
        service = Service(near)
        service.does(CREATE, 1)
        terminate = service.operation(TERMINATE, 2)
        with Proxy(port_of(simulator), repeat(fault)) as proxy, driver_at(proxy.port) as driver:
            assert driver.perform(terminate).state is DriverState.UNKNOWN
        assert near.perform(terminate).state is DriverState.DONE
        assert service.state is ResourceState.ABSENT
        assert simulator.simulator.store.resources(0, 10) == []
