"""Failed work among many services: how fast it is counted by reason, and retried in bulk."""

import time
from collections.abc import Callable
from datetime import date

from sqlalchemy import Engine, text

from autorenew.local.fleet import UNIVERSES, PrivateFleet
from benchmarks import many_services
from producers import history
from producers.control import bulk
from producers.control.groups import groups
from producers.control.selection import Filters
from producers.history import Operator
from schemas.values import BulkKind

TIMEOUT_SECONDS = 600.0
PLANS = 100

# What was paid and not extended: of four drivers, for some reasons of theirs.
_FAIL = text("""
    WITH chosen AS (
        SELECT id, universe, driver, row_number() OVER (ORDER BY id) AS n
        FROM services WHERE state = 'active' ORDER BY id LIMIT :failures
    ), put AS (
        INSERT INTO tasks (name, subject, queue, lane, state, run_at, reason, code, error, attempts,
            total_attempts, first_failed_at)
        SELECT 'converge', id, universe, 'driver:' || driver, 'failed',
            now() - make_interval(secs => n % 86400),
            CASE n % :codes WHEN 0 THEN 'driver_unavailable' ELSE 'driver_refused' END,
            CASE n % :codes WHEN 0 THEN NULL ELSE 'reason_' || n % :codes END,
            'the infrastructure says that there is no room left in the datacenter of ' || id,
            1, 8, now() - make_interval(secs => n % 86400 + 3600)
        FROM chosen
    ), routed AS (
        INSERT INTO routes (queue, name, lane)
        SELECT DISTINCT universe, 'converge', 'driver:' || driver FROM chosen
        ON CONFLICT DO NOTHING
    )
    UPDATE services AS s SET confirmed_until = s.confirmed_until - 10
    FROM chosen WHERE chosen.id = s.id
""")


def fill(
    engine: Engine,
    services: int,
    failures: int,
    *,
    today: date,
    watch: Callable[[int], None],
    codes: int = 5,
) -> None:
    """So many services, and of the active ones so many that could not be extended.

    Args:
        codes: reasons of far sides; each driver has all of them.
    """
    many_services.fill(engine, services, today=today, plans=PLANS, watch=watch)
    with engine.begin() as tx:
        tx.execute(_FAIL, {"failures": failures, "codes": codes})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) tasks, services"))
        connection.execute(text("CHECKPOINT"))


def count(engine: Engine, filters: Filters, failures: int | None = None) -> float:
    """Seconds for `failed list --group`.

    Args:
        engine: as the role ``api``.
        failures: so many have to be found.
    """
    started = time.perf_counter()
    with engine.connect() as tx:
        found = groups(tx, filters)
    seconds = time.perf_counter() - started
    total = sum(group.tasks for group in found)
    if not total or total != (failures or total):
        raise RuntimeError(f"{total} failures were found, not {failures}")
    return seconds


def start(fleet: PrivateFleet) -> None:
    """One relay, one scheduler, one worker process for the universes."""
    fleet.start_relay()
    fleet.start_scheduler()
    fleet.start_worker(*UNIVERSES, threads=1)
    fleet.wait_for_consumers()


_LEFT = text("""
    SELECT (SELECT count(*) FROM tasks WHERE state = 'ready' AND NOT batched)
        + (SELECT coalesce(sum(size), 0) FROM batches WHERE state = 'ready')
""")


def retry(engine: Engine, failures: int, watch: Callable[[int], None]) -> tuple[float, float]:
    """Retry everything at once.

    Returns:
        Seconds until all are dispatched, and until all have ended.
    """
    started = time.perf_counter()
    with engine.begin() as tx, history.acting(Operator("benchmark")):
        id = bulk.start(tx, BulkKind.RETRY, Filters(), all_at_once=True).id
    dispatched = 0.0
    while True:
        with engine.connect() as tx:
            operation = bulk.get(tx, id)
            if not dispatched and operation.sent == failures and not tx.execute(_LEFT).scalar():
                dispatched = time.perf_counter() - started
        watch(operation.done)
        seconds = time.perf_counter() - started
        if operation.is_over:
            if operation.done != failures:
                raise RuntimeError(f"{operation.done} of {failures} were done")
            return dispatched or seconds, seconds
        if seconds > TIMEOUT_SECONDS:
            raise TimeoutError(f"{operation.done} of {failures} after {TIMEOUT_SECONDS:g} s")
        time.sleep(0.1)
