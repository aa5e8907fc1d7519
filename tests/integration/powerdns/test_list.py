"""The list of a server with very many zones, and of one that takes long to say it."""

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from schemas.books import BookUnavailable, ResourceEntry
from tests.integration.powerdns.sites import Site, a_domain, driver_of
from tests.support.between import Between, Fate
from tests.support.far_side import FarSide, answers
from tests.support.powerdns import PowerDns
from workers.conformance.drivers import whole
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import OperationKind
from workers.provisioning.drivers.powerdns import PowerDnsDriver

CREATE = OperationKind.CREATE
MANY = 150_000


@pytest.fixture(scope="module")
def many() -> bytes:
    """An answer that says what both requests of the list ask for, as PowerDNS does."""
    zones = [
        {
            "account": f"ar-3f0c1111-2222-4333-8444-{n:012d}", "dnssec": False, "kind": "Native",
            "id": f"site-{n}.example.", "name": f"site-{n}.example.", "serial": 1, "masters": [],
            "zone": f"site-{n}.example.", "type": "A", "content": "192.0.2.1",
        }
        for n in range(MANY)
    ]  # fmt: skip
    return json.dumps(zones).encode()


async def first_page(driver: PowerDnsDriver) -> tuple[Sequence[ResourceEntry], float, float]:
    """The page; the longest time in which the event loop did nothing else; the time of all."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    watching = asyncio.create_task(watch())
    started = time.monotonic()
    page = await driver.resources(None)
    watching.cancel()
    return page, longest, time.monotonic() - started


def test_pages_of_a_long_list_cost_little_and_leave_the_event_loop_to_others(
    many: bytes, server: PowerDns
) -> None:
    with (
        FarSide(answers(200, many)) as far_side,
        Waiting(driver_of(server, url=far_side.url)) as driver,
    ):
        # A busy machine makes pauses of its own: the shortest of some tries is the driver's.
        tries = [driver.run(first_page(driver.port)) for _ in range(5)]
        pause, took = min((pause, took) for _, pause, took in tries)
        assert pause < took / 4, f"a pause of {pause:.2f} s in {took:.2f} s"

        page, _, _ = tries[-1]
        started, seen = time.thread_time(), len(page)
        while page := driver.resources(page[-1].cursor):
            seen += len(page)
        assert seen == MANY
        assert time.thread_time() - started < 0.5


def test_list_is_read_once_and_not_kept_after_its_last_page(server: PowerDns, site: Site) -> None:
    site.does(CREATE, 1)
    with (
        Between(server.url, lambda _method, _path: Fate.PASSES) as between,
        Waiting(driver_of(server, url=between.url)) as driver,
    ):
        last = whole(driver)[-1]
        assert len(between.requests) == 2
        name = f"zz-{a_domain()}"
        server.make_zone(name)
        assert [entry.resource_id for entry in driver.resources(last.cursor)] == [name]
        assert len(between.requests) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"{}", b"[", b"[1]", b'[{"name": "a.example."}', b'[{"name": "a.example."},]',
        b'[{"name": "a.example."} {"name": "b.example."}]', b'[{"name": "a.example."}] x',
        b'[{"name": 5}]', b'[{"account": ""}]', b"\xff", b"[" * 100_000,
    ],
    ids=lambda body: body[:30],
)  # fmt: skip
def test_answer_that_is_no_list_of_zones_is_never_taken_for_a_part_of_one(
    server: PowerDns, body: bytes
) -> None:
    with (
        FarSide(answers(200, body)) as far_side,
        Waiting(driver_of(server, url=far_side.url)) as driver,
        pytest.raises(BookUnavailable, match="not_understood"),
    ):
        driver.resources(None)


def test_list_has_a_deadline_of_its_own(tmp_path: Path) -> None:
    server = PowerDns(tmp_path)
    server.start()
    again = threading.Timer(1, server.go_on)
    try:
        server.make_zone("shop.example")
        server.pause()
        with Waiting(driver_of(server, seconds=20, list_seconds=0.5)) as driver:
            started = time.monotonic()
            with pytest.raises(BookUnavailable):
                driver.resources(None)
            assert time.monotonic() - started < 15  # and not 20
        again.start()
        with Waiting(driver_of(server, seconds=0.3)) as driver:
            assert [entry.resource_id for entry in whole(driver)] == ["shop.example"]
    finally:
        again.cancel()
        server.go_on()
        server.stop()
