"""Imports existing services of another system from a file, by COPY.

A row is imported once: the id of its service is derived from driver and resource. Importing a file
again, also after an interruption, adds only what is missing. Good rows are imported; bad rows are
reported with all their problems.
"""

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from producers.imports.arrivals import (
    Arrivals,
    copy_agreements,
    copy_customers,
    copy_methods,
    copy_services,
)
from producers.imports.prospects import Prospect
from producers.imports.rows import CsvRows, Form, NdjsonRows, Row, RowFormat, lines, parse
from producers.imports.services import Books, Customer, Judge
from producers.intake.agreements import method_id
from producers.intake.realms import may_touch
from schemas import locks
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.errors import AutorenewError
from schemas.locks import Lock
from schemas.messages import Problem
from schemas.values import derived_id

_STILL_THERE = text("SELECT 1")

# Rows in one transaction. An interrupted import loses at most two chunks: the one being written and
# the one being read.
CHUNK = 10_000


class Reject(NamedTuple):
    """A row that was not imported.

    Attributes:
        row: as it was read, its payment method masked.
    """

    line: int
    problems: list[Problem]
    row: str


@dataclass(slots=True)
class Counts:
    """
    Attributes:
        prospects: what becomes of the imported ones.
    """

    imported: int = 0
    known: int = 0
    rejected: int = 0
    prospects: list[Prospect] = field(default_factory=list, compare=False)


def import_services(
    engine: Engine,
    catalogue: CatalogueCache,
    clock: Clock,
    source: BinaryIO,
    form: Form,
    rejects: Callable[[Reject], None],
    progress: Callable[[int], None] = lambda rows: None,
    *,
    realm: str,
    dry_run: bool = False,
    chunk: int = CHUNK,
) -> Counts:
    """Import the services of a file.

    Args:
        engine: as the database role ``api``.
        source: one row a line; CSV begins with a header.
        rejects: called with each rejected row, in the order of the file.
        progress: called with the number of rows done since the last call.
        realm: whose customers those are that the file brings.
        dry_run: report what would happen and write nothing.
        chunk: rows in one transaction.

    Raises:
        AutorenewError: ``header_invalid`` or ``import_running``: nothing was written;
            ``import_disturbed``: earlier chunks are imported, import the file again.
        SQLAlchemyError: as ``import_disturbed``.
    """
    numbered = lines(source)
    rows: RowFormat = NdjsonRows()
    if form == "csv":
        _, header = next(numbered, (1, b""))
        rows = CsvRows(header)
    counts = Counts()
    judge = Judge(clock.now(), realm=realm, keep=dry_run)
    with _alone(engine) as lock, ThreadPoolExecutor(1, "import") as writer, _without_collector():
        writing: Future[None] | None = None
        # A chunk is read and checked while the one before it is written.
        while batch := list(islice(numbered, chunk)):
            good, refused = _parse(rows, batch)
            lock.execute(_STILL_THERE)
            # Not in the transaction that holds the lock: it would hold what it reads, too.
            with engine.begin() as tx:
                current = catalogue.current(tx)
                ids = _ids(good, current)
                books = _read(tx, good, ids)
            arrivals, unfit = judge.chunk(good, ids, books, current)
            refused |= unfit
            if writing is not None:
                writing.result()
            if not dry_run and arrivals.services:
                writing = writer.submit(_write, engine, arrivals)
            counts.imported += len(arrivals.services)
            counts.rejected += len(refused)
            counts.known += len(batch) - len(arrivals.services) - len(refused)
            for line, raw in batch:
                if line in refused:
                    rejects(Reject(line, refused[line], rows.shown(raw)))
            progress(len(batch))
        if writing is not None:
            writing.result()
    counts.prospects = judge.prospects.counted()
    return counts


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """Only one import at a time: two could both take a row for new while the other writes it.

    Yields the connection that holds the lock, in a transaction that lasts as long and writes
    nothing: it keeps no row from being vacuumed, and its end gives the lock up whatever happens.
    """
    with engine.begin() as tx:
        if not locks.try_to_take(tx, Lock.IMPORT):
            raise AutorenewError("another import is running: wait for it", code="import_running")
        # It is silent for as long as the import works; nothing but other imports waits for it.
        tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield tx


