"""A small fleet to which everything has happened: all kinds of state, for the audit to look at."""

import asyncio
import io
import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from sqlalchemy import text

from producers.control import ending, failed, lanes, suspending, webhooks
from producers.control.selection import TaskId
from producers.imports.importing import import_services
from producers.steps import CHARGE
from schemas.catalogue import Catalogue, Price, Subsidiary, changes
from schemas.catalogue.store import CatalogueCache, save, set_rollout
from schemas.clock import local_date
from schemas.values import Money, Period, Universe
from tests.conftest import Database
from tests.support import given
from tests.support.given import changed, line, order, wait_until
from tests.support.operators import give_up
from workers.billing.gateways.port import Charge
from workers.bootstrap import gateways_of
from workers.events.signing import new_secret

PL = Subsidiary("PL", "Hosting Sp. z o.o.", "PL", "PLN", "Europe/Warsaw", "en")


def catalogue(pounds: bool = False) -> Catalogue:
    """That of the other tests, sold in Poland too; or with Ireland paying in pounds."""

    def prices(plan: Any) -> dict[tuple[str, Period], Price]:
        found = dict(plan.prices)
        if plan.universe is not Universe.TELECOM and plan.code != "gift":
            found["PL", Period(1)] = Price(Money(333, "PLN"), Money(1999, "PLN"))
        if pounds and ("IE", Period(1)) in found:
            found["IE", Period(1)] = Price(Money(0, "GBP"), Money(3300, "GBP"))
        return found

    ireland = Subsidiary("IE", "Hosting Ltd", "IE", "GBP" if pounds else "EUR",
                         "Europe/Dublin", "en")  # fmt: skip
    plans = [changed(plan, prices=prices(plan)) for plan in given.CATALOGUE.plans.values()]
    france = replace(given.FR, delivery_emails=True)
    return Catalogue([france, ireland, PL], [given.TERMS], plans)


def abroad(name: str, subsidiary: str, *lines: Any, country: str | None = None, **more: str) -> Any:
    """An order of who buys in another subsidiary than FR; its key is the name."""
    customer = {
        "id": name,
        "subsidiary": subsidiary,
        "country": country or subsidiary,
        "language": "en",
        "email": f"{name}@example.com",
    }
    return order(name, *lines, customer=name) | {"customer": customer | more}


ORDERS = [
    order("alice", line("site", quantity=2), line("server", "P12M"), customer="alice"),
    abroad("bob", "IE", line("site")),
    abroad("carl", "IE", line("site", quantity=2), country="DE"),
    abroad("dora", "IE", line("site"), country="DE", vat_number="DE136695976"),
    abroad("piotr", "PL", line("site", quantity=3)),
    order("poor", line("site"), customer="poor"),
    order("eve", line("site"), line("vm"), customer="eve"),
    order("frank", line("vm"), customer="frank"),
    order("gina", line("gift"), customer="gina"),
    order("hans", line("site"), customer="hans"),
    order("ivan", line("site"), customer="ivan"),
    order("judy", line("site"), customer="judy"),
    order("kurt", line("site"), customer="kurt"),
    order("lena", line("site"), customer="lena"),
    order("mary", line("vm"), customer="mary"),
    order("nils", line("site", "P12M"), customer="nils"),
    order("olga", line("site"), customer="olga"),
    order("pete", line("site"), customer="pete"),
    order("tina", line("site"), customer="tina"),
    order("wrong", line("none"), customer="wrong"),
]


def seal(engine: Any) -> None:
    """Seal all of the history now, and not in some seconds."""

    def is_sealed() -> bool:
        with engine.begin() as tx:
            tx.execute(text("SELECT seal_events(10000, 1000, interval '0')"))
            query = "SELECT last_id >= (SELECT max(id) FROM events) FROM sealing"
            return bool(tx.execute(text(query)).scalar_one())

    # Whoever has a transaction open, such as a relay, holds it up.
    wait_until(is_sealed, "the history is sealed")


