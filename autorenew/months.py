"""The second part of the demo: thirteen months of renewals.

Customers stop services, change their minds, move, let cards expire and ignore new contracts. An
e-mail address bounces, and a subsidiary changes its currency. The scheduler is down for ten days,
the infrastructure fails for a week, renewal is switched on step by step. Decisions of operators are
made here as an operator would make them.
"""

import json
import logging
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from rich.console import Console
from sqlalchemy import Connection, TextClause, text

from autorenew.local.embedded import Embedded
from producers.control import failed, lanes
from producers.renewals.next_steps import load
from producers.steps import CONVERGE
from schemas.catalogue import Catalogue, Price, changes
from schemas.catalogue.store import CatalogueCache, save, set_rollout
from schemas.values import Money
from workers.billing.charges import reconcile

DAY = timedelta(days=1)
# E-mails go out from 08:00 local on: at 10:00 and 22:00 UTC every place is past that once a day.
HALF_A_DAY = DAY / 2
FIRST_HOUR = 10
# Renewal is switched on here from the start, and elsewhere later.
FIRST_BRANDS = ("kimsufi", "soyoustart")
LATER = ("CA", "AU", "US")
LATER_MONTH = 3
MOVING_MONTH = 2
MOVING = 3  # customers
FROM, TO = "FR", "BE"
NEW_CONTRACT_MONTH = 4
BOUNCING_MONTH = 5
BOUNCING_DAYS = (2, 26)  # from and until
CURRENCY_MONTH = 6
CHANGED, CURRENCY, RATE = "CZ", "EUR", 25  # of the former currency for one of the new
PLANNED_DAYS = 19
OUTAGE_MONTH = 7
OUTAGE = timedelta(days=10)
FAILING_MONTH = 9
FAILING_DAYS = 7
TIMEOUT_SECONDS = 120.0

INFRASTRUCTURE_FAILS = {"target": "infrastructure", "fault": "error"}


