"""A bulk operation goes on when the scheduler that carries it out is killed in its middle."""

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from autorenew.local.fleet import PrivateFleet
from producers import history
from producers.control import bulk
from producers.control.bulk import BulkOperation
from producers.control.selection import Filters
from producers.failpoints import NAMES
from producers.history import Operator
from producers.intake import Intake
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.database import connect
from schemas.values import BulkKind, BulkState
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, assert_clean
from tests.support.given import body, line, order

pytestmark = pytest.mark.rabbitmq

ORDERS = 30
SERVICES = 10 * ORDERS
REFUSE = {"fault": "refuse", "operation": "create", "times": 100_000}


@pytest.fixture
def fleet(fleet_of: Callable[..., PrivateFleet], simulator: Running) -> PrivateFleet:
    """With three hundred services that could not be created, and nothing that keeps them now."""
    fleet = fleet_of()
    simulator.simulator.faults.add(REFUSE)
    fleet.start_relay()
    for queues in (("orders",), ("billing",), ("web", "dedicated", "cloud", "telecom")):
        fleet.start_worker(*queues, threads=2)
    engine = connect(fleet.database_url("api"))
    documents = [
        body(order(f"k-{n}", line("site", quantity=10), customer=f"c-{n}")) for n in range(ORDERS)
    ]
    Intake(engine, CatalogueCache(), SystemClock()).place("shop", "python", documents)
    engine.dispose()
    failed = "SELECT count(*) FROM tasks WHERE state = 'failed'"
    fleet.wait_until(lambda: fleet.scalar(failed) == SERVICES, TIMEOUT_SECONDS, "all have failed")
    simulator.simulator.faults.clear()
    return fleet


def start(fleet: PrivateFleet, **options: Any) -> uuid.UUID:
    with fleet.owner.begin() as tx, history.acting(Operator("eve", "stock is back")):
        return bulk.start(tx, BulkKind.RETRY, Filters(), **options).id


def get(fleet: PrivateFleet, id: uuid.UUID) -> BulkOperation:
    with fleet.owner.connect() as tx:
        return bulk.get(tx, id)


def assert_each_was_retried_once(fleet: PrivateFleet, ended: BulkOperation) -> None:
    assert ended.state is BulkState.DONE
    assert (ended.total, ended.sent, ended.done) == (SERVICES, SERVICES, SERVICES)
    once = "SELECT count(*), count(DISTINCT subject) FROM events WHERE name = 'task.retried'"
    with fleet.owner.connect() as tx:
        assert tuple(tx.exec_driver_sql(once).one()) == (SERVICES, SERVICES)
    active = "SELECT count(*) FROM services WHERE state = 'active'"
    assert fleet.scalar(active) == SERVICES
    fleet.wait_until_idle(TIMEOUT_SECONDS)
    assert_clean(fleet)


def test_schedulers_that_are_killed_before_and_after_a_step_is_committed_lose_and_repeat_nothing(
    fleet: PrivateFleet, tmp_path: Any
) -> None:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    fleet.start_scheduler(failpoints=str(folder))

    id = start(fleet)
    fleet.wait_until(lambda: get(fleet, id).is_over, TIMEOUT_SECONDS, "it ends")

    assert {name for name in NAMES if name.startswith("bulk")} <= {
        path.name for path in folder.iterdir()
    }
    assert fleet.members["scheduler"].deaths >= 2
    assert_each_was_retried_once(fleet, get(fleet, id))


def test_an_operation_survives_that_every_scheduler_is_killed_again_and_again(
    fleet: PrivateFleet,
) -> None:
    fleet.start_scheduler()
    fleet.start_scheduler("scheduler-2")

    id = start(fleet, rate=60)
    kills = 0
    end = time.monotonic() + TIMEOUT_SECONDS
    while not get(fleet, id).is_over and time.monotonic() < end:
        sent = get(fleet, id).sent
        if kills < 3 and sent > kills * 20:  # in the middle, each time a little further
            for name in ("scheduler", "scheduler-2"):
                fleet.members[name].kill()
            kills += 1
        time.sleep(0.05)

    assert kills == 3
    assert_each_was_retried_once(fleet, get(fleet, id))
