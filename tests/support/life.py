"""A fleet on a virtual clock, for tests of what happens over months."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from autorenew.local.embedded import Embedded
from autorenew.local.postgres import PrivatePostgres
from schemas.catalogue.store import set_rollout
from tests.conftest import Database
from tests.integration.test_billing import assert_clean
from tests.support import given
from tests.support.databases import Databases
from tests.support.given import order

BRANDS = ("ovh", "kimsufi", "soyoustart")


class Life:
    """A fleet and its customer ``alice``; commands are hers unless they name another customer."""

    def __init__(self, fleet: Any, database: Database) -> None:
        self.fleet = fleet
        self.database = database

    def roll_out(self, *brands: str) -> None:
        with self.fleet.owner.begin() as tx:
            for brand in brands:
                for subsidiary in ("FR", "IE"):
                    set_rollout(tx, brand, subsidiary, date(2020, 1, 1))

    def send(self, *documents: Any) -> list[Any]:
        answers = self.fleet.intake.place("shop", "python", [given.body(d) for d in documents])
        self.fleet.settle(30)
        return answers

    def order(self, *lines: Any, key: str = "k-1", **changes: Any) -> Any:
        """Place an order and wait until it is delivered; returns the database's first service."""
        (answer,) = self.send(order(key, *lines, **changes))
        assert answer.verdict == "accepted", answer
        return self.services()[0]

    def command(self, command: str, **fields: Any) -> Any:
        return self.send({"command": command, "customer": "alice", **fields})[0]

    def click(self, command: str, *services: Any, **fields: Any) -> Any:
        """Send a command about these services, or about all."""
        chosen = services or self.services()
        return self.command(command, services=[str(s.id) for s in chosen], **fields)

    def renew(self, *services: Any, **fields: Any) -> Any:
        chosen = services or self.services()
        wanted = [{"id": str(s.id), "expires_on": self.expiry(s).isoformat()} for s in chosen]
        return self.command("renew", services=wanted, **fields)

    def expiry(self, service: Any) -> date:
        return (service.expires_at + timedelta(hours=3)).date()

    def pass_days(self, days: float) -> None:
        self.fleet.pass_time(timedelta(days=days))

    def pass_until(self, service: Any, days: float) -> None:
        """Let time pass until so many days after the expiry of ``service``."""
        self.fleet.pass_time(service.expires_at + timedelta(days=days) - self.fleet.clock.now())

    def services(self) -> list[Any]:
        return self.database.all(
            "SELECT * FROM services ORDER BY order_id, line, unit, expires_at, id"
        )

    def service(self) -> Any:
        (service,) = self.services()
        return service

    def happened(self, name: str = "%") -> list[Any]:
        """(name, detail) of the events whose name matches, in order."""
        return self.database.all(
            "SELECT name, detail FROM events WHERE name LIKE :name ORDER BY id", name=name
        )

    def mails(self) -> list[Any]:
        return list(self.fleet.mailbox.messages)

    def clean(self) -> None:
        assert_clean(self.fleet, self.database)


@contextmanager
def lasting(
    postgres: PrivatePostgres, databases: Databases, folder: Path, name: str, **settings: Any
) -> Iterator[Life]:
    """One for several tests, on a database of this name."""
    quick: dict[str, Any] = {
        "call_seconds": 0.5,
        "order_charge_delays": [0.05, 0.1],
        "retry_base_seconds": 0.05,
        "retry_attempts": 4,
        "silence_seconds": 26 * 3600.0,
    }
    databases.take(name)
    database = Database(postgres, name)
    try:
        with Embedded(
            folder, postgres=postgres, database=name, ahead=timedelta(), **(quick | settings)
        ) as fleet:
            world = Life(fleet, database)
            world.roll_out(*BRANDS)
            yield world
    finally:
        database.close()
        databases.give_back(name)