@dataclass
class Months:
    """Lets months pass over a fleet on a virtual clock."""

    console: Console
    fleet: Embedded
    catalogue: Catalogue
    seed: int
    rules: Sequence[dict[str, Any]]
    """How the outside world misbehaves all the time."""
    draw: random.Random = field(init=False)
    bouncing: Any = field(init=False, default=None)
    """The customer whose address bounces."""

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)

    def run(self, months: int) -> None:
        self._behave()
        now = self.fleet.clock.now()
        start = now.replace(hour=FIRST_HOUR, minute=0, second=0, microsecond=0)
        self.fleet.pass_time((start - now) % DAY, TIMEOUT_SECONDS)
        self._roll_out(lambda brand, subsidiary: brand in FIRST_BRANDS or subsidiary not in LATER)
        self.console.print("".join(f"{c:>10}" for c in _COLUMNS) + "  what happens")
        for month in range(1, months + 1):
            self._month(month)

    def _month(self, month: int) -> None:
        start = self.fleet.clock.now()
        before = self._counts()
        story = list(self._begin(month))
        for day in range(30):
            for happening in self._day(month, day):
                story.append(happening)
            self.fleet.pass_time(DAY, TIMEOUT_SECONDS, hop=HALF_A_DAY)
        after = self._counts()
        cells = [
            after["active"], after["suspended"], *(after[k] - before[k] for k in _COUNTED),
        ]  # fmt: skip
        line = f"{start:%Y-%m}".rjust(10) + "".join(f"{cell:>10,}" for cell in cells)
        self.console.print(
            line + "".join(f"  {happening}" for happening in story[:1]), soft_wrap=True
        )
        for happening in story[1:]:
            self.console.print(" " * len(line) + f"  {happening}", soft_wrap=True)

    def _begin(self, month: int) -> Iterator[str]:
        """What happens on the first day of a month."""
        yield from self._decide_about_failures()
        if month == LATER_MONTH:
            self._roll_out(lambda brand, subsidiary: True)
            yield f"renewal switched on in {', '.join(LATER)}"
        if month == NEW_CONTRACT_MONTH:
            self._publish("web")
            yield "a new version of the web contract"
        if month == MOVING_MONTH:
            yield self._move()
        if month == CURRENCY_MONTH:
            self._plan_currency()
        if month == CURRENCY_MONTH + 1:
            yield self._changed_currency()
        self._click("stop", self._some(_LIVE, 0.01))
        for mode in ("manual", "automatic"):
            self._click("mode", self._some(_LIVE, 0.01), mode=mode)

    def _day(self, month: int, day: int) -> Iterator[str]:
        if day == 10:
            self._change_minds()
        if day % 7 == 3:
            self._pay_by_hand()
        if day == 15:
            self._renew_cards()
        if month in (NEW_CONTRACT_MONTH, NEW_CONTRACT_MONTH + 1) and day in (5, 20):
            self._accept("web")
        if month == BOUNCING_MONTH and day in BOUNCING_DAYS:
            yield self._bounce() if day == BOUNCING_DAYS[0] else self._mend_address()
        if month == OUTAGE_MONTH and day == 12:
            yield self._outage()
        if month == FAILING_MONTH and day == 8:
            self.fleet.simulator.simulator.faults.add(INFRASTRUCTURE_FAILS)
            yield f"the infrastructure fails for {FAILING_DAYS} days"
        if month == FAILING_MONTH and day == 8 + FAILING_DAYS:
            self._behave()
            yield from self._decide_about_failures()

    def _behave(self) -> None:
        """Set the faults of an ordinary day."""
        faults = self.fleet.simulator.simulator.faults
        faults.clear()
        for rule in self.rules:
            faults.add(rule)

    def _roll_out(self, where: Callable[[str, str], bool]) -> None:
        brands = sorted({plan.brand for plan in self.catalogue.plans.values()})
        with self.fleet.owner.begin() as tx:
            for brand in brands:
                for subsidiary in self.catalogue.subsidiaries:
                    if where(brand, subsidiary):
                        set_rollout(tx, brand, subsidiary, self._today())

    def _today(self) -> date:
        return self.fleet.clock.now().date()

    def _publish(self, code: str) -> None:
        """Publish the next version of a contract."""
        contracts = [
            replace(c, version=c.version + 1) if c.code == code else c
            for c in self.catalogue.contracts.values()
        ]
        self.catalogue = Catalogue(
            self.catalogue.subsidiaries.values(), contracts, self.catalogue.plans.values()
        )
        with self.fleet.owner.begin() as tx:
            save(tx, self.catalogue)

    def _plan_currency(self) -> None:
        """As an operator would with `autorenew subsidiary change`; the scheduler does it."""
        # The table of months tells it.
        logging.getLogger("producers.scheduler.changes").setLevel(logging.WARNING)
        subsidiary = self.catalogue.subsidiary(CHANGED)
        self.catalogue = _in_another_currency(self.catalogue, CHANGED, CURRENCY, RATE)
        change = changes.Change(
            CHANGED,
            self._today() + timedelta(days=PLANNED_DAYS),
            changes.differences(subsidiary, {"currency": CURRENCY}),
            changes.prices_of(self.catalogue, CHANGED),
        )
        with self.fleet.owner.begin() as tx:
            changes.plan(tx, change, self.fleet.clock.now(), self.catalogue)

    def _changed_currency(self) -> str:
        (row,) = self._rows(_CHANGED_CURRENCY, subsidiary=CHANGED, currency=CURRENCY)
        return (
            f"{CHANGED} pays in {CURRENCY}: {row.services} services, {row.told} renewals told"
            f" anew, {row.voided} requests withdrawn, {row.paid} renewed in {CURRENCY} since"
        )

    def _some(self, query: TextClause, share: float) -> list[tuple[str, uuid.UUID]]:
        """(customer, service) of a random share of the services a query finds."""
        return [(row[0], row[1]) for row in self._rows(query) if self.draw.random() < share]

    def _click(
        self, command: str, services: Sequence[tuple[str, uuid.UUID]], **fields: Any
    ) -> None:
        self._send(
            [
                {"command": command, "customer": customer, "services": [str(service)], **fields}
                for customer, service in services
            ]
        )

    def _send(self, documents: Sequence[dict[str, Any]]) -> None:
        bodies = [json.dumps(document).encode() for document in documents]
        if bodies:
            self.fleet.intake.place("demo", "python", bodies)

    def _move(self) -> str:
        """Customers move to another country; what they renew is taxed there from now on."""
        movers = self._rows(_CONSUMERS, country=FROM)[:MOVING]
        self._send(
            [
                {"command": "customer", "customer": row.id, "country": TO,
                 "address": {"lines": ["Rue Neuve 1"], "postal_code": "1000", "city": "Bruxelles"}}
                for row in movers
            ]
        )  # fmt: skip
        return f"{len(movers)} customers move from {FROM} to {TO}: their renewals are taxed there"

    def _bounce(self) -> str:
        self.bouncing = self._rows(_DUE_SOON)[0]
        self.fleet.mailbox.refuse(self.bouncing.email)
        return f"the address of {self.bouncing.id} bounces"

    def _mend_address(self) -> str:
        (refused,) = self._rows(_REFUSED, customer=self.bouncing.id)
        email = f"new-{self.bouncing.email}"
        self._send([{"command": "customer", "customer": self.bouncing.id, "email": email}])
        return (
            f"{self.bouncing.id} has a new address: {refused.count} refused e-mails are sent again"
        )

    def _change_minds(self) -> None:
        self._click("resume", self._some(_STOPPED, 0.4))

    def _pay_by_hand(self) -> None:
        """Half of the customers who have to pay by hand, or are suspended, pay."""
        chosen = self._some(_TO_PAY, 0.5)
        with self.fleet.engine("api").connect() as tx:
            held = load(tx, [service for _, service in chosen], CatalogueCache().current(tx))
        self._send(
            [
                {
                    "command": "renew",
                    "customer": service.customer_id,
                    "services": [
                        {"id": str(service.id), "expires_on": service.view.expires_on.isoformat()}
                    ],
                }
                for service in held
            ]
        )

    def _renew_cards(self) -> None:
        """Two in three of the customers with an expired card give a new one."""
        rows = self._rows(_CARD_EXPIRED)
        year = self._today().year + 3
        self._send(
            [
                {
                    "command": "payment_method",
                    "customer": row[0],
                    "payment_method": f"tok-{row[0]}-{year}",
                    "payment_method_expires": f"{year}-12",
                }
                for row in rows
                if self.draw.random() < 0.67
            ]
        )

    def _accept(self, code: str) -> None:
        """Half of the customers who have not yet accepted a contract accept it."""
        contract = self.catalogue.contracts[code]
        rows = self._rows(_NOT_AGREED, contract=code, version=contract.version)
        self._send(
            [
                {
                    "command": "accept",
                    "customer": row[0],
                    "contracts": [{"contract": code, "version": contract.version}],
                }
                for row in rows
                if self.draw.random() < 0.5
            ]
        )

    def _outage(self) -> str:
        """The fleet is down for ten days; the guard pauses lanes, and an operator resumes them."""
        # The table of months tells it.
        logging.getLogger("producers.control.guard").setLevel(logging.CRITICAL)
        self.fleet.leap(OUTAGE)
        self.fleet.settle(TIMEOUT_SECONDS)
        with self.fleet.engine("billing").connect() as tx:
            books = self.fleet.books().money()
            catalogue, now = CatalogueCache().current(tx), self.fleet.clock.now()
            differences = reconcile.compare(tx, books, catalogue, now)
        with self.fleet.engine("api").begin() as tx:
            paused = sorted({pause.lane for pause in lanes.paused(tx)})
            for lane in paused:
                lanes.resume(tx, lane, guard=True)
        return (
            f"10 days without a scheduler: the guard paused {len(paused)} lanes;"
            f" the gateway's book differs in {len(differences)} places; resumed"
        )

    def _decide_about_failures(self) -> Iterator[str]:
        """Retry failed operations, as an operator would."""
        with self.fleet.engine("api").begin() as tx:
            waiting = [task for task in failed.list_failed(tx) if task.name == CONVERGE]
            retried = failed.retry(tx, waiting)
        if retried:
            yield f"{len(retried)} failed operations retried"

    def _rows(self, query: TextClause, **parameters: Any) -> Sequence[Any]:
        with self.fleet.owner.connect() as tx:
            return tx.execute(query, parameters).all()

    def _counts(self) -> dict[str, int]:
        with self.fleet.owner.connect() as tx:
            return counts(tx)


