"""The whole fleet in one process, with the demo's orders, and outside worlds with random faults."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection

from autorenew.catalogues import bundled
from autorenew.demo import orders
from producers.control import failed
from producers.control.failed import FailedTask
from producers.intake import Verdict
from schemas.catalogue.store import save
from tests.conftest import Database
from tests.integration.test_billing import assert_clean
from tests.support import operators

FAULTS = ("decline", "refuse", "error", "hang_before", "hang_after", "late", "slow", "duplicate")
UNSETTLED = ("accepted", "priced", "paid")


def a_world(draw: random.Random) -> list[dict[str, Any]]:
    """Some random fault rules, each for a share of the requests of one side."""
    return [
        {
            "fault": fault,
            "target": draw.choice(("gateway", "infrastructure")) if fault != "decline" else "*",
            "rate": draw.choice((0.02, 0.1, 0.3)),
            "times": None if fault in ("decline", "refuse") else draw.randrange(1, 4),
            "seconds": draw.choice((0.1, 1.0)),
        }
        for fault in draw.sample(FAULTS, 4)
    ]


def give_up(tx: Connection, tasks: Sequence[FailedTask]) -> None:
    for task in tasks:
        operators.give_up(tx, task.subject)


def decide(fleet: Any, database: Database, decision: Callable[..., object]) -> None:
    """Decide about everything that failed, as an operator does."""
    with database.engine("api").begin() as tx:
        decision(tx, [task for task in failed.list_failed(tx) if task.name != "refund"])
        failed.retry(tx, [t for t in failed.list_failed(tx) if t.name == "refund"])
    fleet.wait_until_idle(60)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_every_order_ends_and_all_books_agree(embedded: Any, database: Database, seed: int) -> None:
    catalogue = bundled()
    with database.owner.begin() as tx:
        save(tx, catalogue)
    fleet = embedded(a_world(random.Random(seed)), retry_attempts=6)
    documents = [json.dumps(d).encode() for d in orders(catalogue, 120, seed)]

    answers = fleet.intake.place("shop", "python", documents)
    again = fleet.intake.place("shop", "python", documents)
    fleet.wait_until_idle(60)
    faults = fleet.simulator.simulator.faults
    faults.rules[:] = [rule for rule in faults.rules if rule.fault == "refuse"]
    decide(fleet, database, failed.retry)  # the world is well, but for what it refuses
    decide(fleet, database, give_up)
    faults.clear()
    decide(fleet, database, failed.retry)  # what is owed to customers cannot be given up

    assert [a.verdict for a in again] == [a.verdict for a in answers]
    accepted = sum(answer.verdict is Verdict.ACCEPTED for answer in answers)
    assert database.value("SELECT count(*) FROM orders WHERE state <> 'refused'") == accepted
    assert_clean(fleet, database)
    states = dict(database.all("SELECT state, count(*) FROM orders GROUP BY state"))
    assert not states.keys() & set(UNSETTLED)
    assert states["delivered"] > 0
    assert database.value("SELECT count(*) FROM tasks") == 0
