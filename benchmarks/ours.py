"""The fleet under load: workers that are up and waiting, orders that are accepted and paused."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, text

from autorenew.local.fleet import UNIVERSES, PrivateFleet, descendants
from benchmarks.orders import delivered
from producers.relay.windows import MESSAGES_PER_WINDOW
from producers.steps import BILLING, ORDERS, PRICING
from schemas.settings import INSTANT

# Far above any time seen: a benchmark that hangs has to end.
TIMEOUT_SECONDS = 600.0
# Counting what is delivered takes the database milliseconds.
COUNT_EVERY_SECONDS = 1.0


def settings(batch: int) -> dict[str, str]:
    """Gateway and driver answer at once in the workers' own process."""
    return {
        "gateway_url": INSTANT,
        "driver_urls": json.dumps(dict.fromkeys(UNIVERSES, INSTANT)),
        "batch": str(batch),
        "calls_at_once": str(batch * MESSAGES_PER_WINDOW),
        "log_level": "WARNING",
    }


def start(fleet: PrivateFleet, *, threads: int = 1) -> None:
    fleet.start_relay()
    for queues in ((ORDERS,), (BILLING,), UNIVERSES):
        fleet.start_worker(*queues, threads=threads)
    fleet.wait_for_consumers()


def pause(engine: Engine) -> None:
    """Hold the first step's lane, as `autorenew lanes pause` does."""
    with engine.begin() as tx:
        tx.execute(
            text("INSERT INTO lane_pauses (lane, reason) VALUES (:lane, 'benchmark')"),
            {"lane": PRICING.lane},
        )


def run(engine: Engine, count: int, watch: Callable[[int], None]) -> float:
    """Release what is paused; returns the seconds until ``count`` more orders are delivered."""
    already = delivered(engine)
    started = time.perf_counter()
    with engine.begin() as tx:
        tx.execute(text("DELETE FROM lane_pauses"))
    counted_at = started
    while _is_any_left(engine) or delivered(engine) - already < count:
        now = time.perf_counter()
        if now - counted_at > COUNT_EVERY_SECONDS:
            counted_at = now
            watch(delivered(engine) - already)
        if now - started > TIMEOUT_SECONDS:
            raise TimeoutError(f"not {count} orders after {TIMEOUT_SECONDS:g} s")
        time.sleep(0.05)
    watch(count)
    return time.perf_counter() - started


def _is_any_left(engine: Engine) -> bool:
    """Whether an order has a task: far cheaper than to count what is delivered."""
    query = text("SELECT EXISTS (SELECT FROM tasks WHERE queue = ANY(:queues))")
    with engine.connect() as tx:
        queues = [ORDERS, BILLING, *UNIVERSES]
        return bool(tx.execute(query, {"queues": queues}).scalar_one())


def worker_memory(fleet: PrivateFleet) -> list[float]:
    """Resident MB of every process that runs handlers: the last of each launcher's line."""
    sizes = []
    for name, member in fleet.members.items():
        if name.startswith("worker"):
            for pid in descendants(member.pid):
                if not list(descendants(pid)):
                    status = Path(f"/proc/{pid}/status").read_text()
                    line = next(row for row in status.splitlines() if row.startswith("VmRSS"))
                    sizes.append(int(line.split()[1]) / 1024)
    return sizes
