"""The demo: orders for the sample catalogue, some of them invalid, and thirteen months of renewals,
with a simulated outside world that misbehaves."""

import json
import random
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import Connection, text

from autorenew.catalogues import bundled
from autorenew.local.embedded import Embedded
from autorenew.months import FIRST_HOUR, Months, summary
from monitoring.audit import Finding, audit
from producers.control import failed
from producers.intake import Verdict
from producers.steps import CONVERGE
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache, save
from schemas.values import Money

BATCH = 250
TIMEOUT_SECONDS = 600.0
LANGUAGES = {"FR": "fr", "CZ": "cs", "DE": "de", "PL": "pl"}

# All of these recover without a person, except declines and what is out of stock.
MISBEHAVIOUR: list[dict[str, Any]] = [
    {"target": "gateway", "operation": "charge", "fault": "decline", "customer": "poor-*"},
    {"target": "infrastructure", "operation": "create", "fault": "refuse", "plan": "vps-elite"},
    {"fault": "error", "rate": 0.03},
    {"fault": "late", "rate": 0.004, "seconds": 3},
    {"fault": "hang_after", "rate": 0.004, "seconds": 3},
    {"fault": "hang_before", "rate": 0.004, "seconds": 3},
    {"fault": "duplicate", "rate": 0.02},
]

# For the months: without the faults that take seconds of real time.
EVERYDAY: list[dict[str, Any]] = [
    {"target": "gateway", "operation": "charge", "fault": "decline", "customer": "poor-*"},
    {"target": "gateway", "operation": "charge", "fault": "decline", "rate": 0.02},
    {"fault": "error", "rate": 0.01},
    {"fault": "duplicate", "rate": 0.02},
]


def orders(
    catalogue: Catalogue, count: int, seed: int, year: int = 2099
) -> Iterator[dict[str, Any]]:
    """Documents as upstream would send them; about one in twenty is invalid.

    Args:
        year: some of the customers' cards expire in it.
    """
    draw = random.Random(seed)
    by_subsidiary: dict[str, list[tuple[str, str]]] = {}
    for plan in catalogue.plans.values():
        for sold_in, period in plan.prices:
            by_subsidiary.setdefault(sold_in, []).append((plan.code, str(period)))
    weights = {"FR": 5, "IE": 8}
    subsidiaries = sorted(by_subsidiary)
    for number in range(count):
        code = draw.choices(subsidiaries, [weights.get(s, 1) for s in subsidiaries])[0]
        subsidiary = catalogue.subsidiary(code)
        poor = draw.random() < 0.03
        card_ends = draw.random() < 0.15
        customer = f"{'poor' if poor else 'customer'}-{draw.randrange(count)}-{code}"
        chosen = draw.sample(by_subsidiary[code], min(draw.choices((1, 2, 3), (8, 2, 1))[0], 3))
        document: dict[str, Any] = {
            "key": f"order-{seed}-{number}",
            "customer": {
                "id": customer,
                "subsidiary": code,
                "country": subsidiary.country,
                "language": LANGUAGES.get(code, "en"),
                "email": f"{customer.lower()}@example.com",
            },
            "payment_method": f"tok-{customer}",
            "contracts": [
                {"contract": c.code, "version": c.version} for c in catalogue.contracts.values()
            ],
            "lines": [
                _line(catalogue, plan, period, draw.choices((1, 2, 3), (12, 2, 1))[0], draw)
                for plan, period in chosen
            ],
        }
        if card_ends:
            document["payment_method_expires"] = f"{year}-{draw.randrange(1, 13):02}"
        if draw.random() < 0.05:
            _spoil(document, draw)
        yield document


def _line(
    catalogue: Catalogue, code: str, period: str, quantity: int, draw: random.Random
) -> dict[str, Any]:
    plan = catalogue.plan(code)
    assert plan is not None
    configuration = {
        name: draw.choice(option.values)
        if option.values
        else f"site-{draw.randrange(10**6)}.example"
        for name, option in plan.options.items()
        if option.required
    }
    quantity = max(plan.quantity_min, min(quantity, plan.quantity_max))
    return {"plan": code, "period": period, "quantity": quantity, "configuration": configuration}


