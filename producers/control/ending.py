"""An operator ends a service, whatever its customer was told and whatever has failed."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import Event
from producers.renewals import next_steps
from producers.steps import CONVERGE, RENEWAL, WITHDRAW, driver_place
from schemas.catalogue import Catalogue

_END = text("""
    UPDATE services SET desired = 'absent', generation = generation + 1
    WHERE id = ANY(:ids) AND state IN ('active', 'suspended') AND desired <> 'absent'
    RETURNING id, universe, driver
""")


def end(
    tx: Connection, services: Sequence[uuid.UUID], reason: str, catalogue: Catalogue, now: datetime
) -> list[uuid.UUID]:
    """Have services removed now; nothing of what was paid is given back.

    They come off payment requests that are open. A charge that is under way is decided, and what it
    takes is refunded.

    Args:
        reason: kept in the history.

    Returns:
        Those that were there; the others are not delivered yet, or have ended.
    """
    next_steps.lock(tx, services)
    ended = tx.execute(_END, {"ids": list(services)}).all()
    if not ended:
        return []
    ids = [row.id for row in ended]
    next_steps.decide_again(tx, ids, catalogue, now)
    places = [(row.id, driver_place(row.universe, row.driver)) for row in ended]
    ledger.enqueue(tx, CONVERGE, places)
    ledger.enqueue(tx, WITHDRAW, [(service, RENEWAL) for service in ids])
    detail = {"reason": "operator", "because": reason}
    history.record(tx, (Event(service, "service.ending", detail) for service in ids))
    return ids