_CONSUMERS = text("""
    SELECT c.id FROM customers AS c
    WHERE c.country = :country AND c.vat_number IS NULL AND EXISTS (
        SELECT FROM services AS s WHERE s.customer_id = c.id AND s.state = 'active'
          AND s.mode = 'automatic' AND s.period_months = 1)
    ORDER BY c.id
""")
_DUE_SOON = text("""
    SELECT c.id, c.email FROM customers AS c JOIN services AS s ON s.customer_id = c.id
    WHERE s.state = 'active' AND s.mode = 'automatic' AND s.period_months = 1
      AND s.expires_at > (SELECT now() + ahead FROM virtual_clock) + interval '16 days'
    ORDER BY s.expires_at, c.id LIMIT 1
""")
_REFUSED = text("""
    SELECT count(*) AS count FROM emails
    WHERE customer_id = :customer AND refused_at IS NOT NULL AND sent_at IS NULL
""")
_LIVE = text("""
    SELECT customer_id, id FROM services
    WHERE state IN ('active', 'suspended') AND desired <> 'absent' ORDER BY id
""")
_STOPPED = text("""
    SELECT customer_id, id FROM services
    WHERE state IN ('active', 'suspended') AND desired <> 'absent' AND mode = 'stop' ORDER BY id
""")
_TO_PAY = text("""
    SELECT customer_id, id FROM services
    WHERE state IN ('active', 'suspended') AND desired <> 'absent'
      AND customer_id NOT LIKE 'poor-%'
      AND (state = 'suspended' OR mode = 'manual'
        AND expires_at < (SELECT now() + ahead FROM virtual_clock) + interval '7 days')
    ORDER BY id
""")
_CARD_EXPIRED = text("""
    SELECT DISTINCT s.customer_id
    FROM services AS s JOIN payment_methods AS m ON m.id = s.payment_method_id
    WHERE s.state IN ('active', 'suspended')
      AND m.expires_on < CAST((SELECT now() + ahead FROM virtual_clock) AS date)
    ORDER BY s.customer_id
""")
_NOT_AGREED = text("""
    SELECT DISTINCT s.customer_id FROM services AS s JOIN plans AS p ON p.code = s.plan
    WHERE p.contract = :contract AND s.state IN ('active', 'suspended')
      AND coalesce(s.agreed_version, 0) < :version
    ORDER BY s.customer_id
""")