def _spoil(document: dict[str, Any], draw: random.Random) -> None:
    customer, line = document["customer"], document["lines"][0]
    match draw.randrange(7):
        case 0:
            line["plan"] = "web-forever"
        case 1:
            line["period"] = "P7M"
        case 2:
            document["contracts"] = []
        case 3:
            document["contracts"] = [{**c, "version": 1} for c in document["contracts"]]
        case 4:
            customer["email"] = "nobody"
        case 5:
            customer["country"] = "XX"
        case _:
            line["plan"], line["configuration"] = "voip-line", {}
            customer["subsidiary"] = customer["country"] = "DE"


def starts_at(moment: datetime) -> datetime:
    """The first moment from then on at which the demo begins: everywhere it is day."""
    start = moment.replace(hour=FIRST_HOUR, minute=0, second=0, microsecond=0)
    return start if start >= moment else start + timedelta(days=1)


def run(
    folder: Path, count: int, seed: int, months: int, *, started_at: datetime | None = None
) -> int:
    """Run the demo.

    Args:
        folder: where PostgreSQL keeps its data.
        count: orders to place.
        started_at: as if it were run then; what happens does not depend on the hour.

    Returns:
        The exit code: 0 if every order ended and the books agree, else 1.
    """
    console = Console(width=None if sys.stdout.isatty() else 100)
    catalogue = bundled()
    started, now = time.perf_counter(), datetime.now(UTC)
    console.print("starting PostgreSQL, the fleet and a simulated outside world in one process")
    with Embedded(
        folder,
        database=f"demo_{uuid.uuid4().hex[:8]}",
        temporary=True,
        rules=MISBEHAVIOUR,
        call_seconds=1.0,
        order_charge_delays=[0.2, 0.5],
        retry_base_seconds=0.2,
        retry_attempts=6,
        lease_seconds=30.0,
        ahead=starts_at(started_at or now) - now,
        silence_seconds=36 * 3600.0,
        destructive_share=0.5,
    ) as fleet:
        with fleet.owner.begin() as tx:
            save(tx, catalogue)
        universes = len({plan.universe for plan in catalogue.plans.values()})
        console.print(f"catalogue: {len(catalogue.plans)} plans in {universes} universes")
        _work(console, fleet, catalogue, count, seed)
        given_up = _give_up_what_failed(fleet)
        fleet.wait_until_idle(TIMEOUT_SECONDS)
        with fleet.owner.connect() as tx:
            _summary(console, tx, given_up)
        if months:
            Months(console, fleet, catalogue, seed, EVERYDAY).run(months)
            _retry_what_failed(fleet)
            with fleet.owner.connect() as tx:
                for title, columns, rows in summary(tx):
                    _table(console, title, columns, rows)
        elapsed = time.perf_counter() - started
        with fleet.owner.connect() as tx:
            findings = audit(tx, fleet.books())
            left = tx.execute(text("SELECT count(*) FROM tasks")).scalar_one()
    return _verdict(console, findings, left, elapsed)


