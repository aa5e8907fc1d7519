"""Orders against an outside world that takes its time: a process for the gateway, one for drivers.

The far side is a process of its own that answers after a delay and does nothing else; what it can
serve by itself is measured first.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from autorenew.local.fleet import PrivateFleet, descendants
from autorenew.local.ports import free_port
from producers.steps import BILLING, ORDERS, UNIVERSES

CHARGE_SECONDS = 0.3
OPERATE_SECONDS = 0.5
AT_ONCE = {"billing": 225, "provisioning": 375}
# Orders a second, if no call ever waited for another's end.
BOUND = min(AT_ONCE["billing"] / CHARGE_SECONDS, AT_ONCE["provisioning"] / OPERATE_SECONDS)
# Long enough that a thousand calls are under way together.
LONG_SECONDS = 8.0


@contextmanager
def far_side(
    charge_seconds: float, operate_seconds: float, hangs: Sequence[str] = ()
) -> Iterator[str]:
    """A far side in a process of its own; its base URL."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.far_side", str(port),
         "--charge-seconds", str(charge_seconds), "--operate-seconds", str(operate_seconds),
         "--hangs", *hangs],
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        asyncio.run(_wait_for(url))
        yield url
    finally:
        process.terminate()
        process.wait(10)


async def _wait_for(url: str) -> None:
    end = time.monotonic() + 20
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                await _charge(session, url)
                return
            except aiohttp.ClientError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)


async def _charge(session: aiohttp.ClientSession, url: str) -> None:
    body = {"key": "0", "amount": 1, "currency": "EUR", "token": "t", "customer": "c"}
    async with session.post(f"{url}/gateway/charges", json=body) as response:
        await response.read()


def served(url: str, calls: int = 6000, at_once: int = 500) -> float:
    """Calls a second that a far side without a delay serves to one client."""

    async def run() -> float:
        room = asyncio.Semaphore(at_once)
        connector = aiohttp.TCPConnector(limit=at_once)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one() -> None:
                async with room:
                    await _charge(session, url)

            await asyncio.gather(*(one() for _ in range(at_once)))
            started = time.perf_counter()
            await asyncio.gather(*(one() for _ in range(calls)))
            return calls / (time.perf_counter() - started)

    return asyncio.run(run())


def settings(url: str) -> dict[str, str]:
    """What every process of the fleet is told."""
    drivers = {universe: f"{url}/infrastructure/{universe}" for universe in UNIVERSES}
    return {
        "gateway_url": f"{url}/gateway",
        "driver_urls": json.dumps(drivers),
        "calls_at_once": str(AT_ONCE["billing"]),
        "log_level": "WARNING",
    }


def start(fleet: PrivateFleet) -> None:
    """One process for the gateway, one for all drivers."""
    fleet.start_relay()
    fleet.start_worker(ORDERS, threads=1)
    fleet.start_worker(BILLING, threads=4)
    fleet.start_worker(*UNIVERSES, threads=4, calls_at_once=str(AT_ONCE["provisioning"]))
    fleet.wait_for_consumers()


def wait_for_charges(fleet: PrivateFleet, count: int) -> None:
    """Until so many charges were begun, and their calls have had a second to be made."""
    query = """SELECT count(*) FROM charges
        WHERE state = 'started' AND started_at < now() - interval '1 s'"""
    fleet.wait_until(lambda: fleet.scalar(query) >= count, 60, "they are called")


def memory(fleet: PrivateFleet, member: str) -> float:
    """Resident MB of the process that runs a member's handlers."""
    *_, pid = [p for p in descendants(fleet.members[member].pid) if not list(descendants(p))]
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(row for row in status.splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
