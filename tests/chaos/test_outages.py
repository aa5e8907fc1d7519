"""One fleet of real processes, under load, while one thing after the other is killed or cut.

After each outage it goes on by itself: no order is lost, and all books agree.
"""

import threading
from collections.abc import Iterator

import pytest

from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from simulator.server import Running
from tests.chaos.test_faults import (
    TIMEOUT_SECONDS,
    ended,
    finish,
    handler_processes,
    kill,
    send,
)
from tests.support import given
from tests.support.databases import Databases

pytestmark = pytest.mark.rabbitmq

DATABASE = "outages"
LOAD = 300
# Charges take a while, few at once: whatever is broken meets a fleet at work for four seconds.
SLOW = {"fault": "slow", "operation": "charge", "seconds": 0.3}
CALLS_AT_ONCE = "20"


@pytest.fixture(scope="module")
def far_side() -> Iterator[Running]:
    with Running(rules=[SLOW]) as running:
        yield running


@pytest.fixture(scope="module")
def fleet(
    postgres: PrivatePostgres,
    databases: Databases,
    rabbitmq: PrivateRabbitMQ,
    far_side: Running,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PrivateFleet]:
    databases.take(DATABASE)
    fleet = PrivateFleet(
        tmp_path_factory.mktemp("fleet"),
        postgres,
        rabbitmq,
        database=DATABASE,
        simulator_url=far_side.url,
        call_seconds="1",
        calls_at_once=CALLS_AT_ONCE,
        lease_seconds="4",
        rescue_seconds="2",
        order_charge_delays="[0.1, 0.2]",
        retry_base_seconds="0.1",
        shutdown_seconds="20",
        log_level="INFO",
    )
    fleet.prepare(given.CATALOGUE)
    fleet.start_all()
    fleet.wait_for_consumers(2 * TIMEOUT_SECONDS)
    yield fleet
    fleet.close(keep_database=True)
    databases.give_back(DATABASE)


class Busy:
    """The fleet in the middle of the orders of one test."""

    def __init__(self, fleet: PrivateFleet, far_side: Running) -> None:
        self.fleet = fleet
        self._far_side = far_side
        self._before = self._taken()
        self._sent = 0
        self._logs = {m.name: m.log.stat().st_size for m in fleet.members.values()}
        self._deaths = {m.name: m.deaths for m in fleet.members.values()}
        self.send(LOAD, "k")
        self.wait_until_more_end(10)
        assert self.ended() < LOAD, "too late to disturb anything"

    def _taken(self) -> int:
        return int(self.fleet.scalar("SELECT count(*) FROM orders"))

    def taken(self) -> int:
        """Orders of this test that are in the database."""
        return self._taken() - self._before

    def ended(self) -> int:
        return ended(self.fleet) - self._before

    def send(self, count: int, prefix: str) -> None:
        send(self.fleet, count, f"{prefix}-after-{self._before}")
        self._sent += count

    def wait_until_more_end(self, more: int = 0) -> None:
        """Until more than so many orders have ended beside those that have by now."""
        goal = self.ended() + more
        self.fleet.wait_until(lambda: self.ended() > goal, TIMEOUT_SECONDS, "it goes on")

    def finish(self) -> None:
        finish(self.fleet, self._before + self._sent, self._far_side)

    def said(self) -> str:
        """What its processes have written to their logs since the test began."""
        return "".join(
            member.log.read_bytes()[self._logs.get(member.name, 0) :].decode()
            for member in self.fleet.members.values()
        )

    def deaths(self) -> int:
        return sum(
            member.deaths - self._deaths.get(member.name, 0)
            for member in self.fleet.members.values()
        )


@pytest.fixture
def busy(fleet: PrivateFleet, far_side: Running) -> Busy:
    assert ended(fleet) == fleet.scalar("SELECT count(*) FROM orders"), "left by the test before"
    return Busy(fleet, far_side)


def test_no_order_is_lost_when_workers_and_relays_are_killed_under_load(busy: Busy) -> None:
    busy.fleet.start_relay("relay-2")
    for n in range(3):
        kill(handler_processes(busy.fleet))
        busy.fleet.members["relay"].kill()
        busy.send(20, f"more{n}")
        busy.wait_until_more_end()

    busy.finish()
    assert busy.fleet.members.pop("relay-2").stop() == 0


def test_no_order_is_lost_when_the_broker_is_killed_and_started_again(
    busy: Busy, rabbitmq: PrivateRabbitMQ
) -> None:
    rabbitmq.kill()
    rabbitmq.start()

    busy.finish()


def test_no_order_is_lost_when_the_broker_loses_all_its_messages(
    busy: Busy, rabbitmq: PrivateRabbitMQ
) -> None:
    busy.fleet.wait_until(lambda: busy.taken() == LOAD, TIMEOUT_SECONDS, "all are taken in")
    rabbitmq.kill()
    rabbitmq.wipe()
    rabbitmq.start()
    rabbitmq.add_vhost(busy.fleet.vhost)
    busy.fleet.setup_broker()
    busy.send(20, "afterwards")

    busy.finish()


def test_no_order_is_lost_while_the_broker_has_no_memory_and_no_disk(
    busy: Busy, rabbitmq: PrivateRabbitMQ
) -> None:
    """In an alarm connecting still works, and what is published waits."""
    for limit, too_much, enough in (
        ("set_vm_memory_high_watermark", "0.00001", "0.4"),
        ("set_disk_free_limit", "900000000MB", "50MB"),
    ):
        before = busy.ended()
        rabbitmq.ctl(limit, too_much)
        try:
            threading.Event().wait(3)
        finally:
            rabbitmq.ctl(limit, enough)
        busy.send(10, limit[4:7])
        busy.fleet.wait_until(lambda b=before: busy.ended() > b, TIMEOUT_SECONDS, "it goes on")

    busy.finish()
    assert "Traceback" not in busy.said()
    assert busy.deaths() == 0


def test_no_order_is_lost_when_the_database_is_killed_and_started_again(
    busy: Busy, postgres: PrivatePostgres
) -> None:
    postgres.kill()
    postgres.start()
    busy.fleet.owner.dispose()  # the test's own connections died as well

    busy.finish()


def test_no_order_is_lost_when_connections_are_cut_again_and_again(
    busy: Busy, rabbitmq: PrivateRabbitMQ
) -> None:
    cut = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    for n in range(4):
        rabbitmq.ctl("close_all_connections", "--vhost", busy.fleet.vhost, "test")
        assert busy.fleet.scalar(cut) > 0
        busy.send(10, f"more{n}")

    busy.finish()


def test_sigterm_drains_and_nothing_is_lost(busy: Busy) -> None:
    members = set(busy.fleet.members)
    codes = busy.fleet.stop()

    assert codes == dict.fromkeys(members, 0)
    assert members >= {"intake", "relay", "scheduler", "worker-orders", "worker-billing"}
    assert busy.fleet.scalar("SELECT count(*) FROM batches WHERE state = 'leased'") == 0
    busy.fleet.start_all()
    busy.finish()
