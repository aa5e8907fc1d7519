"""A fleet of real processes while its primary goes away and the standby takes its place.

No process is started again. If nothing that was committed is lost, nobody has to do anything.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autorenew.local.fleet import PrivateFleet
from autorenew.local.rabbitmq import PrivateRabbitMQ
from producers import ledger
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, ended, finish, send
from tests.support import given
from tests.support.standby import Pair

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def started(
    rabbitmq: PrivateRabbitMQ, simulator: Running, tmp_path: Path
) -> Iterator[Callable[[bool], tuple[Pair, PrivateFleet]]]:
    """Starts a pair of servers with a fleet on it."""
    running: list[Any] = []

    def start(synchronous: bool) -> tuple[Pair, PrivateFleet]:
        pair = Pair(tmp_path / "servers", synchronous=synchronous)
        running.append(pair.stop)
        pair.start()
        fleet = PrivateFleet(
            tmp_path / "fleet",
            pair.primary,
            rabbitmq,
            database="failover",
            simulator_url=simulator.url,
            call_seconds="1",
            lease_seconds="4",
            rescue_seconds="2",
            retry_base_seconds="0.1",
            shutdown_seconds="20",
            log_level="INFO",
        )
        fleet.prepare(given.CATALOGUE)
        running.append(fleet.stop)
        running.append(fleet.owner.dispose)
        fleet.start_all()
        fleet.wait_for_consumers()
        return pair, fleet

    yield start
    for stop in reversed(running):
        stop()


def paused(fleet: PrivateFleet) -> list[str]:
    query = "SELECT coalesce(array_agg(lane ORDER BY lane), '{}') FROM lane_pauses"
    return list(fleet.scalar(query))


def logs(fleet: PrivateFleet) -> str:
    return "".join(member.log.read_text() for member in fleet.members.values())


@pytest.mark.parametrize("kind", ["switchover", "crash"])
def test_fleet_goes_on_at_the_new_primary_and_nothing_is_lost(
    started: Any, simulator: Running, kind: str
) -> None:
    pair, fleet = started(kind == "crash")
    send(fleet, 150, "before")
    fleet.wait_until(lambda: ended(fleet) > 20, TIMEOUT_SECONDS, "under load")

    if kind == "crash":
        pair.crash()
    else:  # the standby has everything when the primary has ended
        pair.primary.stop()
        pair.promote()
    fleet.owner.dispose()
    send(fleet, 50, "after")

    finish(fleet, 200, simulator)
    assert paused(fleet) == []
    assert all(member.deaths == 0 for member in fleet.members.values())
    assert "Traceback" not in logs(fleet)
    assert "the database was promoted, and nothing that was seen is missing" in logs(fleet)


def test_fleet_finds_its_way_to_and_fro(started: Any, simulator: Running) -> None:
    """The old primary comes back as a standby: at its address writes are refused."""
    pair, fleet = started(False)
    total = 0
    for turn in range(2):
        send(fleet, 60, f"turn{turn}")
        total += 60
        before = total - 60
        fleet.wait_until(lambda n=before: ended(fleet) > n + 10, TIMEOUT_SECONDS, "under load")
        pair.primary.stop()
        pair.promote()
        pair.bring_back()
        fleet.owner.dispose()

    finish(fleet, total, simulator)
    assert paused(fleet) == []
    assert all(member.deaths == 0 for member in fleet.members.values())


def test_promotion_that_lost_what_was_committed_waits_for_a_person(
    started: Any, simulator: Running
) -> None:
    pair, fleet = started(False)
    send(fleet, 30, "kept")
    fleet.wait_until(lambda: ended(fleet) == 30, TIMEOUT_SECONDS, "they end")
    pair.cut_off()
    send(fleet, 30, "lost")
    fleet.wait_until(lambda: ended(fleet) == 60, TIMEOUT_SECONDS, "they end, too")

    pair.crash()
    fleet.owner.dispose()

    guarded = sorted(ledger.GUARDED_LANES)
    fleet.wait_until(lambda: paused(fleet) == guarded, TIMEOUT_SECONDS, "lanes are paused")
    assert ended(fleet) == 30
    reasons = fleet.scalar("SELECT string_agg(DISTINCT reason, '; ') FROM lane_pauses")
    assert "a promotion that lost transactions, or a restored backup?" in reasons
    assert all(member.deaths == 0 for member in fleet.members.values())
    # What was lost is sent again, and waits for a person before it is charged.
    send(fleet, 30, "lost")
    fleet.wait_until(
        lambda: fleet.scalar("SELECT count(*) FROM orders WHERE state = 'priced'") == 30,
        TIMEOUT_SECONDS,
        "they are priced",
    )
    assert len(simulator.simulator.store.book(0, 1000)) == 60
