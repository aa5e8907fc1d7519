"""Services that fall due on one day, from the sweep to extended and paid."""

import time
from collections.abc import Callable
from datetime import date, timedelta

from sqlalchemy import Engine, text

from autorenew.local.fleet import UNIVERSES, PrivateFleet
from producers.steps import BILLING
from schemas.catalogue.store import set_rollout
from schemas.clock import SystemClock

TIMEOUT_SECONDS = 600.0


def fill(engine: Engine, count: int, customers: int, *, billed: int = 0) -> None:
    """So many services that expire in three days; their customers were told so.

    Args:
        billed: periods that were billed since they were taken over.
    """
    expires_on = SystemClock().now().date() + timedelta(days=3)
    while expires_on.day > 28:  # every month has that day: the period before is a whole one
        expires_on -= timedelta(days=1)
    with engine.begin() as tx:
        set_rollout(tx, "ovh", "FR", date(2020, 1, 1))
        tx.execute(text("DELETE FROM recomputations"))
        parameters = {"count": count, "customers": customers, "expires_on": expires_on}
        parameters["billed"] = billed
        for statement in (
            _CUSTOMERS, _METHODS, _AGREEMENTS, _SERVICES, _EMAILS, _NOTICES, _EVENTS,
        ):  # fmt: skip
            tx.execute(statement, parameters)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) services"))
        connection.execute(text("CHECKPOINT"))


def start(fleet: PrivateFleet, *, threads: int = 1) -> None:
    """Everything but the scheduler."""
    fleet.start_relay()
    fleet.start_worker(BILLING, threads=threads, processes=2)
    fleet.start_worker(*UNIVERSES, threads=threads)
    fleet.wait_for_consumers()


def run(
    fleet: PrivateFleet,
    count: int,
    watch: Callable[[int], None],
    *,
    customers: int,
    billed: int = 0,
) -> float:
    """Start the scheduler; seconds until every service is paid, extended and confirmed.

    Args:
        customers, billed: as for :func:`fill`. Each customer gets one invoice.
    """
    started = time.perf_counter()
    before = invoices(fleet.owner)
    fleet.start_scheduler()
    # To count what is confirmed reads all services: not before every one of them is paid.
    while (paid := invoices(fleet.owner) - before) < customers or (
        renewed(fleet.owner, billed) < count
    ):
        done = paid * count // customers
        watch(done)
        if time.perf_counter() - started > TIMEOUT_SECONDS:
            raise TimeoutError(f"{done} of {count} services after {TIMEOUT_SECONDS:g} s")
        time.sleep(0.5)
    watch(count)
    return time.perf_counter() - started


def invoices(engine: Engine) -> int:
    """How many there are."""
    with engine.connect() as tx:
        query = "SELECT coalesce(sum(last_number), 0) FROM invoice_series"
        return int(tx.execute(text(query)).scalar_one())


def renewed(engine: Engine, billed: int = 0) -> int:
    """How many services are paid for another month, and their infrastructure has confirmed it."""
    query = """SELECT count(*) FROM services
        WHERE paid_periods = :paid AND period_months = 1
          AND confirmed_until > now() + interval '20 days'"""
    with engine.connect() as tx:
        return int(tx.execute(text(query), {"paid": billed + 2}).scalar_one())


_CUSTOMERS = text("""
    INSERT INTO customers (id, subsidiary, country, language, email, payment_method_id)
    SELECT 'renews-' || n, 'FR', 'FR', 'fr', 'renews-' || n || '@example.com',
        md5('method ' || n)::uuid
    FROM generate_series(0, :customers - 1) AS n
""")
_METHODS = text("""
    INSERT INTO payment_methods (id, customer_id, token)
    SELECT payment_method_id, id, 'tok-' || id FROM customers WHERE id LIKE 'renews-%'
""")
_AGREEMENTS = text("""
    INSERT INTO agreements (customer_id, contract, version)
    SELECT id, 'terms', 1 FROM customers WHERE id LIKE 'renews-%'
""")
_EVENTS = text("""
    INSERT INTO events (subject, name, at, task, waited, attempt, detail)
    SELECT s.id, e.name, now(), e.task, 0.1, 1,
        CASE e.name WHEN 'notice.sent' THEN jsonb_build_object('kinds', '["before-1"]'::jsonb,
            'message_id', '<' || md5('email ' || s.customer_id)::uuid || '@example.com>') END
    FROM services AS s
    CROSS JOIN (VALUES ('service.imported', NULL), ('notice.sent', 'remind')) AS e(name, task)
    -- Of those with a past it is told with that.
    WHERE :billed = 0
    ORDER BY e.name DESC
""")
_EMAILS = text("""
    INSERT INTO emails (id, customer_id, day, begun_at, sent_at)
    SELECT md5('email ' || id)::uuid, id, CURRENT_DATE, now(), now()
    FROM customers WHERE id LIKE 'renews-%'
""")
_NOTICES = text("""
    INSERT INTO notices (service_id, expires_at, kind, email_id)
    SELECT id, expires_at, 'before-1', md5('email ' || customer_id)::uuid FROM services
""")
_SERVICES = text("""
    INSERT INTO services (id, customer_id, subsidiary, plan, universe, brand, driver,
        configuration, period_months, state, anchor, paid_periods, imported_periods, expires_at,
        desired, confirmed, confirmed_until, resource_id, payment_method_id, agreed_version,
        next_step, next_step_at, next_subject)
    SELECT md5('service ' || n)::uuid, 'renews-' || n % :customers, 'FR', 'plan-0', 'web', 'ovh',
        'web', '{}', 1, 'active', CAST(:expires_on AS date) - make_interval(months => 1 + :billed),
        1 + :billed, 1,
        CAST(:expires_on AS timestamp) AT TIME ZONE 'Europe/Paris', 'active', 'active',
        :expires_on, 'web-' || n, md5('method ' || n % :customers)::uuid, 1, 'request',
        now() - interval '1 hour', md5('group ' || n % :customers)::uuid
    FROM generate_series(0, :count - 1) AS n
""")
