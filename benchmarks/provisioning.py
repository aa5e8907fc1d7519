"""Services that are paid and wait for their infrastructure, and how fast it gets them delivered.

Pricing and charging are over before anything is measured: what counts is provisioning alone.
"""

import json
import time
from collections.abc import Callable, Sequence

from sqlalchemy import text

from autorenew.local.fleet import PrivateFleet
from benchmarks import orders, ours
from producers.steps import BILLING, ORDERS, UNIVERSES, driver_place
from schemas.settings import INSTANT
from schemas.values import Universe

# An infrastructure that takes 50 ms, and what each process may call at once there.
SHORT_SECONDS, FEW_AT_ONCE = 0.05, 10
MANY_PROCESSES = 4
# One process with many calls at once.
LONG_SECONDS, MANY_AT_ONCE = 0.5, 200
BOUND = MANY_AT_ONCE / LONG_SECONDS
# A driver that hangs: its calls end after so long.
CALL_SECONDS = 2.0
HANGING = "telecom"


def settings(url: str, **more: str) -> dict[str, str]:
    """A gateway that answers at once; an infrastructure at ``url``."""
    drivers = {universe: f"{url}/infrastructure/{universe}" for universe in UNIVERSES}
    return {
        "gateway_url": INSTANT,
        "driver_urls": json.dumps(drivers),
        "log_level": "WARNING",
        **more,
    }


def prepare(fleet: PrivateFleet, count: int, plans: int, universes: Sequence[Universe]) -> None:
    """So many orders are paid, and their services wait in lanes that are paused."""
    with fleet.owner.begin() as tx:
        for universe in universes:
            tx.execute(
                text("INSERT INTO lane_pauses (lane, reason) VALUES (:lane, 'benchmark')"),
                {"lane": driver_place(universe, universe).lane},
            )
    fleet.start_relay()
    fleet.start_worker(ORDERS, threads=1)
    fleet.start_worker(BILLING, threads=1)
    fleet.wait_for_consumers()
    orders.place(fleet.owner, count, plans)
    paid = "SELECT count(*) FROM tasks WHERE name = 'converge'"
    fleet.wait_until(lambda: fleet.scalar(paid) >= count, ours.TIMEOUT_SECONDS, "all are paid")
    fleet.stop()
    fleet.start_relay()


def run(
    fleet: PrivateFleet, count: int, watch: Callable[[int], None], universes: Sequence[Universe]
) -> float:
    """Release the lanes; returns the seconds until ``count`` services of these universes are
    delivered."""
    fleet.wait_for_consumers()
    query = "SELECT count(*) FROM services WHERE state = 'active' AND universe = ANY(:universes)"
    wanted = [universe.value for universe in universes]
    started = time.perf_counter()
    with fleet.owner.begin() as tx:
        tx.execute(text("DELETE FROM lane_pauses"))
    while (done := fleet.scalar(query, universes=wanted)) < count:
        watch(done)
        if time.perf_counter() - started > ours.TIMEOUT_SECONDS:
            raise TimeoutError(f"{done} of {count} services")
        time.sleep(0.05)
    watch(count)
    return time.perf_counter() - started
