"""A fleet of real processes that reaches its database through PgBouncer in transaction mode."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, ended, finish, send
from tests.support.pgbouncer import PgBouncer

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def pooler(postgres: PrivatePostgres, tmp_path: Path) -> Iterator[PgBouncer]:
    pooler = PgBouncer(tmp_path / "pgbouncer", postgres, size=4)
    pooler.start()
    yield pooler
    pooler.stop()


def test_orders_are_delivered_by_a_fleet_behind_a_pooler_that_is_restarted(
    fleet_of: Callable[..., PrivateFleet],
    pooler: PgBouncer,
    simulator: Running,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = fleet_of()
    monkeypatch.setattr(fleet, "database_url", lambda role: pooler.role_url(fleet.database, role))
    fleet.start_all()
    fleet.start_worker("orders", name="worker-orders-2", threads=2)
    fleet.wait_for_consumers()
    send(fleet, 100, "before")
    fleet.wait_until(lambda: ended(fleet) > 20, TIMEOUT_SECONDS, "under load")

    pooler.stop()
    pooler.start()
    send(fleet, 50, "after")

    finish(fleet, 150, simulator)
    assert fleet.scalar("SELECT count(*) FROM lane_pauses") == 0
    assert all(member.deaths == 0 for member in fleet.members.values())
    logs = "".join(member.log.read_text() for member in fleet.members.values())
    assert "Traceback" not in logs
    assert "prepared statement" not in logs
