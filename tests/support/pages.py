"""Customers who have everything that a page can show, in every language."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from autorenew.local.embedded import Embedded
from producers.intake.links import Links, Purpose
from schemas.catalogue import Catalogue, Contract, Option
from schemas.catalogue.store import save
from tests.conftest import Database
from tests.support import given
from tests.support.given import line, order
from tests.support.life import BRANDS, Life

LANGUAGES = ("en", "fr", "cs")
CLOUD = Contract("cloud", 1, "Cloud", "https://example.com/cloud/1")


class Shop(Life):
    """A fleet with its pages; ``http`` asks them and follows no redirect."""

    http: httpx.Client

    def links(self) -> Links:
        return Links.of(self.fleet.settings)

    def now(self) -> Any:
        return self.fleet.clock.now()

    def catalogue(self, version: int) -> None:
        """The catalogue of tests; machines have a contract of their own, of this
        version, and everything may have a domain."""
        plans = [
            replace(
                plan,
                contract="cloud" if plan.code == "vm" else plan.contract,
                options={"domain": Option(required=False)},
            )
            for plan in given.CATALOGUE.plans.values()
        ]
        contracts = [given.TERMS, replace(CLOUD, version=version)]
        subsidiaries = [given.FR, given.IE]
        with self.fleet.owner.begin() as tx:
            save(tx, Catalogue(subsidiaries, contracts, plans))
        self.roll_out(*BRANDS)

    def buy(
        self, customer: str, *lines: Any, language: str = "en", email: str = "", **more: Any
    ) -> list[Any]:
        """Order, and wait for the delivery; the customer's services."""
        whose = {
            "id": customer,
            "subsidiary": "FR",
            "country": "FR",
            "language": language,
            "email": email or f"{re.sub(r'[^a-z-]', '', customer)}@example.com",
        }
        agreed = [{"contract": "terms", "version": 2}, {"contract": "cloud", "version": 1}]
        document = order(f"order-{customer}", *lines, customer=customer)
        (answer,) = self.send(document | {"customer": whose, "contracts": agreed} | more)
        assert answer.verdict == "accepted", answer
        return self.of(customer)

    def of(self, customer: str) -> list[Any]:
        return [s for s in self.services() if s.customer_id == customer]

    def does(self, command: str, *services: Any, **fields: Any) -> None:
        document = {
            "command": command,
            "customer": services[0].customer_id,
            "services": [str(s.id) for s in services],
            **fields,
        }
        (answer,) = self.send(document)
        assert answer.verdict == "accepted", answer

    def link(self, purpose: str, *services: Any, at: Any = None, **more: Any) -> str:
        """A link as an e-mail would have it; all services are of one customer."""
        whose = {"customer": services[0].customer_id}
        if purpose in ("renew", "accept"):
            wanted = [{"id": str(s.id), "expires_on": self.expiry(s).isoformat()} for s in services]
            command: dict[str, Any] = {"command": "renew", **whose, "services": wanted, **more}
        else:
            command = {"command": purpose, **whose, "services": [str(s.id) for s in services]}
        return self.links().url(Purpose(purpose), command, at or self.now())

    def account(self, customer: str) -> str:
        """The address of the page of all services."""
        answer = self.http.get(self.links().account_url(customer, self.now()))
        assert answer.status_code == 303
        return str(answer.headers["location"])

    def click(self, url: str) -> httpx.Response:  # type: ignore[override]
        """Press the button of a link, and see how it ended."""
        answer = self.http.post(url)
        assert answer.status_code == 303, answer.text
        return self.http.get(answer.headers["location"])


@contextmanager
def shop(postgres: Any, template: str, folder: Path, **settings: Any) -> Iterator[Shop]:
    """A shop on a virtual clock, with a database of its own."""
    name = f"pages_{folder.name}".replace("-", "_")
    postgres.create_database(name, template)
    quick = {
        "call_seconds": 0.5,
        "order_charge_delays": [0.05, 0.1],
        "retry_base_seconds": 0.05,
        "retry_attempts": 4,
        "silence_seconds": 26 * 3600.0,
        "pages_per_minute": 100_000,
    }
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, name)
        database = Database(postgres, name)
        stack.callback(database.close)
        fleet = Embedded(
            folder, postgres=postgres, database=name, ahead=timedelta(), pages=True,
            **(quick | settings),
        )  # fmt: skip
        world = Shop(stack.enter_context(fleet), database)
        world.catalogue(1)
        world.http = stack.enter_context(
            httpx.Client(base_url=str(fleet.pages_url), timeout=20, headers={"Accept-Language": ""})
        )
        yield world


def lines() -> list[Any]:
    return [
        line(domain="shop.example"),
        line(domain="blog.example"),
        line("server", domain="a-name-that-is-as-long-as-such-names-of-domains-get.example"),
        line("vm", domain="vm-1.example"),
        line("phone"),
    ]
