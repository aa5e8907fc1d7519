"""Virtual machines sold by a fleet of real processes, of which one is killed."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from autorenew.local.fleet import PrivateFleet
from monitoring.audit import audit
from producers.failpoints import NAMES
from producers.steps import BILLING, ORDERS
from schemas.settings import load_settings
from simulator.server import Running
from tests.chaos.test_faults import TIMEOUT_SECONDS, ended
from tests.chaos.test_outside import place
from tests.support.ec2 import KEY, SECRET, Ec2
from tests.support.given import line, order
from tests.unit.test_libcloud import PLAN, options
from workers.bootstrap import books_of

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def ec2() -> Iterator[Ec2]:
    with Ec2() as running:
        running.reset()
        yield running


@pytest.mark.parametrize("where", ["worker.before_call", "worker.after_call"])
def test_worker_that_is_killed_leaves_one_machine_for_each_service(
    fleet_of: Callable[..., PrivateFleet],
    simulator: Running,
    ec2: Ec2,
    tmp_path: Path,
    where: str,
) -> None:
    # Given a provider that heeds no tokens and takes a while, and a worker that will be killed
    ec2.heeds_tokens = False
    ec2.pending_seconds = 0.5
    folder = tmp_path / "failpoints"
    folder.mkdir()
    for name in set(NAMES) - {where}:
        (folder / name).touch()
    drivers = {"cloud": {"kind": "libcloud", **options(ec2.url, plans={"vm": PLAN})}}
    fleet = fleet_of()
    fleet.start_relay()
    fleet.start_worker(ORDERS, threads=1)
    fleet.start_worker(BILLING, threads=1)
    fleet.start_worker(
        "cloud", driver_urls="{}", drivers=json.dumps(drivers), failpoints=str(folder)
    )
    fleet.wait_for_consumers()

    # When machines are ordered
    place(fleet, *(order(f"vm-{n}", line("vm"), customer=f"v-{n}") for n in range(3)))
    fleet.wait_until(lambda: ended(fleet) == 3, TIMEOUT_SECONDS, "all orders end")
    fleet.wait_until_idle(TIMEOUT_SECONDS)

    # Then a worker died, and there is one machine for each service, that the books agree on.
    assert (folder / where).exists()
    gateway = f"{simulator.url}/gateway"
    books = books_of(load_settings(gateway_url=gateway, drivers=drivers))
    listed = books.resources()["cloud"]
    with fleet.owner.connect() as tx:
        services = tx.execute(text("SELECT id, resource_id FROM services")).all()
        findings = audit(tx, books)
        kept = "".join(
            str(tx.execute(text(f"SELECT json_agg(t) FROM {table} AS t")).scalar())
            for table in tx.execute(
                text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            )
            .scalars()
            .all()
        )
    assert sorted((str(s.id), s.resource_id) for s in services) == sorted(
        (e.service_id, e.resource_id) for e in listed
    )
    assert [(f.invariant, f.ids) for f in findings if f.broken] == []
    # And the credential is nowhere.
    logs = "".join(log.read_text() for log in Path(fleet._folder).glob("*.log"))
    for secret in (KEY, SECRET):
        assert not re.search(re.escape(secret), kept + logs)
    assert kept.count("cloud") > 0
    assert logs
