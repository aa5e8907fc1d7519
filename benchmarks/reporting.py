"""What was measured, what is wanted, and whether that is reached."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import latency, outside, provisioning

RESULTS = Path("benchmarks/results")
ONE_EACH = "renewals, one to a customer"
AMONG_MANY = "renewals among ten times as many"
FEW_SERVICES, MANY_SERVICES = 100_000, 5_000_000
FEW_AUDITED, MANY_AUDITED = 5_000, 50_000
DUE = 10_000
ORDERS_SINCE = 100
FORECAST_SECONDS = 5.0
FAILURES = 100_000
COUNTED, RETRIED = "failed work by group", "a bulk retry, all dispatched"
CONSOLE = "console page Failed"
SCRAPE = "the slowest scrape of the exporter"
EXPORTER, IDLE = "the exporter, with its queries", "an idle fleet"
METERED, UNMETERED = "orders, with metrics and exporter", "orders, without"
MOST_SECONDS = {COUNTED: 0.3, RETRIED: 30.0, SCRAPE: 1.0, CONSOLE: 0.3}
MOST_SHARE = {EXPORTER: 0.05, IDLE: 0.03}
OUTSIDE = "outside calls of 0.3 and 0.5 s"
ALONE = "their far side by itself"
ONE_PROCESS = "provisioning, calls of 50 ms, 1 process"
MANY_PROCESSES = f"provisioning, calls of 50 ms, {provisioning.MANY_PROCESSES} processes"
AT_ONCE = f"provisioning, {provisioning.MANY_AT_ONCE} calls of 0.5 s at once, 1 process"
SNAPSHOT_SECONDS = 60.0
ROUNDS = f"orders for {SNAPSHOT_SECONDS:.0f} s"
SNAPSHOT = f"{ROUNDS}, a snapshot open"
NO_EVENTS, WITH_EVENTS = "orders, without events", "orders, with events"
EVENT_MS = 50.0
CALM = "three universes, a fourth beside them"
HANGING = "three universes, the fourth hangs"
AMQP_INTAKE = "AMQP intake, one consumer"
HTTP_ONE = "orders over HTTP, one each"
HTTP_MANY = "orders over HTTP, 500 each"
LEAST = {
    AMQP_INTAKE: 4000,
    HTTP_ONE: 1500,
    HTTP_MANY: 4000,
    "renewals": 2000,
    ONE_EACH: 2500,
    "import": 10_000,
    OUTSIDE: 600,
    ALONE: 3 * 600,
}


@dataclass
class Results:
    """What was measured; rates in orders a second, one entry a run."""

    machine: str
    started: str
    orders: int
    rates: dict[str, list[float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)
    event_latency_ms: list[float] = field(default_factory=list)
    http_ms: list[float] = field(default_factory=list)
    """Of each request with one order."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of what is measured by its time, one entry a run."""
    shares: dict[str, list[float]] = field(default_factory=dict)
    """Of one core."""
    worker_mb: list[float] = field(default_factory=list)
    calling_mb: list[float] = field(default_factory=list)
    """Of a process with 1,000 calls under way."""

    def median_seconds(self, case: str) -> float | None:
        return statistics.median(self.seconds[case]) if self.seconds.get(case) else None

    def median(self, case: str) -> float | None:
        return statistics.median(self.rates[case]) if self.rates.get(case) else None


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
    yield from _shares(results)
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
    if results.event_latency_ms:
        value = latency.percentile(results.event_latency_ms, 50)
        verdict = _verdict(value <= EVENT_MS)
        yield "an event, p50", f"{value:.0f} ms", f"at most {EVENT_MS:g} ms", verdict
        value = latency.percentile(results.event_latency_ms, 99)
        yield "an event, p99", f"{value:.0f} ms", "", ""
    if results.http_ms:
        value = latency.percentile(results.http_ms, 99)
        verdict = _verdict(value < 100)
        yield f"{HTTP_ONE}, p99", f"{value:.0f} ms", "under 100 ms", verdict
    rate = results.median(OUTSIDE)
    if rate:
        ratio = rate / outside.BOUND
        yield (
            f"{OUTSIDE} / calls at once by their time",
            f"{ratio:.2f}",
            "at least 0.8",
            _verdict(ratio >= 0.8),
        )
    yield from _ratios(results)
    if results.calling_mb:
        largest = max(results.calling_mb)
        wanted = "at most 200 MB"
        yield "a process with 1,000 calls", f"{largest:.0f} MB", wanted, _verdict(largest <= 200)
    if results.worker_mb:
        largest = max(results.worker_mb)
        yield "largest worker", f"{largest:.0f} MB", "under 120 MB", _verdict(largest < 120)


def _ratios(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """Two rates, or a rate and what is possible."""
    for name, rate, other, least in (
        (f"{provisioning.MANY_PROCESSES} processes / 1", results.median(MANY_PROCESSES),
         results.median(ONE_PROCESS), 3.0),
        (f"{AT_ONCE} / bound", results.median(AT_ONCE), provisioning.BOUND, 0.85),
        (f"{SNAPSHOT} / without", results.median(SNAPSHOT), results.median(ROUNDS), 0.9),
        (f"{HANGING} / calm", results.median(HANGING), results.median(CALM), 0.95),
        (f"{WITH_EVENTS} / without", results.median(WITH_EVENTS), results.median(NO_EVENTS), 0.9),
    ):  # fmt: skip
        if rate and other:
            yield (
                name,
                f"{rate / other:.2f}",
                f"at least {least:g}",
                _verdict(rate / other >= least),
            )


def _times(results: Results) -> Iterator[tuple[str, str, str, str]]:
    for case in results.seconds:
        seconds = results.median_seconds(case) or 0.0
        forecast = case.startswith("a forecast")
        most = FORECAST_SECONDS if forecast else MOST_SECONDS.get(case)
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
    few, many = (
        results.median_seconds(f"an audit since {ORDERS_SINCE} orders, among {count:,}")
        for count in (FEW_AUDITED, MANY_AUDITED)
    )
    if few and many:
        ratio = many / few
        yield "audit since, many / few", f"{ratio:.2f} x", "at most 1.5", _verdict(ratio <= 1.5)


def _shares(results: Results) -> Iterator[tuple[str, str, str, str]]:
    for case, shares in results.shares.items():
        share, most = statistics.median(shares), MOST_SHARE[case]
        yield (
            case, f"{share:.1%} of a core", f"at most {most:.0%}", _verdict(share <= most),
        )  # fmt: skip
    metered, unmetered = results.median(METERED), results.median(UNMETERED)
    if metered and unmetered:
        cost = 1 - metered / unmetered
        yield "cost of metrics and exporter", f"{cost:.1%}", "at most 3 %", _verdict(cost <= 0.03)


def _verdict(reached: bool) -> str:
    return "reached" if reached else "NOT REACHED"


def report(console: Console, results: Results, path: Path | None) -> int:
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
