"""Workers that are killed while they speak to a real PowerDNS: each service has one zone."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autorenew.local.fleet import PrivateFleet
from monitoring.audit import audit
from producers.steps import BILLING, ORDERS, UNIVERSES
from schemas.settings import load_settings
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, ended
from tests.chaos.test_outside import place
from tests.support.dying import start_groups
from tests.support.given import line, order
from tests.support.powerdns import PowerDns, options
from workers.bootstrap import books_of

pytestmark = pytest.mark.rabbitmq

DONE_OF_THE_LAST = """
    SELECT count(*) FROM services AS s JOIN orders AS o ON o.id = s.order_id
    WHERE s.state = 'active' AND substr(o.key, 3)::int >= :first
"""
# Where a worker is between its call and its record, and just before and after.
PLACES = ("worker.after_begin", "worker.before_call", "worker.after_call", "worker.before_finish")


@pytest.fixture
def server(tmp_path: Any) -> Iterator[PowerDns]:
    server = PowerDns(tmp_path / "powerdns")
    server.start()
    yield server
    server.stop()


def test_worker_that_is_killed_between_call_and_record_leaves_one_zone_for_each_service(
    fleet_of: Callable[..., PrivateFleet], simulator: Running, server: PowerDns, tmp_path: Any
) -> None:
    # Given workers that kill themselves once at every place around a call
    drivers = {"web": {"kind": "powerdns"} | options(server)}
    others = {u: f"{simulator.url}/infrastructure/{u}" for u in UNIVERSES if u != "web"}
    far_sides = {"drivers": drivers, "driver_urls": others}
    fleet = fleet_of(call_seconds="5", **{name: json.dumps(v) for name, v in far_sides.items()})
    folder = tmp_path / "failpoints"
    folder.mkdir()
    fleet.start_relay()
    fleet.start_worker(ORDERS, threads=1)
    fleet.start_worker(BILLING, threads=1)
    workers = start_groups(fleet, *UNIVERSES, failpoints=str(folder))
    fleet.wait_for_consumers()

    def sell(first: int, last: int) -> None:
        place(
            fleet,
            *(
                order(f"k-{n}", line("site", domain=f"s{n}.example"), customer=f"c-{n}")
                for n in range(first, last)
            ),
        )

    # When zones are ordered until they have been at all of them
    count = 0
    while not all((folder / name).exists() for name in PLACES):
        assert count < 400, [path.name for path in folder.iterdir()]
        sell(count, count + 20)
        count += 20
        fleet.wait_until(
            lambda total=count: ended(fleet) == total, TIMEOUT_SECONDS, "all orders end"
        )
    # And once more, when the workers are killed while calls are under way
    sell(count, count + 60)
    count += 60
    fleet.wait_until(
        lambda: 0 < fleet.scalar(DONE_OF_THE_LAST, first=count - 60) < 60,
        TIMEOUT_SECONDS,
        "some are created",
    )
    for worker in workers:
        worker.kill()
    fleet.wait_until(lambda: ended(fleet) == count, TIMEOUT_SECONDS, "all orders end")
    fleet.wait_until_idle(TIMEOUT_SECONDS)

    # Then every service has its zone, which answers, and both sides say the same.
    assert server.zones().keys() == {f"s{n}.example" for n in range(count)} | {"autorenew.invalid"}
    assert {str(server.ask(f"s{n}.example")) for n in range(count)} == {"['192.0.2.20']"}
    books = books_of(load_settings(gateway_url=f"{simulator.url}/gateway", **far_sides))
    with fleet.owner.connect() as tx:
        findings = audit(tx, books)
    assert [(f.invariant, f.ids) for f in findings if f.broken] == []
    # And no log has the key.
    written = "".join(path.read_text() for path in (tmp_path / "fleet").glob("*.log"))
    assert options(server)["token"] not in written
