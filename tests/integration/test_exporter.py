"""What the exporter says of a fleet, and what a scrape shows when a part of it fails."""

from typing import Any

import pytest
from sqlalchemy import text

from autorenew.console.today import today
from monitoring.exporter.exporter import Exporter, World
from producers.control import lanes
from producers.control.lanes import FIXED
from producers.ledger import GUARDED_LANES, Place, enqueue
from producers.presence import Presence, version
from producers.steps import QUEUES, STEPS
from tests.conftest import Database
from tests.support.given import line, order

WORLD = World(QUEUES, list(STEPS), FIXED, GUARDED_LANES, version())


class Scraped:
    """What a scrape answers after every part was collected once."""

    def __init__(self, database: Database, world: World = WORLD) -> None:
        self.exporter = Exporter(database.engine("exporter"), world)
        for round in self.exporter.rounds().values():
            round()
        self.samples = {
            (sample.name, tuple(sample.labels.values())): sample.value
            for metric in self.exporter.collection.collect()
            for sample in metric.samples
        }

    def __getitem__(self, key: tuple[str, ...]) -> float:
        name, *labels = key
        return self.samples[f"autorenew_{name}", tuple(labels)]

    def family(self, name: str) -> dict[Any, float]:
        return {k[1]: v for k, v in self.samples.items() if k[0] == f"autorenew_{name}"}


def task(database: Database, changes: str = "", lane: str = "driver:web") -> None:
    with database.owner.begin() as tx:
        new = tx.execute(text("SELECT gen_random_uuid()")).scalar_one()
        enqueue(tx, "converge", [(new, Place("web", lane))])
        if changes:
            tx.execute(text("DELETE FROM batches WHERE :id = ANY(subjects)"), {"id": new})
            tx.execute(
                text(f"UPDATE tasks SET batched = false, {changes} WHERE subject = :id"),
                {"id": new},
            )


def test_no_part_fails_on_an_empty_fleet_and_what_is_empty_is_zero(database: Database) -> None:
    scraped = Scraped(database)

    assert set(scraped.family("exporter_failed_collections_total").values()) == {0}
    assert scraped["oldest_ready_seconds", "web"] == 0
    assert scraped["oldest_held_seconds", "web"] == 0
    assert scraped["tasks", "billing", "dispatched"] == 0
    assert scraped["orders", "paid"] == 0
    assert scraped["last_beat_timestamp_seconds", "relay"] == 0
    assert scraped["processes_alive", "worker", "cloud", version()] == 0
    assert scraped["last_full_audit_timestamp_seconds",] == 0
    assert scraped["money_today", "charged", "EUR"] == 0


def test_oldest_task_counts_since_it_is_ready_and_held_ones_count_apart(
    database: Database,
) -> None:
    task(database, "run_at = now() - interval '90 s'")
    task(database, "run_at = now() + interval '1 day'")
    task(database, "run_at = now() + interval '1 day', attempts = 2")
    task(database, "run_at = now() - interval '500 s'", lane="driver:other")
    with database.engine("api").begin() as tx:
        lanes.pause(tx, "driver:other", "maintenance")

    scraped = Scraped(database)

    assert 90 <= scraped["oldest_ready_seconds", "web"] < 120
    assert 500 <= scraped["oldest_held_seconds", "web"] < 530
    assert scraped["tasks", "web", "ready"] == 2
    assert scraped["tasks", "web", "waiting"] == 1
    assert scraped["tasks", "web", "backing_off"] == 1
    assert scraped["lane_paused", "driver:other", "operator"] == 1
    assert scraped["lane_paused", "driver:web", "operator"] == 0


@pytest.mark.parametrize("state", ["dispatched", "leased"])
def test_task_that_nobody_started_waits_also_once_it_was_handed_over(
    database: Database, state: str
) -> None:
    task(database)
    database.run(f"UPDATE batches SET run_at = now() - interval '70 s', state = '{state}'")

    scraped = Scraped(database)

    assert scraped["tasks", "web", state] == 1
    assert (scraped["oldest_ready_seconds", "web"] >= 70) is (state == "dispatched")


