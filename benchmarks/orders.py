"""What every case orders: one line each, of as many plans as asked for."""

import json
import uuid
from collections.abc import Iterator, Sequence

from sqlalchemy import Engine, text

from producers.intake import Intake, Verdict
from schemas.catalogue import Catalogue, Contract, Plan, Price, Subsidiary
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.values import Money, Period, Universe

UPSTREAM = "benchmark"
BATCH = 500


def catalogue(plans: int, universes: Sequence[Universe] = (Universe.WEB,)) -> Catalogue:
    """So many plans, sold in FR for a month, of each universe in turn."""
    contract = Contract("terms", 1, "Terms", "https://example.com/terms")
    return Catalogue(
        [Subsidiary("FR", "Benchmark SAS", "FR", "EUR", "Europe/Paris", "fr")],
        [contract],
        [
            Plan(
                code=f"plan-{n}",
                name=f"Plan {n}",
                universe=universes[n % len(universes)],
                brand="ovh",
                driver=universes[n % len(universes)].value,
                contract=contract.code,
                prices={("FR", Period(1)): Price(Money(0, "EUR"), Money(999 + n, "EUR"))},
            )
            for n in range(plans)
        ],
    )


def documents(count: int, plans: int) -> Iterator[bytes]:
    """Orders under keys that were never used before."""
    run = uuid.uuid4().hex[:12]
    for n in range(count):
        document = {
            "key": f"{run}-{n}",
            "customer": {
                "id": f"customer-{run}-{n}",
                "subsidiary": "FR",
                "country": "FR",
                "language": "fr",
                "email": f"customer-{n}@example.com",
            },
            "payment_method": f"tok-{n}",
            "contracts": [{"contract": "terms", "version": 1}],
            "lines": [{"plan": f"plan-{n % plans}", "period": "P1M"}],
        }
        yield json.dumps(document).encode()


def place(engine: Engine, count: int, plans: int = 1) -> list[uuid.UUID]:
    """Take so many orders in; returns their ids. Their tasks are ready, nothing has begun."""
    intake = Intake(engine, CatalogueCache(), SystemClock())
    bodies = list(documents(count, plans))
    ids = []
    for i in range(0, count, BATCH):
        for answer in intake.place(UPSTREAM, "python", bodies[i : i + BATCH]):
            if answer.verdict is not Verdict.ACCEPTED or answer.order_id is None:
                raise RuntimeError(f"not accepted: {answer}")
            ids.append(answer.order_id)
    return ids


def delivered(engine: Engine) -> int:
    """How many orders were delivered."""
    with engine.connect() as tx:
        query = "SELECT count(*) FROM orders WHERE state = 'delivered'"
        return int(tx.execute(text(query)).scalar_one())
