"""Bulk operations: what an operator wants done to many failed tasks goes on without them."""

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from producers import history
from producers.control import bulk, lanes
from producers.control.bulk import BulkOperation, NoBulkOperation
from producers.control.naming import UnknownName
from producers.control.selection import Filters
from producers.history import Operator
from producers.scheduler.bulk import BulkRunner
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.values import BulkKind, BulkState
from tests.conftest import Database
from tests.support.given import line, order, wait_until

REFUSE = {"fault": "refuse", "operation": "create", "times": 100_000}
EVE = Operator("eve", "stock is back")


class World:
    """A fleet, and what an operator does to it."""

    def __init__(self, fleet: Any, database: Database) -> None:
        self.fleet = fleet
        self.database = database

    def fail(self, *orders: Any) -> None:
        """Orders whose services cannot be created."""
        answers = self.database.place(*orders)
        assert all(answer.verdict == "accepted" for answer in answers), answers
        self.fleet.wait_until_idle(30)

    def mend(self) -> None:
        self.fleet.simulator.simulator.faults.clear()

    def start(self, kind: BulkKind = BulkKind.RETRY, **options: Any) -> uuid.UUID:
        filters = options.pop("filters", Filters())
        with self.database.engine("api").begin() as tx, history.acting(EVE):
            return bulk.start(tx, kind, filters, **options).id

    def get(self, id: uuid.UUID) -> BulkOperation:
        with self.database.engine("readonly").connect() as tx:
            return bulk.get(tx, id)

    def ends(self, id: uuid.UUID, timeout: float = 30.0) -> BulkOperation:
        wait_until(lambda: self.get(id).is_over, "the operation ends", timeout)
        return self.get(id)

    def states(self) -> list[str]:
        return [row.state for row in self.database.all("SELECT state FROM services ORDER BY id")]

    def told(self, name: str) -> list[Any]:
        query = "SELECT detail FROM events WHERE name = :name ORDER BY id"
        return [row.detail for row in self.database.all(query, name=name)]


@pytest.fixture
def world(embedded: Any, database: Database) -> World:
    return World(embedded([REFUSE]), database)


def runner(database: Database) -> BulkRunner:
    return BulkRunner(database.engine("scheduler"), CatalogueCache(), SystemClock())


def test_failed_tasks_are_retried_by_the_fleet(world: World) -> None:
    world.fail(order("k-1", *[line("site", quantity=10)] * 3))
    world.mend()

    ended = world.ends(world.start())

    assert ended.state is BulkState.DONE
    assert (ended.total, ended.sent, ended.done, ended.failed) == (30, 30, 30, 0)
    assert world.states() == ["active"] * 30
    retried = world.told("task.retried")
    assert len(retried) == 30
    told = {"task": "converge", "by": "eve", "because": "stock is back", "bulk": str(ended.id)}
    assert retried[0] == told


def test_first_batch_is_one_task_and_what_fails_again_in_the_same_way_halts_it(
    world: World,
) -> None:
    world.fail(order("k-1", *[line("site", quantity=10)] * 3))

    ended = world.ends(world.start())

    assert ended.state is BulkState.HALTED
    assert (ended.total, ended.sent, ended.failed) == (30, 1, 1)
    assert ended.reason is not None
    assert "driver_refused" in ended.reason
    assert len(world.told("task.retried")) == 1
