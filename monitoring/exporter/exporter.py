"""All parts of the exporter, by how soon each must be seen."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Engine

from monitoring.exporter import auditing, books, business, fleet, ledger
from monitoring.exporter.collecting import Collection as Collected
from monitoring.exporter.collecting import Found, Part
from schemas.database import limit

Collect = Callable[[Connection], Found]


@dataclass(frozen=True, slots=True)
class World:
    """What the exporter is told of the fleet it watches.

    Attributes:
        queues, steps: those there are.
        lanes: that every fleet has.
        guarded: lanes of which nothing is claimed while no heartbeat vouches for the database.
        version: of the release that runs.
        dead_documents: how many lie on ``intake.dead``; None: there is no broker to ask.
        compares_books: gateways are configured, and their books are compared with ours.
    """

    queues: Sequence[str]
    steps: Sequence[str]
    lanes: Collection[str]
    guarded: Sequence[str]
    version: str
    dead_documents: Callable[[], int] | None = None
    compares_books: bool = False


class Exporter:
    """Parts of the metrics, collected by three threads, so that none waits for a slower one.

    Args:
        engine: as the database role ``exporter``.
    """

    def __init__(self, engine: Engine, world: World) -> None:
        self._engine = engine
        queues, version = world.queues, world.version
        signals = [
            self._part("queues", 10, 30, 5, lambda tx: ledger.queues(tx, queues, world.guarded)),
            self._part("lanes", 10, 30, 5, lambda tx: ledger.lanes(tx, world.lanes)),
            self._part("processes", 10, 30, 5, lambda tx: fleet.processes(tx, queues, version)),
            self._part("failed", 15, 120, 10, lambda tx: ledger.failed(tx, queues, world.steps)),
            self._part("orders", 15, 120, 10, business.open_orders),
            self._part("charges", 15, 120, 5, business.unknown_charges),
            self._part("operations", 30, 300, 10, business.unknown_operations),
            self._part("emails", 30, 300, 5, business.emails),
            self._part("bulk", 15, 120, 5, fleet.bulk),
            self._part("events", 30, 300, 5, fleet.untold),
            self._part("audit", 30, 120, 5, lambda tx: _verdicts(tx, world)),
        ]
        counts = [
            self._part("money", 60, 600, 20, business.money),
            self._part("services", 300, 3600, 60, business.services),
            self._part("ended_orders", 300, 3600, 60, business.ended_orders),
            self._part("due", 600, 3600, 60, business.due),
        ]
        outside = []
        if (count := world.dead_documents) is not None:
            outside = [Part("intake_dead", 30, 300, partial(fleet.dead_documents, count))]
        self.collection = Collected([*signals, *counts, *outside])
        self.groups = {
            group: [part.name for part in parts]
            for group, parts in (("signals", signals), ("counts", counts), ("outside", outside))
            if parts
        }

    def _part(
        self, name: str, every: float, longest: float, timeout: float, collect: Collect
    ) -> Part:
        """
        Args:
            timeout: seconds for each of its statements.
        """

        def in_transaction() -> Found:
            with self._engine.connect() as tx:
                tx.exec_driver_sql("SET TRANSACTION READ ONLY")
                limit(tx, timeout)
                found = collect(tx)
                tx.rollback()
                return found

        return Part(name, every, longest, in_transaction)

    def rounds(self) -> dict[str, Callable[[], float]]:
        """For a loop each, by its name: does what is due, returns seconds until more is."""
        return {
            group: partial(self.collection.round, names) for group, names in self.groups.items()
        }


def _verdicts(tx: Connection, world: World) -> Found:
    """What the audit found last, and the comparison with the gateways' books where it is done."""
    found = dict(auditing.verdicts(tx))
    if world.compares_books:
        for family, values in books.verdict(tx).items():
            found[family] = {**found.get(family, {}), **values}
    return found