class Everything:
    """Builds it, on a fleet on a virtual clock."""

    def __init__(self, fleet: Any, database: Database) -> None:
        self.fleet = fleet
        self.database = database

    def build(self, webhook: str) -> "Everything":
        """
        Args:
            webhook: the URL of an endpoint that is sent all events.
        """
        with self.database.engine("api").begin() as tx:
            webhooks.add(tx, "shop", webhook, "shop", [], new_secret())
        with self.fleet.owner.begin() as tx:
            save(tx, catalogue())
            for brand in ("ovh", "kimsufi"):
                for subsidiary in ("FR", "IE", "PL"):
                    set_rollout(tx, brand, subsidiary, date(2020, 1, 1))
        self._fault("decline", operation="charge", customer="poor")
        self._fault("refuse", operation="create", plan="vm")
        self._send(*ORDERS)
        self._import()
        self._give_up("eve", "mary")
        expiry = self._expiry("kurt")
        self._click("stop", "judy")
        self._click("mode", "ivan", mode="manual")
        self._click("mode", "tina", mode="manual")
        self._operator(suspending.suspend, "hans", "abuse")
        self.fleet.mailbox.refuse("lena@*")
        self._until(expiry - timedelta(days=4))
        self._fault("decline", operation="charge", customer="kurt")
        self._fault("decline", operation="charge", customer="carl")
        self._fault("error", operation="charge", customer="pete", times=10_000)
        self._fault("error", operation="charge", customer="olga", times=10_000)
        self._until(expiry - timedelta(days=2))
        self._ends_while_it_is_charged("olga")
        self._until(expiry + timedelta(days=8))
        self._renew("tina")
        self._pounds()
        self._until(expiry + timedelta(days=12))
        self._fault("error", operation="charge", customer="rosa", times=10_000)
        self._send(order("rosa", line("site"), customer="rosa"))
        self._lane("orders", lanes.pause, "for the test")
        place = order("sam", line("site"), customer="sam")
        self.fleet.intake.place("shop", "python", [given.body(place)])
        wait_until(self._is_told, "all events are delivered")
        seal(self.fleet.owner)
        return self

    def _is_told(self) -> bool:
        left = """SELECT (SELECT count(*) FROM events AS e, event_cursor AS c
                WHERE e.id > c.last_id AND event_kind(e.id, e.name, e.detail) IS NOT NULL)
            + (SELECT count(*) FROM webhook_deliveries WHERE ended_at IS NULL)"""
        return not self.database.value(left)

    def _send(self, *documents: Any) -> None:
        self.fleet.intake.place("shop", "python", [given.body(d) for d in documents])
        self.fleet.settle(60)

    def _fault(self, fault: str, **fields: Any) -> None:
        self.fleet.simulator.simulator.faults.add({"fault": fault} | fields)

    def _services(self, customer: str) -> list[Any]:
        return self.database.all(
            "SELECT * FROM services WHERE customer_id = :customer ORDER BY id", customer=customer
        )

    def _expiry(self, customer: str) -> Any:
        return self._services(customer)[0].expires_at

    def _until(self, moment: Any) -> None:
        self.fleet.pass_time(moment - self.fleet.clock.now(), 120, hop=timedelta(hours=12))

    def _click(self, command: str, customer: str, **fields: Any) -> None:
        services = [str(service.id) for service in self._services(customer)]
        self._send({"command": command, "customer": customer, "services": services, **fields})

    def _renew(self, customer: str) -> None:
        zone = given.FR.timezone
        wanted = [
            {"id": str(s.id), "expires_on": local_date(s.expires_at, zone).isoformat()}
            for s in self._services(customer)
        ]
        self._send({"command": "renew", "customer": customer, "services": wanted})

    def _give_up(self, *customers: str) -> None:
        with self.database.engine("api").begin() as tx:
            for task in failed.list_failed(tx):
                if task.order_key in customers:
                    give_up(tx, task.subject, self.fleet.clock)
        self.fleet.settle(60)

    def _operator(self, change: Any, customer: str, *words: str) -> None:
        ids = [service.id for service in self._services(customer)]
        with self.database.engine("api").begin() as tx:
            catalogue = CatalogueCache().current(tx)
            change(tx, ids, *words, catalogue, self.fleet.clock.now())
        self.fleet.settle(60)

    def _import(self) -> None:
        today = self.fleet.clock.now().date()
        rows = [
            {
                "customer": "uwe",
                "plan": "site",
                "period": "P1M",
                "resource_id": f"old-{state}",
                "expires_on": (today + timedelta(days=days)).isoformat(),
                "state": state,
                "contract_version": 2,
                "payment_method": "tok-uwe",
                "configuration": {},
                "subsidiary": "FR",
                "country": "FR",
                "language": "fr",
                "email": "uwe@example.com",
            }
            for state, days in (("active", 20), ("suspended", -20))
        ]
        rejects: list[Any] = []
        import_services(
            self.database.engine("api"), CatalogueCache(), self.fleet.clock,
            io.BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in rows)), "ndjson",
            rejects.append, realm="shop",
        )  # fmt: skip
        assert rejects == []

    def _ends_while_it_is_charged(self, customer: str) -> None:
        """An operator ends a service; its charge, of which nothing was known, was made."""
        self._lane("renewals", lanes.pause, "for the test")
        self._operator(ending.end, customer, "on request")
        (charge,) = self.database.all(
            "SELECT c.*, m.token FROM charges AS c"
            " JOIN payment_requests AS r ON r.id = c.request_id"
            " JOIN payment_methods AS m ON m.id = c.payment_method_id"
            " WHERE r.customer_id = :customer AND c.state = 'unknown'",
            customer=customer,
        )
        faults = self.fleet.simulator.simulator.faults
        kept = [rule for rule in faults.rules if rule.customer != customer]
        faults.rules[:] = kept

        async def arrive() -> None:
            gateway = gateways_of(self.fleet.settings)["default"]
            amount = Money(charge.amount, charge.currency)
            await gateway.perform(Charge(str(charge.key), amount, charge.token, customer))
            await gateway.close()

        asyncio.run(arrive())
        with self.database.engine("api").begin() as tx:
            failed.retry(tx, [TaskId(CHARGE, charge.request_id)])
        self.fleet.settle(60)
        self._lane("renewals", lanes.resume)
        self.fleet.settle(60)

    def _lane(self, lane: str, change: Any, *words: str) -> None:
        with self.database.engine("api").begin() as tx:
            change(tx, lane, *words)

    def _pounds(self) -> None:
        """Ireland pays in pounds from today on."""
        now = self.fleet.clock.now()
        files = catalogue(pounds=True)
        change = changes.Change(
            "IE", local_date(now, "Europe/Dublin"), {"currency": "GBP"},
            changes.prices_of(files, "IE"),
        )  # fmt: skip
        with self.fleet.owner.begin() as tx:
            changes.plan(tx, change, now)
            changes.apply_planned(tx, "IE")
        self.fleet.settle(60)

    def summary(self) -> list[Any]:
        return self.database.all(
            "SELECT 'service ' || state, count(*) FROM services GROUP BY 1"
            " UNION ALL SELECT 'order ' || state, count(*) FROM orders GROUP BY 1"
            " UNION ALL SELECT 'request ' || state, count(*) FROM payment_requests GROUP BY 1"
            " UNION ALL SELECT 'charge ' || state, count(*) FROM charges GROUP BY 1"
            " UNION ALL SELECT 'credit ' || reason, count(*) FROM credit_notes GROUP BY 1"
            " UNION ALL SELECT 'task ' || name || ' ' || state || ' ' || coalesce(reason, ''),"
            "     count(*) FROM tasks GROUP BY 1"
            " UNION ALL SELECT 'refund ' || state, count(*) FROM refunds GROUP BY 1"
            " UNION ALL SELECT 'refused e-mail', count(*) FROM emails WHERE refused_at IS NOT NULL"
            " UNION ALL SELECT 'invoice in ' || currency, count(*) FROM invoices GROUP BY 1"
        )
