"""A fleet of real processes on three nodes of RabbitMQ, of which one after the other goes away.

All queues are quorum queues with three members. The fleet knows all nodes, and none of its
processes is started again. It takes two minutes, and so runs where ``AUTORENEW_TEST_CLUSTER=1``
asks for it.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, ended, finish, send
from tests.support import given
from tests.support.brokers import VERSIONS, server_of
from tests.support.given import wait_until

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.skipif(
        os.environ.get("AUTORENEW_TEST_CLUSTER") != "1", reason="AUTORENEW_TEST_CLUSTER is not 1"
    ),
]

NODES = 3


class ClusteredFleet(PrivateFleet):
    """Its processes may use every node; the test uses ``rabbitmq``, one that is up."""

    nodes: list[PrivateRabbitMQ]

    def environment(self, user: str, role: str) -> dict[str, str]:
        urls = [node.url(user, f"pw-{user}", vhost=self.vhost) for node in self.nodes]
        return super().environment(user, role) | {"AUTORENEW_BROKER_URL": ",".join(urls)}

    def leader_of(self, queue: str) -> PrivateRabbitMQ:
        """The node that leads a queue."""
        lines = self.rabbitmq.ctl("list_queues", "--vhost", self.vhost, "name", "leader")
        leaders = dict(line.split() for line in lines.splitlines() if len(line.split()) == 2)
        return next(node for node in self.nodes if node.name == leaders[queue])

    def members_of(self, queue: str) -> str:
        lines = self.rabbitmq.ctl("list_queues", "--vhost", self.vhost, "name", "online")
        return next(one for one in lines.splitlines() if one.split("\t")[0] == queue)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[PrivateRabbitMQ]]:
    server = server_of(VERSIONS[-1])
    first = PrivateRabbitMQ(tmp_path / "node0", server)
    others = [PrivateRabbitMQ(tmp_path / f"node{n}", server, peer=first) for n in range(1, NODES)]
    try:
        first.start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(PrivateRabbitMQ.start, others))
        for other in others:
            other.join()
        yield [first, *others]
    finally:
        for node in (*others, first):
            node.thaw()
            node.stop()


@pytest.fixture
def fleet(
    nodes: list[PrivateRabbitMQ], postgres: PrivatePostgres, simulator: Running, tmp_path: Path
) -> Iterator[ClusteredFleet]:
    fleet = ClusteredFleet(
        tmp_path / "fleet",
        postgres,
        nodes[0],
        database="cluster",
        simulator_url=simulator.url,
        call_seconds="1",
        lease_seconds="4",
        rescue_seconds="2",
        retry_base_seconds="0.1",
        shutdown_seconds="20",
        log_level="INFO",
    )
    fleet.nodes = nodes
    fleet.prepare(given.CATALOGUE)
    fleet.start_all()
    fleet.wait_for_consumers()
    yield fleet
    fleet.close()


def test_no_order_is_lost_when_a_leader_is_killed_and_another_one_is_cut_off(
    fleet: ClusteredFleet, simulator: Running
) -> None:
    for queue in ("intake", "orders", "web"):
        wait_until(lambda q=queue: fleet.members_of(q).count("autorenew") == 3, "3 members", 20)
    send(fleet, 100, "before")
    fleet.wait_until(lambda: ended(fleet) > 10, TIMEOUT_SECONDS, "under load")

    killed = fleet.leader_of("orders")
    fleet.rabbitmq = next(node for node in fleet.nodes if node is not killed)
    killed.kill()
    send(fleet, 60, "without-the-first")
    finish(fleet, 160, simulator)
    killed.start()
    wait_until(lambda: fleet.members_of("orders").count("autorenew") == 3, "it is back", 60)

    send(fleet, 60, "with-all")
    fleet.wait_until(lambda: ended(fleet) > 170, TIMEOUT_SECONDS, "under load")
    frozen = fleet.leader_of("orders")
    fleet.rabbitmq = next(node for node in fleet.nodes if node is not frozen)
    frozen.freeze()
    try:
        send(fleet, 60, "without-the-second")
        finish(fleet, 280, simulator)
    finally:
        frozen.thaw()
    send(fleet, 20, "at-the-end")
    finish(fleet, 300, simulator)

    assert all(member.deaths == 0 for member in fleet.members.values())
    logs = "".join(member.log.read_text() for member in fleet.members.values())
    assert "Traceback" not in logs
