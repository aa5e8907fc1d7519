"""Measure the fleet against its floor and against peers; print a table, write JSON.

Every run has a database, a virtual host and processes of its own, on one PostgreSQL and one
RabbitMQ. Runs of different kinds are interleaved, so that a machine that drifts drifts for all.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from autorenew.local import end_on_sigterm
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from benchmarks.bench import Bench
from benchmarks.cases import CASES, ONCE
from benchmarks.reporting import FAILURES, MANY_SERVICES, Results, report


def _quarter_of_memory() -> str:
    """As docs/how-to/scale-out.md has it for PostgreSQL."""
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 4 >> 20}MB"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, python = os.cpu_count(), platform.python_version()
    return f"{cores} cores, {memory:.0f} GiB, {platform.machine()}, Python {python}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--orders", type=int, default=20_000, help="orders in a run (20000)")
    parser.add_argument("--services", type=int, default=MANY_SERVICES,
                        help=f"among which failed work is counted ({MANY_SERVICES})")  # fmt: skip
    parser.add_argument("--failures", type=int, default=FAILURES,
                        help=f"that are counted, and retried in bulk ({FAILURES})")  # fmt: skip
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
        postgres = PrivatePostgres(folder / "postgresql", buffers=_quarter_of_memory())
        rabbitmq = PrivateRabbitMQ(folder / "rabbitmq")
        try:
            postgres.start()
            rabbitmq.start()
            bench = Bench(
                postgres, rabbitmq, folder, console, options.orders, results, options.services,
                options.failures,
            )  # fmt: skip
            for number in range(options.runs):
                console.print(f"run {number + 1} of {options.runs}")
                for case in options.only:
                    if number == 0 or case not in ONCE:
                        CASES[case](bench)
        finally:
            rabbitmq.stop()
            postgres.remove()
    return report(console, results, options.json)


if __name__ == "__main__":
    sys.exit(main())
