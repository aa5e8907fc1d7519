"""Measure the fleet against its floor and against peers; print a table, write JSON.

Every run has a database, a virtual host and processes of its own, on one PostgreSQL and one
RabbitMQ. Runs of different kinds are interleaved, so that a machine that drifts drifts for all.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import Engine, text

from autorenew.local import end_on_sigterm
from autorenew.local.fleet import PrivateFleet
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from benchmarks import (
    floor,
    history,
    importing,
    latency,
    many_services,
    orders,
    ours,
    outside,
    renewals,
)
from benchmarks.peers import celery_peer, dramatiq_peer
from monitoring.audit import audit
from schemas.catalogue.store import save
from schemas.database import connect, migrate
from schemas.values import Universe

RESULTS = Path("benchmarks/results")
BATCH = 500
MANY_PLANS = 1000
SNAPSHOT_SECONDS = 60.0
RENEWALS = 100_000
ONE_EACH = "renewals, one to a customer"
AMONG_MANY = "renewals among ten times as many"
IMPORTED = 200_000
FEW_SERVICES, MANY_SERVICES = 100_000, 5_000_000
DUE = 10_000
FORECAST_SECONDS = 5.0
OUTSIDE = "outside calls of 0.3 and 0.5 s"
ALONE = "their far side by itself"
LEAST = {
    "renewals": 2000,
    "renewals, one to a customer": 2500,
    "import": 10_000,
    OUTSIDE: 600,
    ALONE: 3 * 600,
}
PEERS = {"celery": celery_peer, "dramatiq": dramatiq_peer}


@dataclass
class Results:
    """What was measured; rates in orders a second, one entry a run."""

    machine: str
    started: str
    orders: int
    rates: dict[str, list[float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of what is measured by its time, one entry a run."""
    worker_mb: list[float] = field(default_factory=list)
    calling_mb: list[float] = field(default_factory=list)
    """Of a process with 1,000 calls under way."""

    def median_seconds(self, case: str) -> float | None:
        return statistics.median(self.seconds[case]) if self.seconds.get(case) else None

    def median(self, case: str) -> float | None:
        return statistics.median(self.rates[case]) if self.rates.get(case) else None


@dataclass(frozen=True)
class Bench:
    postgres: PrivatePostgres
    rabbitmq: PrivateRabbitMQ
    folder: Path
    console: Console
    orders: int
    results: Results

    @contextmanager
    def fleet(
        self, plans: int, universes: Sequence[Universe] = (Universe.WEB,)
    ) -> Iterator[PrivateFleet]:
        """A fleet that is up and waits for work."""
        fleet = PrivateFleet(
            self.folder / "fleet",
            self.postgres,
            self.rabbitmq,
            database=f"bench_{uuid.uuid4().hex[:8]}",
            **ours.settings(BATCH),
        )
        fleet.prepare(orders.catalogue(plans, universes))
        try:
            ours.start(fleet)
            yield fleet
        finally:
            fleet.close()

    @contextmanager
    def calling_fleet(self, url: str, **settings: str) -> Iterator[PrivateFleet]:
        """A fleet that calls the far side at ``url``, up and waiting for work."""
        fleet = PrivateFleet(
            self.folder / "fleet",
            self.postgres,
            self.rabbitmq,
            database=f"bench_{uuid.uuid4().hex[:8]}",
            **(outside.settings(url) | settings),
        )
        fleet.prepare(orders.catalogue(1))
        try:
            outside.start(fleet)
            yield fleet
        finally:
            fleet.close()

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
        engine = connect(self.postgres.url(name))
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

    def drain(self, fleet: PrivateFleet, case: str, plans: int) -> float:
        """Take orders in while the lanes are paused, then see how fast they are delivered."""
        ours.pause(fleet.owner)
        orders.place(fleet.owner, self.orders, plans)
        with Progress(console=self.console, transient=True) as progress:
            bar = progress.add_task(case, total=self.orders)
            return ours.run(
                fleet.owner, self.orders, lambda done: progress.update(bar, completed=done)
            )


def run_ours(
    bench: Bench,
    case: str = "fleet",
    plans: int = 1,
    universes: Sequence[Universe] = (Universe.WEB,),
) -> None:
    with bench.fleet(plans, universes) as fleet:
        bench.note(case, bench.orders, bench.drain(fleet, case, plans))
        bench.results.worker_mb += [round(size, 1) for size in ours.worker_memory(fleet)]
        _check(fleet.owner)


