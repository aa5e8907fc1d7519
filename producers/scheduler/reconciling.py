"""When drivers' books are compared with what should be there: each once in an interval.

The interval is of the database's clock. A driver that is new is looked at after the first one.
"""

import time
import uuid
from dataclasses import dataclass

from sqlalchemy import Engine

from producers import ledger
from producers.steps import RECONCILE, driver_place
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.tables.bulk import Bulk
from schemas.values import derived_id

# How often it is looked whether one is due, at most.
LOOK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DriverRow:
    driver: str
    id: uuid.UUID


# What was there before and has a row version of its own is due; what is new is only written down.
_DUE = Bulk(
    DriverRow,
    """
    WITH due AS (
        UPDATE reconciliations AS c SET asked_at = now()
        FROM json_to_recordset(CAST(:rows AS json)) AS r(driver text, id uuid)
        WHERE c.driver = r.driver AND c.asked_at <= now() - make_interval(secs => :every)
        RETURNING c.driver
    ), first AS (
        INSERT INTO reconciliations (driver, id)
        SELECT driver, id FROM json_to_recordset(CAST(:rows AS json)) AS n(driver text, id uuid)
        ORDER BY driver
        ON CONFLICT DO NOTHING
    )
    SELECT driver FROM due
    """,
)


def subject_of(driver: str) -> uuid.UUID:
    """The subject of a driver's task."""
    return derived_id("reconcile", driver)


class Reconciliations:
    """
    Args:
        every: seconds between two looks at a driver; 0: never.
    """

    def __init__(self, engine: Engine, catalogue: CatalogueCache, every: float) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._every = every
        self._next = 0.0

    def ask(self) -> None:
        """Enqueue those that are due, now and then."""
        now = time.monotonic()
        if not self._every or now < self._next:
            return
        self._next = now + min(LOOK_SECONDS, self._every / 2)
        with self._engine.begin() as tx:
            places = places_of(self._catalogue.current(tx))
            rows = [DriverRow(driver, subject_of(driver)) for driver in sorted(places)]
            due = _DUE(tx, rows, every=self._every).scalars().all()
            ledger.enqueue(
                tx,
                RECONCILE,
                [(subject_of(d), driver_place(places[d], d)) for d in due],
            )


def places_of(catalogue: Catalogue) -> dict[str, str]:
    """Driver -> the universe on whose queue it is looked at: the first of those it is used in."""
    places: dict[str, str] = {}
    for plan in catalogue.plans.values():
        universe = plan.universe.value
        places[plan.driver] = min(universe, places.get(plan.driver, universe))
    return places