def _work(console: Console, fleet: Embedded, catalogue: Catalogue, count: int, seed: int) -> None:
    with Progress(
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        placing = progress.add_task("placed", total=count)
        ending = progress.add_task("ended", total=count)
        year = fleet.clock.now().year + 1
        documents = [json.dumps(d).encode() for d in orders(catalogue, count, seed, year)]
        accepted = 0
        for i in range(0, count, BATCH):
            answers = fleet.intake.place("demo", "python", documents[i : i + BATCH])
            accepted += sum(answer.verdict is Verdict.ACCEPTED for answer in answers)
            progress.advance(placing, len(answers))
        # Upstream repeats some documents, which changes nothing.
        fleet.intake.place("demo", "python", documents[: BATCH // 5])

        def watch() -> None:
            with fleet.owner.connect() as tx:
                query = (
                    "SELECT count(*) FROM orders WHERE ended_at IS NOT NULL OR state = 'refused'"
                )
                progress.update(ending, completed=tx.execute(text(query)).scalar_one())

        fleet.wait_until_idle(TIMEOUT_SECONDS, watch)
        watch()


def _give_up_what_failed(fleet: Embedded) -> int:
    """As a person would with `autorenew failed cancel`."""
    with fleet.engine("api").begin() as tx:
        catalogue, now = CatalogueCache().current(tx), fleet.clock.now()
        tasks = [task for task in failed.list_failed(tx) if task.name == CONVERGE]
        for task in tasks:
            failed.cancel(tx, task.subject, catalogue, now)
    return len(tasks)


def _retry_what_failed(fleet: Embedded) -> None:
    """As a person would with `autorenew failed retry --all`."""
    with fleet.engine("api").begin() as tx:
        failed.retry(tx, failed.list_failed(tx))
    fleet.settle(TIMEOUT_SECONDS)


def _summary(console: Console, tx: Connection, given_up: int) -> None:
    for title, columns, query in (
        (
            "Orders by outcome",
            ("outcome", "orders"),
            "SELECT state, count(*) FROM orders GROUP BY state ORDER BY 2 DESC",
        ),
        (
            "Services by universe",
            ("universe", "brand", "active", "cancelled"),
            """SELECT universe, brand, count(*) FILTER (WHERE state = 'active'),
                count(*) FILTER (WHERE state = 'cancelled')
            FROM services GROUP BY universe, brand ORDER BY universe, brand""",
        ),
        (
            "Refused orders by reason",
            ("reason", "orders"),
            """SELECT p->>'code', count(DISTINCT id)
            FROM orders, jsonb_array_elements(problems) AS p
            WHERE state = 'refused' GROUP BY 1 ORDER BY 2 DESC, 1""",
        ),
        (
            "E-mails about orders",
            ("language", "e-mails", "services delivered", "services given up"),
            """SELECT c.language, count(*), sum(cardinality(e.delivered)),
                sum(cardinality(e.given_up))
            FROM order_emails AS e JOIN orders AS o ON o.id = e.order_id
            JOIN customers AS c ON c.id = o.customer_id
            WHERE e.sent_at IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1""",
        ),
    ):
        _table(console, title, columns, tx.execute(text(query)).all())
    money = tx.execute(
        text("""SELECT i.currency, count(*), sum(i.net), sum(i.tax), sum(i.total),
                coalesce((SELECT sum(n.total) FROM credit_notes AS n
                          WHERE n.currency = i.currency), 0)
            FROM invoices AS i GROUP BY i.currency ORDER BY i.currency""")
    ).all()
    _table(
        console,
        "Money by currency",
        ("currency", "invoices", "net", "tax", "total", "refunded"),
        [(c, n, *(str(Money(int(a), c)).split()[0] for a in amounts)) for c, n, *amounts in money],
    )
    console.print(f"{given_up} services could not be delivered: cancelled and refunded")


def _table(console: Console, title: str, columns: tuple[str, ...], rows: Any) -> None:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def _verdict(console: Console, findings: list[Finding], left: int, elapsed: float) -> int:
    broken = [finding for finding in findings if finding.broken]
    for finding in broken:
        said = f"{finding.code}: {finding.invariant}: {finding.broken}: {finding.named}"
        console.print(f"[red]broken[/red]: {said}")
    if left:
        console.print(f"[red]{left} tasks are left[/red]")
    good = not broken and not left
    verdict = "[green]clean[/green]" if good else "[red]not clean[/red]"
    console.print(f"audit: {verdict}, {len(findings)} invariants checked, {elapsed:.1f} s in all")
    return 0 if good else 1