def run_many_plans(bench: Bench) -> None:
    run_ours(bench, f"fleet, {MANY_PLANS} plans", MANY_PLANS)


def run_universes(bench: Bench) -> None:
    """Four queues instead of one: their batches are smaller."""
    run_ours(bench, f"{MANY_PLANS} plans in 4 universes", MANY_PLANS, list(Universe))


def run_snapshot(bench: Bench) -> None:
    """Work for a minute under one snapshot that is older than all of it."""
    case = f"fleet, a snapshot open {SNAPSHOT_SECONDS:.0f} s"
    with bench.fleet(1) as fleet, fleet.owner.connect() as old:
        old.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        old.execute(text("SET idle_in_transaction_session_timeout = 0"))
        old.execute(text("SELECT count(*) FROM tasks"))
        opened, seconds, rounds = time.monotonic(), 0.0, 0
        while time.monotonic() - opened < SNAPSHOT_SECONDS:
            seconds += bench.drain(fleet, case, 1)
            rounds += 1
        bench.note(case, rounds * bench.orders, seconds)
        old.rollback()


def run_floor(bench: Bench) -> None:
    with bench.database() as (url, engine):
        ids = orders.place(engine, bench.orders)
        bench.note("floor", bench.orders, floor.run(url, ids, BATCH))
        with engine.begin() as tx:
            tx.execute(text("DELETE FROM tasks"))
        _check(engine)


def run_peer(bench: Bench, name: str) -> None:
    peer = PEERS[name]
    vhost = f"{name}_{uuid.uuid4().hex[:8]}"
    bench.rabbitmq.add_vhost(vhost)
    broker_url = bench.rabbitmq.url(vhost=vhost)
    with bench.database() as (url, engine):
        ids = orders.place(engine, bench.orders)
        with engine.begin() as tx:
            tx.execute(text("DELETE FROM tasks"))
        workers = peer.start(url, broker_url)
        try:
            with Progress(console=bench.console, transient=True) as progress:
                bar = progress.add_task(name, total=bench.orders)
                started = time.perf_counter()
                peer.enqueue(url, broker_url, ids)
                while (done := orders.delivered(engine)) < bench.orders:
                    progress.update(bar, completed=done)
                    time.sleep(0.1)
                elapsed = time.perf_counter() - started
        finally:
            peer.stop(workers)
        bench.note(name, bench.orders, elapsed)
        _check(engine)
    bench.rabbitmq.delete_vhost(vhost)


def run_latency(bench: Bench) -> None:
    with bench.fleet(1) as fleet:
        fleet.start_intake()
        fleet.wait_for_consumers()
        bench.results.latency_ms += latency.run(fleet)
        _check(fleet.owner)
    bench.console.print("  one order at a time: measured")


def run_outside(bench: Bench) -> None:
    """A gateway that takes 0.3 s and an infrastructure that takes 0.5 s, a process for each."""
    with outside.far_side(0.0, 0.0) as url:
        bench.note(ALONE, 6000, 6000 / outside.served(url), "calls")
    with (
        outside.far_side(outside.CHARGE_SECONDS, outside.OPERATE_SECONDS) as url,
        bench.calling_fleet(url) as fleet,
    ):
        bench.note(OUTSIDE, bench.orders, bench.drain(fleet, OUTSIDE, 1))
        _check(fleet.owner)
    with (
        outside.far_side(outside.LONG_SECONDS, 0.0) as url,
        bench.calling_fleet(url, calls_at_once="1000", call_seconds="29") as fleet,
    ):
        orders.place(fleet.owner, 1000)
        outside.wait_for_charges(fleet, 1000)
        bench.results.calling_mb.append(round(outside.memory(fleet, "worker-billing"), 1))
        fleet.wait_until_idle(60)
        _check(fleet.owner)


