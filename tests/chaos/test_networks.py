"""Real workers, a real far side, and a bad network between: each service ends with one resource."""

import json
import os
from collections.abc import Callable, Iterator
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import pytest

from autorenew.local.fleet import PrivateFleet
from producers.failpoints import NAMES
from producers.steps import BILLING, ORDERS, UNIVERSES
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, assert_clean, ended
from tests.chaos.test_outside import place
from tests.support.dying import GROUPS, start_groups
from tests.support.given import line, order
from tests.support.proxy import FAULTS, Fault, Proxy, passes

pytestmark = pytest.mark.rabbitmq

Prepare = Callable[..., PrivateFleet]
PLANS = ("site", "server", "vm", "phone")


def bad() -> Iterator[Fault]:
    """Each fault three times in a row, and one connection that passes. What a call does that meets
    nothing else is in tests/unit/test_driver_networks.py."""
    return chain.from_iterable((fault, fault, fault, passes) for fault in cycle(FAULTS))


@pytest.fixture
def proxy(simulator: Running) -> Iterator[Proxy]:
    with Proxy(int(simulator.url.rpartition(":")[2]), bad()) as proxy:
        yield proxy


def start(fleet: PrivateFleet, proxy: Proxy | None = None, groups: int = 1, **extra: str) -> None:
    """A fleet whose calls to the infrastructure go through the proxy."""
    if proxy is not None:
        urls = {u: f"http://127.0.0.1:{proxy.port}/infrastructure/{u}" for u in UNIVERSES}
        extra["driver_urls"] = json.dumps(urls)
    fleet.start_relay()
    fleet.start_worker(ORDERS, threads=1)
    fleet.start_worker(BILLING, threads=2)
    start_groups(fleet, *UNIVERSES, name="worker-provisioning", groups=groups, **extra)
    fleet.wait_for_consumers()


def order_some(fleet: PrivateFleet, count: int, prefix: str) -> None:
    place(
        fleet,
        *(
            order(f"{prefix}-{n}", line(PLANS[n % 4]), customer=f"{prefix}-{n}")
            for n in range(count)
        ),
    )


def all_end(fleet: PrivateFleet, orders: int) -> None:
    fleet.wait_until(lambda: ended(fleet) == orders, TIMEOUT_SECONDS, "all orders end")
    fleet.wait_until_idle(TIMEOUT_SECONDS)
    assert fleet.scalar("SELECT count(*) FROM orders WHERE state = 'delivered'") == orders


def assert_one_resource_each(fleet: PrivateFleet, simulator: Running) -> None:
    """By the far side's own list, which the audit compares with the services, too."""
    listed = simulator.simulator.store.resources(0, 10_000)
    services = sorted(resource["service_id"] for resource in listed)
    ours = "SELECT json_agg(id::text ORDER BY id::text) FROM services WHERE state = 'active'"
    assert services == fleet.scalar(ours)
    assert_clean(fleet)


def test_whatever_the_network_does_to_calls_each_service_has_one_resource(
    fleet_of: Prepare, simulator: Running, proxy: Proxy
) -> None:
    fleet = fleet_of()
    start(fleet, proxy)

    sent = 0
    while missing := {f.__name__ for f in FAULTS if proxy.struck[f.__name__] < 3}:
        assert sent < 400, f"hardly ever struck: {sorted(missing)}"
        order_some(fleet, 40, f"batch{sent}")
        sent += 40
        fleet.wait_until(
            lambda total=sent: ended(fleet) >= total - 20, TIMEOUT_SECONDS, "most of them end"
        )
    proxy.calm_down()

    all_end(fleet, sent)
    assert_one_resource_each(fleet, simulator)