_CHANGED_CURRENCY = text("""
    SELECT
        (SELECT count(*) FROM services
         WHERE subsidiary = :subsidiary AND state IN ('active', 'suspended')) AS services,
        (SELECT count(*) FROM events WHERE name = 'renewal.converted'
            AND detail->>'announced' IS NOT NULL) AS told,
        (SELECT count(*) FROM payment_requests
         WHERE subsidiary = :subsidiary AND state = 'voided' AND currency <> :currency
            AND order_id IS NULL AND closed_at > (SELECT applied_at FROM subsidiary_changes
                WHERE subsidiary = :subsidiary)) AS voided,
        (SELECT count(DISTINCT l.service_id) FROM invoices AS i
         JOIN invoice_lines AS l ON l.invoice_id = i.id AND l.period_number > 1
         WHERE i.subsidiary = :subsidiary AND i.currency = :currency) AS paid
""")


def _in_another_currency(
    catalogue: Catalogue, subsidiary: str, currency: str, rate: int
) -> Catalogue:
    """A catalogue whose subsidiary has another currency.

    Args:
        rate: how much of the former one makes one of the new, which has as many digits.
    """

    def price(before: Price) -> Price:
        return Price(
            Money(round(before.setup.amount / rate), currency),
            Money(round(before.renewal.amount / rate), currency),
        )

    plans = [
        replace(
            plan,
            prices={
                (code, period): price(before) if code == subsidiary else before
                for (code, period), before in plan.prices.items()
            },
        )
        for plan in catalogue.plans.values()
    ]
    subsidiaries = [
        replace(s, currency=currency) if s.code == subsidiary else s
        for s in catalogue.subsidiaries.values()
    ]
    return Catalogue(subsidiaries, catalogue.contracts.values(), plans)


_COLUMNS = ("month", "active", "suspended", "renewed", "ended", "e-mails", "declined")
_COUNTED = ("renewed", "ended", "mails", "declined")


def counts(tx: Connection) -> dict[str, int]:
    """The numbers of a row of the table of months: services by state, and totals so far."""
    row = tx.execute(
        text("""SELECT
            count(*) FILTER (WHERE state = 'active') AS active,
            count(*) FILTER (WHERE state = 'suspended') AS suspended,
            count(*) FILTER (WHERE state = 'terminated') AS ended,
            (SELECT count(*) FROM invoice_lines WHERE period_number > 1) AS renewed,
            (SELECT count(*) FROM emails WHERE sent_at IS NOT NULL) AS mails,
            (SELECT count(*) FROM charges AS c JOIN payment_requests AS r ON r.id = c.request_id
             WHERE c.state = 'declined' AND r.order_id IS NULL) AS declined
            FROM services""")
    ).one()
    return dict(row._mapping)


def summary(tx: Connection) -> list[tuple[str, tuple[str, ...], Sequence[Any]]]:
    """The closing tables: title, columns and rows of each."""
    ended = tx.execute(
        text("""SELECT detail->>'reason', count(*) FROM events WHERE name = 'service.ending'
             GROUP BY 1 ORDER BY 2 DESC""")
    ).all()
    periods = tx.execute(
        text("""SELECT 'P' || s.period_months || 'M', count(*), count(DISTINCT s.id), i.currency,
                sum(l.net + l.tax)
             FROM invoice_lines AS l JOIN invoices AS i ON i.id = l.invoice_id
             JOIN services AS s ON s.id = l.service_id
             WHERE l.period_number > 1
             GROUP BY s.period_months, i.currency ORDER BY s.period_months, i.currency""")
    ).all()
    return [
        (
            "Renewed by period",
            ("period", "renewals", "services", "money"),
            [(p, n, s, Money(int(amount), currency)) for p, n, s, currency, amount in periods],
        ),
        ("Ended by reason", ("reason", "services"), ended),
    ]
