"""Calls by the hundred in real processes: a far side that is slow, and workers that are stopped."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from autorenew.local.fleet import PrivateFleet
from producers.intake import Intake
from producers.steps import BILLING, ORDERS, UNIVERSES
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.database import connect
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, assert_clean, ended
from tests.support.given import line, order

pytestmark = pytest.mark.rabbitmq

Prepare = Callable[..., PrivateFleet]


def place(fleet: PrivateFleet, *documents: Any) -> None:
    engine = connect(fleet.database_url("api"))
    intake = Intake(engine, CatalogueCache(), SystemClock())
    answers = intake.place("shop", "python", [json.dumps(d).encode() for d in documents])
    assert {answer.verdict for answer in answers} == {"accepted"}
    engine.dispose()


def start(fleet: PrivateFleet) -> None:
    fleet.start_relay()
    fleet.start_worker(ORDERS, threads=1)
    fleet.start_worker(BILLING, threads=2)
    fleet.start_worker(*UNIVERSES, threads=2)
    fleet.wait_for_consumers()


def test_sigterm_leaves_no_call_in_doubt_that_could_be_decided(
    fleet_of: Prepare, simulator: Running
) -> None:
    # Given a gateway that takes a second, and a hundred charges under way at once
    simulator.simulator.faults.add({"fault": "slow", "target": "gateway", "seconds": 1.0})
    fleet = fleet_of(call_seconds="5", calls_at_once="100")
    start(fleet)
    place(fleet, *(order(f"k-{n}", customer=f"c-{n}") for n in range(120)))
    under_way = "SELECT count(*) FROM charges WHERE state = 'started'"
    fleet.wait_until(lambda: fleet.scalar(under_way) >= 100, TIMEOUT_SECONDS, "they are called")

    # When the process is told to end
    code = fleet.members.pop("worker-billing").stop()

    # Then it ends well, and every charge that was begun is decided.
    assert code == 0
    undecided = "SELECT count(*) FROM charges WHERE state IN ('started', 'unknown')"
    assert fleet.scalar(undecided) == 0
    assert fleet.scalar("SELECT count(*) FROM charges WHERE state = 'succeeded'") >= 100
    # And another process does the rest.
    fleet.start_worker(BILLING, name="worker-billing-2", threads=2)
    fleet.wait_until(lambda: ended(fleet) == 120, TIMEOUT_SECONDS, "all orders end")
    fleet.wait_until_idle(TIMEOUT_SECONDS)
    assert_clean(fleet)


def test_driver_that_hangs_leaves_the_others_of_its_process_their_calls(
    fleet_of: Prepare, simulator: Running
) -> None:
    # Given a driver that answers nothing, and more of its services than are called at once
    hangs = {"fault": "hang_before", "operation": "create", "plan": "vm", "times": 1000}
    simulator.simulator.faults.add(hangs | {"seconds": 60})
    fleet = fleet_of(call_seconds="4", calls_at_once="4")
    start(fleet)
    place(fleet, *(order(f"vm-{n}", line("vm"), customer=f"v-{n}") for n in range(40)))
    created = "SELECT count(*) FROM operations AS o JOIN services AS s ON s.id = o.service_id"
    fleet.wait_until(
        lambda: fleet.scalar(f"{created} WHERE s.driver = 'cloud'") >= 4,
        TIMEOUT_SECONDS,
        "it hangs",
    )

    # When services of another driver are ordered
    place(fleet, *(order(f"site-{n}", customer=f"s-{n}") for n in range(40)))

    # Then they are all delivered, by the same process, before one of the others was.
    fleet.wait_until(
        lambda: ended(fleet) == 40, TIMEOUT_SECONDS, "the other driver's are delivered"
    )
    states = "SELECT count(*) FROM services WHERE driver = 'cloud' AND state = 'active'"
    assert fleet.scalar(states) == 0
    # And once it answers again, the rest is.
    simulator.simulator.faults.clear()
    fleet.wait_until(lambda: ended(fleet) == 80, TIMEOUT_SECONDS, "all orders end")
    fleet.wait_until_idle(TIMEOUT_SECONDS)
    assert_clean(fleet)


def test_killed_process_leaves_charges_that_are_asked_about_and_taken_once(
    fleet_of: Prepare, simulator: Running
) -> None:
    simulator.simulator.faults.add({"fault": "slow", "target": "gateway", "seconds": 0.5})
    fleet = fleet_of(call_seconds="5", calls_at_once="100")
    start(fleet)
    place(fleet, *(order(f"k-{n}", customer=f"c-{n}") for n in range(150)))
    under_way = "SELECT count(*) FROM charges WHERE state = 'started'"
    fleet.wait_until(lambda: fleet.scalar(under_way) >= 50, TIMEOUT_SECONDS, "they are called")

    fleet.members["worker-billing"].kill()

    fleet.wait_until(lambda: ended(fleet) == 150, TIMEOUT_SECONDS, "all orders end")
    fleet.wait_until_idle(TIMEOUT_SECONDS)
    assert_clean(fleet)
    assert len(simulator.simulator.store.book(0, 1000)) == 150