def test_worker_that_is_killed_between_a_call_and_its_record_makes_no_second_resource(
    fleet_of: Prepare, simulator: Running, proxy: Proxy, tmp_path: Path
) -> None:
    # Given a far side that takes a second for every other creation, a bad network, and workers, of
    # which one is killed at each step of its work
    slow = {"fault": "in_progress", "operation": "create", "rate": 0.5, "seconds": 1.0}
    simulator.simulator.faults.add(slow)
    folder = tmp_path / "failpoints"
    folder.mkdir()
    fleet = fleet_of()
    start(fleet, proxy, GROUPS, failpoints=str(folder))

    sent = 0
    names = [name for name in NAMES if name.startswith("worker")]
    while missing := {name for name in names if not (folder / name).exists()}:
        assert sent < 400, f"never visited: {sorted(missing)}"
        order_some(fleet, 20, f"batch{sent}")
        sent += 20
        fleet.wait_until(
            lambda total=sent: ended(fleet) == total, TIMEOUT_SECONDS, f"end; missing {missing}"
        )
    proxy.calm_down()

    all_end(fleet, sent)
    assert_one_resource_each(fleet, simulator)
    assert {name.removeprefix("worker.") for name in names} >= {"after_call", "before_finish"}


def test_what_is_in_progress_holds_no_lease_and_survives_its_worker(
    fleet_of: Prepare, simulator: Running
) -> None:
    # Given creations that take longer than a lease, and all of them begun
    takes = {"fault": "in_progress", "operation": "create", "seconds": 6.0}
    simulator.simulator.faults.add(takes)
    fleet = fleet_of()
    start(fleet)
    order_some(fleet, 20, "slow")
    waiting = "SELECT count(*) FROM tasks WHERE state = 'ready' AND reason = 'in_progress'"
    fleet.wait_until(lambda: fleet.scalar(waiting) == 20, TIMEOUT_SECONDS, "all are begun")
    held = "SELECT count(*) FROM batches WHERE state = 'leased'"
    fleet.wait_until(lambda: fleet.scalar(held) == 0, 5, "nobody holds a lease")

    # When the worker is killed meanwhile
    fleet.members["worker-provisioning"].kill()
    fleet.start_worker(*UNIVERSES, name="worker-provisioning-2", threads=2)

    # Then each was begun once, is asked about, and is delivered.
    all_end(fleet, 20)
    assert_one_resource_each(fleet, simulator)
    begun = "SELECT count(*) FROM events WHERE name = 'operation.in_progress'"
    assert fleet.scalar(begun) == 20


POISON = '''
"""Loaded by every Python process of the fleet: two configurations that no driver survives."""
import os
from workers.provisioning.drivers import http

original = http.HttpDriver.perform

async def perform(driver, operation):
    match operation.configuration.get("domain"):
        case "kills.example":
            os.kill(os.getpid(), 9)
        case "raises.example":
            raise ZeroDivisionError("nobody thought of this")
    return await original(driver, operation)

http.HttpDriver.perform = perform
'''


def test_configuration_that_crashes_its_handler_or_its_process_fails_alone(
    fleet_of: Prepare, simulator: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "sitecustomize.py").write_text(POISON)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "poison"), prepend=os.pathsep)
    # A task whose worker has died is free when its lease is over.
    fleet = fleet_of(retries=json.dumps({"driver": {"attempts": 3}}), lease_seconds="2")
    start(fleet, groups=2)
    monkeypatch.undo()
    # Given two poisoned orders among good ones
    order_some(fleet, 20, "before")
    poisoned: dict[str, Any] = {"kills": "kills.example", "raises": "raises.example"}
    place(fleet, *(order(k, line(domain=d), customer=k) for k, d in poisoned.items()))
    order_some(fleet, 20, "after")

    # Then each of the two ends in failed, after its attempts
    query = "SELECT count(*) FROM tasks WHERE state = 'failed'"
    fleet.wait_until(lambda: fleet.scalar(query) == 2, TIMEOUT_SECONDS, "they are set aside")
    fleet.wait_until_idle(TIMEOUT_SECONDS)
    why = """SELECT json_object_agg(o.key, t.name || ' ' || t.reason)
        FROM tasks AS t JOIN services AS s ON s.id = t.subject JOIN orders AS o ON o.id = s.order_id
        WHERE t.state = 'failed'"""
    reasons = fleet.scalar(why)
    assert reasons["kills"] == "converge crashed"
    assert reasons["raises"].startswith("converge ")
    # And takes nothing with it.
    assert fleet.scalar("SELECT count(*) FROM orders WHERE state = 'delivered'") == 40
    assert_one_resource_each(fleet, simulator)