def run_renewals(bench: Bench) -> None:
    """Services that fall due on one day, a few to a customer; and one to a customer."""
    _renew(bench, "renewals", RENEWALS // 4)
    _renew(bench, ONE_EACH, RENEWALS)


def run_history(bench: Bench) -> None:
    """The same among ten times as many services, each with a year of history."""
    _renew(bench, ONE_EACH, RENEWALS)
    _renew(bench, AMONG_MANY, RENEWALS, others=9 * RENEWALS)


def _renew(bench: Bench, case: str, customers: int, *, others: int = 0) -> None:
    billed = 12 if others else 0
    fleet = PrivateFleet(
        bench.folder / "fleet",
        bench.postgres,
        bench.rabbitmq,
        database=f"bench_{uuid.uuid4().hex[:8]}",
        **ours.settings(BATCH),
    )
    fleet.prepare(orders.catalogue(1))
    try:
        renewals.fill(fleet.owner, RENEWALS, customers, billed=billed)
        if others:
            history.add_others(fleet.owner, others)
            history.write(fleet.owner)
        renewals.start(fleet)
        with Progress(console=bench.console, transient=True) as progress:
            bar = progress.add_task(case, total=RENEWALS)
            seconds = renewals.run(
                fleet, RENEWALS, lambda done: progress.update(bar, completed=done), billed=billed
            )
        bench.note(case, RENEWALS, seconds, "services")
        fleet.wait_until_idle(60)
        _check(fleet.owner)
    finally:
        fleet.close()


def run_many(bench: Bench) -> None:
    """The cost of a sweep, and of a forecast, when there are millions."""
    for count in (FEW_SERVICES, MANY_SERVICES):
        with (
            bench.empty_database() as (_, engine),
            Progress(console=bench.console, transient=True) as progress,
        ):
            bar = progress.add_task(f"writing {count:,} services", total=count)
            today = datetime.now(UTC).date()
            many_services.fill(
                engine, count, today=today,
                watch=lambda done, b=bar: progress.update(b, completed=done),
            )  # fmt: skip
            for _ in range(3):
                bench.note_seconds(
                    f"a sweep of {DUE:,} among {count:,}", many_services.sweep(engine, DUE)
                )
            if count == MANY_SERVICES:
                for _ in range(3):
                    seconds = many_services.forecast(engine, today)
                    bench.note_seconds(f"a forecast over {count:,} services", seconds)


def run_import(bench: Bench) -> None:
    with bench.empty_database() as (name, engine):
        importing.prepare(engine)
        api = connect(bench.postgres.role_url(name, "api"))
        seconds = importing.run(api, IMPORTED)
        api.dispose()
        bench.note("import", IMPORTED, seconds, "rows")


def _check(engine: Engine) -> None:
    """A fast run whose books do not agree is worth nothing."""
    with engine.connect() as tx:
        broken = [finding.invariant for finding in audit(tx) if finding.broken]
    if broken:
        raise RuntimeError(f"the audit is not clean: {broken}")


CASES: dict[str, Callable[[Bench], None]] = {
    "fleet": run_ours,
    "floor": run_floor,
    "plans": run_many_plans,
    "universes": run_universes,
    "snapshot": run_snapshot,
    "celery": lambda bench: run_peer(bench, "celery"),
    "dramatiq": lambda bench: run_peer(bench, "dramatiq"),
    "latency": run_latency,
    "outside": run_outside,
    "renewals": run_renewals,
    "history": run_history,
    "import": run_import,
    "many": run_many,
}
ONCE = ("many", "history")
"""Measured in the first run only: their databases take minutes to write."""


def _rows(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """What, measured, at least or at most, and whether it is reached."""
    fleet = results.median("fleet")
    for case in results.rates:
        rate = results.median(case) or 0.0
        least = LEAST.get(case)
        yield (
            case,
            f"{rate:,.0f} {results.units.get(case, 'orders')}/s",
            f"at least {least:,}" if least else "",
            _verdict(rate >= least) if least else "",
        )
    yield from _times(results)
    targets: Sequence[tuple[str, str, float]] = (
        ("celery", "x", 25.0),
        ("dramatiq", "x", 0.0),
        ("floor", "of the floor", 0.8),
    )
    for case, unit, least in targets:
        other = results.median(case)
        if fleet and other:
            ratio = fleet / other
            name = f"fleet / {case}"
            wanted = f"at least {least:g}" if least else ""
            yield name, f"{ratio:.2f} {unit}", wanted, _verdict(ratio >= least) if least else ""
    for case in results.rates:
        other = results.median(case)
        if case.startswith("fleet, ") and fleet and other:
            least = 0.9
            yield (
                f"{case} / fleet",
                f"{other / fleet:.2f}",
                f"at least {least}",
                _verdict(other / fleet >= least),
            )
    alone, among = results.median(ONE_EACH), results.median(AMONG_MANY)
    if alone and among:
        verdict = _verdict(among / alone >= 0.85)
        yield f"{AMONG_MANY} / alone", f"{among / alone:.2f}", "at least 0.85", verdict
    if results.latency_ms:
        for percent, most in ((50, 15.0), (99, 40.0)):
            value = latency.percentile(results.latency_ms, percent)
            yield (
                f"one order, p{percent}",
                f"{value:.0f} ms",
                f"at most {most:g} ms",
                _verdict(value <= most),
            )
    rate = results.median(OUTSIDE)
    if rate:
        ratio = rate / outside.BOUND
        yield (
            f"{OUTSIDE} / calls at once by their time",
            f"{ratio:.2f}",
            "at least 0.8",
            _verdict(ratio >= 0.8),
        )
    if results.calling_mb:
        largest = max(results.calling_mb)
        wanted = "at most 200 MB"
        yield "a process with 1,000 calls", f"{largest:.0f} MB", wanted, _verdict(largest <= 200)
    if results.worker_mb:
        largest = max(results.worker_mb)
        yield "largest worker", f"{largest:.0f} MB", "under 120 MB", _verdict(largest < 120)


def _times(results: Results) -> Iterator[tuple[str, str, str, str]]:
    for case in results.seconds:
        seconds = results.median_seconds(case) or 0.0
        forecast = case.startswith("a forecast")
        most = FORECAST_SECONDS if forecast else None
        yield (
            case,
            f"{seconds:.2f} s",
            f"under {most:g} s" if most else "",
            _verdict(seconds < most) if most else "",
        )
    few, many = (
        results.median_seconds(f"a sweep of {DUE:,} among {count:,}")
        for count in (FEW_SERVICES, MANY_SERVICES)
    )
    if few and many:
        ratio = many / few
        yield "sweep, many / few", f"{ratio:.2f} x", "at most 1.3", _verdict(ratio <= 1.3)


def _verdict(reached: bool) -> str:
    return "reached" if reached else "NOT REACHED"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, python = os.cpu_count(), platform.python_version()
    return f"{cores} cores, {memory:.0f} GiB, {platform.machine()}, Python {python}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--orders", type=int, default=20_000, help="orders in a run (20000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case (3)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE",
                        help=f"of {', '.join(CASES)}")  # fmt: skip
    parser.add_argument("--json", type=Path, help="where the results go")
    options = parser.parse_args(arguments)
    end_on_sigterm()
    console = Console(width=None if sys.stdout.isatty() else 110)
    results = Results(_machine(), datetime.now(UTC).isoformat(timespec="seconds"), options.orders)
    console.print(f"{results.machine}; {options.orders:,} orders in a run, {options.runs} runs")
    with tempfile.TemporaryDirectory(prefix="autorenew-bench-") as name:
        folder = Path(name)
        postgres = PrivatePostgres(folder / "postgresql")
        rabbitmq = PrivateRabbitMQ(folder / "rabbitmq")
        try:
            postgres.start()
            rabbitmq.start()
            bench = Bench(postgres, rabbitmq, folder, console, options.orders, results)
            for number in range(options.runs):
                console.print(f"run {number + 1} of {options.runs}")
                for case in options.only:
                    if number == 0 or case not in ONCE:
                        CASES[case](bench)
        finally:
            rabbitmq.stop()
            postgres.remove()
    return _report(console, results, options.json)


def _report(console: Console, results: Results, path: Path | None) -> int:
    rows = list(_rows(results))
    table = Table(title="Medians", title_justify="left")
    for column in ("what", "measured", "wanted", ""):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if path is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{results.started.replace(':', '')}.json"
    summary: list[dict[str, Any]] = [
        dict(zip(("what", "measured", "wanted", "verdict"), row, strict=True)) for row in rows
    ]
    path.write_text(json.dumps(asdict(results) | {"summary": summary}, indent=1) + "\n")
    console.print(f"written to {path}")
    return 1 if any(row[3] == "NOT REACHED" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
