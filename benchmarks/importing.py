"""Services of an old world: every one with a customer, a payment method and an agreement."""

import io
import time
import uuid
from collections.abc import Iterator
from datetime import date, timedelta

from sqlalchemy import Engine

from benchmarks.orders import catalogue
from producers.imports.importing import import_services
from schemas.catalogue.store import CatalogueCache, save, set_rollout
from schemas.clock import SystemClock

PLANS = 100
# A customer has so many services.
SERVICES = 2
_FIRST = date(2026, 1, 1)


def prepare(owner: Engine) -> None:
    """Put in force what the rows name, with renewal switched on."""
    with owner.begin() as tx:
        save(tx, catalogue(PLANS))
        set_rollout(tx, "ovh", "FR", _FIRST)


def rows(count: int) -> Iterator[bytes]:
    """Lines of CSV, its header first; resources that were never used before."""
    run = uuid.uuid4().hex[:12]
    yield (
        b"customer,plan,period,resource_id,expires_on,mode,anchor,contract_version,"
        b"payment_method,payment_method_expires,configuration,subsidiary,country,language,email\n"
    )
    for n in range(count):
        expires_on = _FIRST + timedelta(days=n * 7 % 365)
        anchor = expires_on.replace(year=2024) if n % 2 else ""
        mode = ("automatic", "automatic", "manual", "stop")[n % 4]
        owner = n // SERVICES
        yield (
            f"customer-{run}-{owner},plan-{n % PLANS},P1M,r-{run}-{n},{expires_on},{mode},{anchor},"
            f'1,tok-{owner},2030-12,"{{""domain"": ""site-{n}.example.com""}}",'
            f"FR,FR,fr,customer-{owner}@example.com\n"
        ).encode()


def run(engine: Engine, count: int) -> float:
    """Import so many services as the role ``api``; returns seconds."""
    source = io.BytesIO(b"".join(rows(count)))
    rejects: list[object] = []
    started = time.perf_counter()
    counts = import_services(
        engine, CatalogueCache(), SystemClock(), source, "csv", rejects.append, realm="shop"
    )
    elapsed = time.perf_counter() - started
    if counts.imported != count:
        raise RuntimeError(f"not imported: {counts}, {rejects[:1]}")
    return elapsed