def test_failed_tasks_are_grouped_by_step_driver_and_reason(database: Database) -> None:
    for age, reason in ((100, "refused"), (50, "refused"), (10, "timeout")):
        task(
            database,
            f"state = 'failed', reason = '{reason}', first_failed_at = now() - interval '{age} s'",
        )

    scraped = Scraped(database)

    assert scraped["failed_tasks", "converge", "web", "refused"] == 2
    assert scraped["failed_tasks", "converge", "web", "timeout"] == 1
    assert 100 <= scraped["oldest_failed_seconds", "converge"] < 130
    assert scraped["oldest_failed_seconds", "charge"] == 0
    assert scraped["tasks", "web", "failed"] == 3


def test_reasons_beyond_a_number_are_counted_together(database: Database) -> None:
    database.run("""
        INSERT INTO tasks (name, subject, queue, lane, state, reason)
        SELECT 'converge', gen_random_uuid(), 'web', 'driver:web', 'failed', 'r' || n
        FROM generate_series(1, 300) AS n
    """)

    found = Scraped(database).family("failed_tasks")

    assert len(found) <= 201
    assert sum(found.values()) == 300


def test_fleet_that_has_worked_is_told_by_orders_services_and_money(
    embedded: Any, database: Database
) -> None:
    fleet = embedded()
    database.place(order("k-1"), order("k-2", customer="bob"), order("k-3", line("no-such-plan")))
    fleet.wait_until_idle(20)
    database.run("UPDATE services SET expires_at = expires_at - interval '10 days'")

    scraped = Scraped(database)

    assert scraped["orders", "delivered"] == 2
    # A refused order has ended from the beginning.
    assert scraped["orders", "refused"] == 1
    assert scraped["oldest_undelivered_order_seconds",] == 0
    with database.engine("readonly").connect() as tx:
        shown = today(tx)
    assert (shown.orders, shown.refused, shown.open_orders, shown.oldest_open) == (3, 1, 0, None)
    assert scraped["services", "web", "ovh", "active", "automatic"] == 2
    assert scraped["services_due", "not_rolled_out"] == 2
    assert scraped["money_today", "charged", "EUR"] == 2 * 45.44
    assert scraped["money_today", "invoiced", "EUR"] == 2 * 45.44
    assert scraped["processes_alive", "relay", "", version()] == 1
    assert scraped["processes_alive", "scheduler", "", version()] == 1
    assert scraped["last_beat_timestamp_seconds", "scheduler"] > 1e9


def test_part_that_fails_leaves_the_others_and_is_counted(database: Database) -> None:
    with database.owner.begin() as tx:
        tx.execute(text("ALTER TABLE bulk_operations RENAME TO elsewhere"))

    scraped = Scraped(database)

    assert scraped["exporter_failed_collections_total", "bulk"] == 1
    assert scraped.family("bulk_operations") == {}
    assert scraped["oldest_ready_seconds", "web"] == 0


def test_query_that_takes_too_long_is_given_up(database: Database) -> None:
    exporter = Exporter(database.engine("exporter"), WORLD)

    def collect(tx: Any) -> Any:
        tx.execute(text("SELECT pg_sleep(20)"))

    part = exporter._part("slow", 1, 1, 0.2, collect)

    with pytest.raises(Exception, match="statement timeout"):
        part.collect()


def test_process_that_ends_is_not_alive_and_was_seen_last(database: Database) -> None:
    presence = Presence(database.engine("billing"), "worker", ["billing", "orders"])
    presence.beat()
    both = Scraped(database)
    presence.end()
    after = Scraped(database)

    assert both["processes_alive", "worker", "billing", version()] == 1
    assert both["processes_alive", "worker", "orders", version()] == 1
    assert after["processes_alive", "worker", "billing", version()] == 0


def test_role_changes_the_rows_of_its_own_processes_alone(database: Database) -> None:
    Presence(database.engine("relay"), "relay").beat()

    with database.engine("billing").begin() as tx:
        changed = tx.execute(text("UPDATE processes SET ended_at = now()")).rowcount
        assert tx.execute(text("DELETE FROM processes")).rowcount == 0

    assert changed == 0
