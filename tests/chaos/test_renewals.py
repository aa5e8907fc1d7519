"""A fleet of real processes in the middle of renewals, while things are killed.

Each service renews once, no customer is told anything twice, and all books agree.
"""

import threading
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from autorenew.local.fleet import PrivateFleet
from producers.failpoints import NAMES
from producers.intake import Intake
from schemas.catalogue.store import CatalogueCache, set_rollout
from schemas.database import connect
from schemas.virtual_clock import VirtualClock
from simulator.mailbox import Mailbox
from simulator.server import Running
from tests.chaos.test_faults import PLANS, TIMEOUT_SECONDS, assert_clean, handler_processes, kill
from tests.support.given import body, line, order

pytestmark = pytest.mark.rabbitmq

UNIVERSES = ("web", "dedicated", "cloud", "telecom")
CUSTOMERS = 15
MONTH = timedelta(days=30)


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of failpoints. All are taken: nobody is killed there until their files are deleted."""
    folder = tmp_path / "failpoints"
    folder.mkdir()
    for name in NAMES:
        (folder / name).touch()
    return folder


@pytest.fixture
def fleet(fleet_of: Callable[..., PrivateFleet], mailbox: Mailbox, folder: Path) -> PrivateFleet:
    """With thirty delivered services of fifteen customers, renewal switched on, time still.

    Time leaps by a month at once; that it is not taken for a silence is the tests' business.
    """
    fleet = fleet_of(
        smtp_url=mailbox.url,
        virtual=True,
        silence_seconds=str(300 * 86_400),
        sweep_seconds="0.05",
        failpoints=str(folder),
    )
    fleet.start_relay()
    start_workers(fleet)
    place(fleet, *(order(f"k-{n}", line(PLANS[n % 4], quantity=2), customer=f"c-{n}")
                   for n in range(CUSTOMERS)))  # fmt: skip
    fleet.wait_until_idle(TIMEOUT_SECONDS)
    with fleet.owner.begin() as tx:
        for brand in ("ovh", "kimsufi", "soyoustart"):
            set_rollout(tx, brand, "FR", date(2020, 1, 1))
    return fleet


def start_workers(fleet: PrivateFleet) -> None:
    for queues in (("orders",), ("billing",), ("reminders",), UNIVERSES):
        fleet.start_worker(*queues, threads=2)


def place(fleet: PrivateFleet, *documents: Any) -> list[Any]:
    engine = connect(fleet.database_url("api"))
    intake = Intake(engine, CatalogueCache(), VirtualClock(fleet.owner))
    answers = intake.place("shop", "python", [body(d) for d in documents])
    engine.dispose()
    return answers


def paid(fleet: PrivateFleet) -> dict[int, int]:
    with fleet.owner.connect() as tx:
        query = "SELECT paid_periods, count(*) FROM services GROUP BY 1"
        return dict(tx.exec_driver_sql(query).all())


def settle(fleet: PrivateFleet, periods: int) -> None:
    """Wait until every service has so many paid periods and no task is left."""
    fleet.wait_until(lambda: paid(fleet) == {periods: 2 * CUSTOMERS}, TIMEOUT_SECONDS, "renewed")
    due = (
        "SELECT count(*) FROM services"
        " WHERE next_step_at <= now() + (SELECT ahead FROM virtual_clock)"
    )
    fleet.wait_until(lambda: fleet.scalar(due) == 0, TIMEOUT_SECONDS, "nothing is due")
    fleet.wait_until_idle(TIMEOUT_SECONDS)


def assert_told_once(fleet: PrivateFleet, mailbox: Mailbox) -> None:
    """What counts as sent was received. What was received and does not count was overtaken: its
    process died with the mail handed over, and by the next look there was nothing left to say."""
    with fleet.owner.connect() as tx:
        emails = tx.exec_driver_sql("SELECT id, sent_at FROM emails WHERE begun_at IS NOT NULL")
        begun = {f"<{row.id}@example.com>": row.sent_at for row in emails}
    received = set(mailbox.message_ids)
    assert received <= set(begun)
    assert {message_id for message_id, sent_at in begun.items() if sent_at} <= received


def test_every_failpoint_of_a_renewal_is_visited_and_each_service_renews_once(
    fleet: PrivateFleet, simulator: Running, mailbox: Mailbox, folder: Path
) -> None:
    fleet.start_scheduler()
    for queues in (("orders",), ("billing",), ("reminders",)):
        fleet.start_worker(*queues, name=f"worker-{queues[0]}-2", threads=2)
    names = [name for name in NAMES if not name.startswith(("intake", "bulk", "events"))]
    for name in names:
        (folder / name).unlink()
    periods = 1
    while missing := [name for name in names if not (folder / name).exists()]:
        assert periods < 6, f"never visited: {missing}"
        periods += 1
        fleet.leap(MONTH, TIMEOUT_SECONDS)
        settle(fleet, periods)

    assert fleet.members["scheduler"].deaths >= 2
    assert_told_once(fleet, mailbox)
    assert_clean(fleet)


def test_renewals_survive_processes_that_are_killed(
    fleet: PrivateFleet, simulator: Running, mailbox: Mailbox
) -> None:
    fleet.start_scheduler()
    fleet.start_scheduler("scheduler-2")
    for periods in (2, 3):
        fleet.leap(MONTH, TIMEOUT_SECONDS)
        for name in ("scheduler", "relay", "scheduler-2"):
            fleet.members[name].kill()
            kill(handler_processes(fleet))
        settle(fleet, periods)

    assert_told_once(fleet, mailbox)
    assert_clean(fleet)


def test_service_renews_once_when_two_schedulers_and_a_click_meet_in_one_second(
    fleet: PrivateFleet, simulator: Running
) -> None:
    with fleet.owner.connect() as tx:
        services = tx.exec_driver_sql(
            "SELECT id, customer_id, (expires_at AT TIME ZONE 'Europe/Paris')::date FROM services"
        ).all()
    clicks = [
        {
            "command": "renew",
            "customer": customer,
            "services": [{"id": str(service), "expires_on": expires_on.isoformat()}],
        }
        for service, customer, expires_on in services
    ]
    fleet.start_scheduler()
    fleet.start_scheduler("scheduler-2")
    fleet.leap(MONTH, TIMEOUT_SECONDS)
    threads = [threading.Thread(target=place, args=(fleet, *clicks[n::3])) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    settle(fleet, 2)
    assert all(answer.verdict == "accepted" for answer in place(fleet, *clicks))
    settle(fleet, 2)
    assert_clean(fleet)


def test_renewals_survive_a_database_that_is_killed(
    fleet: PrivateFleet, simulator: Running, postgres: Any
) -> None:
    fleet.start_scheduler()
    fleet.leap(MONTH, TIMEOUT_SECONDS)
    fleet.wait_until(lambda: 2 in paid(fleet), TIMEOUT_SECONDS, "the first are renewed")
    postgres.kill()
    postgres.start()
    fleet.owner.dispose()

    settle(fleet, 2)
    assert_clean(fleet)
