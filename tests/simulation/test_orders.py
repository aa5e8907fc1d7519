"""The whole fleet in one process, on real input, in worlds that misbehave in other ways."""

import json
import random
from typing import Any

import pytest

from autorenew.catalogues import bundled
from autorenew.demo import orders
from producers import failed
from producers.intake import Verdict
from schemas.catalogue.store import save
from tests.conftest import Database
from tests.integration.test_billing import assert_clean

FAULTS = ("decline", "refuse", "error", "hang_before", "hang_after", "late", "slow", "duplicate")
UNSETTLED = ("accepted", "priced", "paid")


def a_world(draw: random.Random) -> list[dict[str, Any]]:
    """Some rules, each for a share of what one side is asked to do."""
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


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_every_order_comes_to_its_end_and_every_book_agrees(
    embedded: Any, database: Database, seed: int
) -> None:
    catalogue = bundled()
    with database.owner.begin() as tx:
        save(tx, catalogue)
    fleet = embedded(a_world(random.Random(seed)), retry_attempts=6)
    documents = [json.dumps(d).encode() for d in orders(catalogue, 120, seed)]

    answers = fleet.intake.place("shop", "python", documents)
    again = fleet.intake.place("shop", "python", documents)
    fleet.wait_until_idle(60)
    with database.engine("api").begin() as tx:
        for task in failed.list_failed(tx):  # a person gives up what can be given up
            if task.name == "converge":
                failed.cancel(tx, task.subject)
    fleet.wait_until_idle(60)

    assert [a.verdict for a in again] == [a.verdict for a in answers]
    accepted = sum(answer.verdict is Verdict.ACCEPTED for answer in answers)
    assert database.value("SELECT count(*) FROM orders WHERE state <> 'refused'") == accepted
    assert_clean(fleet, database)
    left = database.all(
        "SELECT id FROM orders AS o WHERE state = ANY(:unsettled) AND NOT EXISTS ("
        " SELECT FROM tasks AS t LEFT JOIN payment_requests AS r ON r.id = t.subject"
        " LEFT JOIN services AS s ON s.id = t.subject"
        " WHERE o.id IN (t.subject, r.order_id, s.order_id))",
        unsettled=list(UNSETTLED),
    )
    assert left == []
