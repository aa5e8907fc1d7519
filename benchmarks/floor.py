"""The floor: the same handlers' SQL, batch after batch, in two processes, with no queue at all."""

import multiprocessing
import time
import uuid
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier

from sqlalchemy import Engine, text

from producers import ledger
from producers.ledger import Claim, ClaimedTask
from producers.steps import BILLING, ORDERS
from schemas.clock import SystemClock
from schemas.database import connect
from schemas.settings import INSTANT, Settings
from schemas.values import Universe
from workers.bootstrap import handlers
from workers.garbage import collect_seldom
from workers.outside.calls import run_now
from workers.runtime.handlers import DatabaseHandler, OutsideHandler

PROCESSES = 2


def run(database_url: str, order_ids: Sequence[uuid.UUID], batch: int) -> float:
    """Deliver accepted orders; returns seconds, from the first batch to the last.

    The two processes start, import and connect before the clock does.
    """
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(PROCESSES + 1)
    processes = [
        context.Process(target=_work, args=(database_url, order_ids[n::PROCESSES], batch, ready))
        for n in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    ready.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    elapsed = time.perf_counter() - started
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process of the floor failed")
    return elapsed


def _work(database_url: str, ids: Sequence[uuid.UUID], batch: int, ready: Barrier) -> None:
    # Follow-ups are not enqueued: their subjects are known here.
    ledger.enqueue = lambda *_, **__: None
    settings = Settings(
        gateway_url=INSTANT, driver_urls={universe.value: INSTANT for universe in Universe}
    )
    chosen = handlers(settings, [ORDERS, BILLING, Universe.WEB], SystemClock())
    price, charge, converge = chosen[ORDERS][0], chosen[BILLING][0], chosen[Universe.WEB][0]
    engine = connect(database_url)
    engine.connect().close()
    collect_seldom()  # as every worker does
    ready.wait()
    for i in range(0, len(ids), batch):
        orders = list(ids[i : i + batch])
        _step(engine, price, orders)
        _step(engine, charge, _column(engine, "payment_requests", orders))
        _step(engine, converge, _column(engine, "services", orders))


def _column(engine: Engine, table: str, orders: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    with engine.connect() as tx:
        query = text(f"SELECT id FROM {table} WHERE order_id = ANY(:ids)")
        return list(tx.execute(query, {"ids": orders}).scalars())


def _step(engine: Engine, handler: object, subjects: Sequence[uuid.UUID]) -> None:
    tasks = tuple(ClaimedTask(subject, 1, 0, 0.0) for subject in sorted(subjects))
    claim = Claim("floor", "floor", uuid.uuid4(), tasks)
    if isinstance(handler, OutsideHandler):
        with engine.begin() as tx:
            calls, _ = handler.begin(tx, claim)
        answers = [(subject, call, run_now(handler.call(call))) for subject, call in calls]
        with engine.begin() as tx:
            handler.record(tx, claim, answers)
    else:
        inside: DatabaseHandler = handler  # type: ignore[assignment]
        with engine.begin() as tx:
            inside.run(tx, claim)