@contextmanager
def _without_collector() -> Iterator[None]:
    """Switch the garbage collector off: rows form no cycles, and it took a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parse(
    rows: RowFormat, batch: list[tuple[int, bytes]]
) -> tuple[list[Row], dict[int, list[Problem]]]:
    """The rows of valid shape, and the problems of the others by line."""
    good = []
    refused = {}
    for line, raw in batch:
        row, problems = parse(rows, line, raw)
        if row is None:
            refused[line] = problems
        else:
            good.append(row)
    return good, refused


def _ids(rows: list[Row], catalogue: Catalogue) -> dict[int, UUID]:
    """Line -> id of its service, for rows whose plan is known."""
    return {
        row.line: derived_id("imported service", plan.driver, row.service.resource_id)
        for row in rows
        if (plan := catalogue.find_plan(row.service.plan)) is not None
    }


_SERVICES = text("SELECT id, customer_id, plan FROM services WHERE id = ANY(:ids)")
_CUSTOMERS = text(
    "SELECT id, subsidiary, payment_method_id, realm FROM customers WHERE id = ANY(:ids)"
)
_METHODS = text("SELECT id FROM payment_methods WHERE id = ANY(:ids)")
_AGREED = text(
    "SELECT customer_id, contract, max(version) FROM agreements WHERE customer_id = ANY(:ids)"
    " GROUP BY customer_id, contract"
)


def _read(tx: Connection, rows: list[Row], ids: dict[int, UUID]) -> Books:
    people = {"ids": list({row.service.customer for row in rows})}
    books = Books()
    for row in tx.execute(_SERVICES, {"ids": list(set(ids.values()))}):
        books.services[row.id] = row.customer_id, row.plan
    for row in tx.execute(_CUSTOMERS, people):
        books.customers[row.id] = Customer(row.subsidiary, row.payment_method_id, row.realm)
    if books.customers:
        for customer, contract, version in tx.execute(_AGREED, people):
            books.agreed[customer, contract] = version
    named = {
        method_id(row.service.customer, row.service.payment_method, row.service.payment_gateway)
        for row in rows
        if row.service.payment_method is not None and row.service.customer in books.customers
    }
    saved = {c.payment_method_id for c in books.customers.values() if c.payment_method_id}
    if named | saved:
        books.methods.update(tx.execute(_METHODS, {"ids": list(named | saved)}).scalars())
    return books


def _write(engine: Engine, arrivals: Arrivals) -> None:
    """Write a chunk, in one transaction."""
    with engine.begin() as tx:
        written = copy_customers(tx, arrivals.customers)
        if written < len(arrivals.customers):
            _check_customers(tx, arrivals)
        copy_methods(tx, arrivals.methods)
        copy_agreements(tx, arrivals.agreements)
        copy_services(tx, arrivals.services)
        tx.execute(_EVENTS)


_EVENTS = text(
    "INSERT INTO events (subject, name) SELECT id, 'service.imported' FROM incoming_services"
)


def _check_customers(tx: Connection, arrivals: Arrivals) -> None:
    """Check customers that an order created in the meantime: they must be the same."""
    wanted = {row.id: (row.subsidiary, row.realm) for row in arrivals.customers}
    for row in tx.execute(_CUSTOMERS, {"ids": list(wanted)}):
        subsidiary, realm = wanted[row.id]
        if row.subsidiary != subsidiary or not may_touch(realm, row.realm):
            raise AutorenewError(
                f"customer {row.id} appeared in {row.subsidiary} in the meantime: import again",
                code="import_disturbed",
            )
