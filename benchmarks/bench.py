"""Fleets and databases to measure, on one PostgreSQL and one RabbitMQ."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from sqlalchemy import Engine

from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from benchmarks import orders, ours, outside
from benchmarks.reporting import Results
from schemas.catalogue import Catalogue
from schemas.catalogue.store import save
from schemas.database import connect, migrate
from schemas.values import Universe

BATCH = 500


@dataclass(frozen=True)
class Bench:
    postgres: PrivatePostgres
    rabbitmq: PrivateRabbitMQ
    folder: Path
    console: Console
    orders: int
    results: Results
    services: int
    """Among which failed work is counted."""
    failures: int

    @contextmanager
    def fleet(
        self, plans: int, universes: Sequence[Universe] = (Universe.WEB,)
    ) -> Iterator[PrivateFleet]:
        """A fleet that is up and waits for work."""
        with self.prepared(orders.catalogue(plans, universes)) as fleet:
            ours.start(fleet)
            yield fleet

    @contextmanager
    def prepared(self, catalogue: Catalogue, **settings: str) -> Iterator[PrivateFleet]:
        """A fleet with a catalogue, of which no process runs yet.

        Args:
            settings: those of our fleet unless said.
        """
        fleet = PrivateFleet(
            self.folder / "fleet",
            self.postgres,
            self.rabbitmq,
            database=f"bench_{uuid.uuid4().hex[:8]}",
            **(settings or ours.settings(BATCH)),
        )
        fleet.prepare(catalogue)
        fleet.owner.dispose()
        # Millions of rows are written by one statement.
        fleet.owner = connect(self.postgres.url(fleet.database), patient=True)
        try:
            yield fleet
        finally:
            fleet.close()

    @contextmanager
    def calling_fleet(self, url: str, **settings: str) -> Iterator[PrivateFleet]:
        """A fleet that calls the far side at ``url``, up and waiting for work."""
        with self.prepared(orders.catalogue(1), **(outside.settings(url) | settings)) as fleet:
            outside.start(fleet)
            yield fleet

    @contextmanager
    def database(self) -> Iterator[tuple[str, Engine]]:
        """A database for those who use no ledger."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        self.postgres.ensure_database(name)
        url = self.postgres.url(name)
        engine = connect(url)
        migrate(engine, {})
        with engine.begin() as tx:
            save(tx, orders.catalogue(1))
        try:
            yield url, engine
        finally:
            engine.dispose()
            self.postgres.drop_database(name)

    @contextmanager
    def empty_database(self) -> Iterator[tuple[str, Engine]]:
        """A migrated one without a catalogue; its name and its owner's engine."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        self.postgres.ensure_database(name)
        # Millions of rows are written by one statement.
        engine = connect(self.postgres.url(name), patient=True)
        migrate(engine, self.postgres.role_passwords())
        try:
            yield name, engine
        finally:
            engine.dispose()
            self.postgres.drop_database(name)

    def note(self, case: str, count: int, seconds: float, what: str = "orders") -> None:
        rate = count / seconds
        self.results.rates.setdefault(case, []).append(round(rate, 1))
        self.results.units[case] = what
        self.console.print(f"  {case}: {rate:,.0f} {what}/s ({count:,} in {seconds:.1f} s)")

    def note_seconds(self, case: str, seconds: float) -> None:
        self.results.seconds.setdefault(case, []).append(round(seconds, 3))
        self.console.print(f"  {case}: {seconds:.2f} s")

    def note_share(self, case: str, share: float) -> None:
        """Of one core."""
        self.results.shares.setdefault(case, []).append(round(share, 4))
        self.console.print(f"  {case}: {share:.1%} of a core")

    def drain(self, fleet: PrivateFleet, case: str, plans: int) -> float:
        """Take orders in while the lanes are paused, then see how fast they are delivered."""
        ours.pause(fleet.owner)
        orders.place(fleet.owner, self.orders, plans)
        with Progress(console=self.console, transient=True) as progress:
            bar = progress.add_task(case, total=self.orders)
            return ours.run(
                fleet.owner, self.orders, lambda done: progress.update(bar, completed=done)
            )
