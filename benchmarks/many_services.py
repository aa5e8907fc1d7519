"""A database as it looks after years: millions of services, written without ordering them."""

import time
from collections.abc import Callable
from datetime import date, timedelta

from sqlalchemy import Engine, text

import monitoring.forecast
from monitoring.forecast import By
from producers.scheduler.scheduler import Scheduler
from schemas.catalogue import Catalogue, Contract, Plan, Price, Subsidiary
from schemas.catalogue.store import CatalogueCache, save, set_rollout
from schemas.clock import SystemClock
from schemas.settings import Settings
from schemas.values import Money, Period, Universe

CHUNK = 250_000
BRANDS = ("ovh", "kimsufi", "soyoustart")
TERMS = Contract("terms", 2, "Terms", "https://example.com/terms/2")
SUBSIDIARIES = (
    Subsidiary("FR", "Hosting SAS", "FR", "EUR", "Europe/Paris", "fr"),
    Subsidiary("IE", "Hosting Ltd", "IE", "EUR", "Europe/Dublin", "en"),
    Subsidiary("GB", "Hosting UK Ltd", "GB", "GBP", "Europe/London", "en"),
    Subsidiary("PL", "Hosting Sp. z o.o.", "PL", "PLN", "Europe/Warsaw", "pl"),
    Subsidiary("CA", "Hosting Inc.", "CA", "CAD", "America/Toronto", "en"),
)


def fill(
    engine: Engine,
    count: int,
    *,
    today: date,
    plans: int = 100,
    customers: int = 2000,
    reminded_days: int = 36,
    watch: Callable[[int], None] = lambda done: None,
) -> None:
    """Write ``count`` services into a migrated database without any, the same ones every time.

    Of each hundred services one is past its expiry and unpaid and two are terminated; the others
    expire on the days of the year from ``today`` on. Ten are renewed by hand, five are stopped;
    four have no payment method, six one that expires within the year (there is a method for five
    services); three are under contract
    terms that have changed since. One brand is not rolled out in one subsidiary. Nothing is due:
    the next step of each is a reminder, tomorrow or later.

    Args:
        engine: as the database's owner.
        plans: how many there are, of all universes and brands, each sold in five subsidiaries.
        customers: whom the services are spread over.
        reminded_days: what expires within so many days has its price fixed by a first reminder;
            36 days are a tenth of the services.
        watch: told how many services are there, from time to time.
    """
    with engine.begin() as tx:
        save(tx, catalogue(plans))
        for brand in BRANDS:
            for subsidiary in SUBSIDIARIES:
                if (brand, subsidiary.code) != ("soyoustart", "CA"):
                    set_rollout(tx, brand, subsidiary.code, date(2020, 1, 1))
        tx.execute(text("DELETE FROM recomputations"))
        tx.execute(_CUSTOMERS, {"customers": customers})
        methods = max(count // 5, 1)
        tx.execute(_METHODS, {"methods": methods, "customers": customers, "today": today})
    common = {"today": today, "plans": plans, "customers": customers, "methods": methods}
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count) - 1
        with engine.begin() as tx:
            tx.execute(_SERVICES, {**common, "first": first, "last": last})
        watch(last + 1)
    with engine.begin() as tx:
        tx.execute(_RENEWALS, {"today": today, "days": reminded_days})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) customers, payment_methods, services, renewals"))


def catalogue(plans: int) -> Catalogue:
    """So many plans, of each universe and brand in turn, sold for a month and for a year."""
    return Catalogue(
        SUBSIDIARIES,
        [TERMS],
        [
            Plan(
                code=f"plan-{n}",
                name=f"Plan {n}",
                universe=tuple(Universe)[n % len(Universe)],
                brand=BRANDS[n % len(BRANDS)],
                driver=tuple(Universe)[n % len(Universe)].value,
                contract=TERMS.code,
                prices={
                    (subsidiary.code, Period(months)): Price(
                        Money(0, subsidiary.currency),
                        Money((999 + n) * months, subsidiary.currency),
                    )
                    for subsidiary in SUBSIDIARIES
                    for months in (1, 12)
                },
            )
            for n in range(plans)
        ],
    )


_CUSTOMERS = text("""
    INSERT INTO customers (id, subsidiary, country, language, email, payment_method_id)
    SELECT 'customer-' || n, u.code, u.definition->>'country', u.definition->>'language',
           'customer-' || n || '@example.com', md5('method-' || n)::uuid
    FROM generate_series(0, :customers - 1) AS n
    JOIN (SELECT *, row_number() OVER (ORDER BY code) - 1 AS number, count(*) OVER () AS count
          FROM subsidiaries) AS u ON u.number = n % u.count
""")

_METHODS = text("""
    INSERT INTO payment_methods (id, customer_id, token, expires_on)
    SELECT md5('method-' || n)::uuid, 'customer-' || n % :customers, 'tok-' || n,
           CASE WHEN n % 96 < 6
                THEN CAST(:today AS date)
                    + CAST((hashint8extended(n, 11) & 2147483647) % 365 AS integer) END
    FROM generate_series(0, CAST(:methods AS bigint) - 1) AS n
""")

# Everything follows from n, by hashes, so that one property says nothing about another.
_SERVICES = text("""
    WITH drawn AS (
        SELECT n,
               hashint8extended(n, 1) & 2147483647 AS whose,
               hashint8extended(n, 2) & 2147483647 AS which,
               (hashint8extended(n, 3) & 2147483647) % 100 AS fate,
               (hashint8extended(n, 4) & 2147483647) % 100 AS will,
               (hashint8extended(n, 5) & 2147483647) % 100 AS means,
               (hashint8extended(n, 6) & 2147483647) % 100 AS word,
               (hashint8extended(n, 7) & 2147483647) % 365 AS days,
               CASE WHEN hashint8extended(n, 8) & 3 = 0 THEN 12 ELSE 1 END AS months,
               1 + (hashint8extended(n, 9) & 2147483647) % 12 AS periods
        FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
    ), placed AS (
        SELECT d.*, c.id AS customer, md5('method-' || d.whose % :methods)::uuid AS method,
               p.code AS plan, p.universe, p.brand, p.driver, c.subsidiary,
               u.definition->>'timezone' AS zone,
               (CAST(:today AS date)
                   + CASE WHEN d.fate = 0 THEN -1 - CAST(d.days % 20 AS integer)
                          WHEN d.fate < 3 THEN -31 - CAST(d.days AS integer)
                          ELSE 1 + CAST(d.days AS integer) END
                   - make_interval(months => CAST(months * periods AS integer)))::date AS anchor
        FROM drawn AS d
        JOIN customers AS c ON c.id = 'customer-' || d.whose % :customers
        JOIN plans AS p ON p.code = 'plan-' || d.which % :plans
        JOIN subsidiaries AS u ON u.code = c.subsidiary
    ), timed AS (
        SELECT *,
               (anchor + make_interval(months => CAST(months * periods AS integer)))::date AS day,
               CASE WHEN fate IN (1, 2) THEN 'terminated'
                    WHEN fate = 0 AND days % 20 > 5 THEN 'suspended' ELSE 'active' END AS state
        FROM placed
    ), told AS (
        SELECT *, CASE state WHEN 'terminated' THEN 'absent' ELSE state END AS resource,
               (SELECT min(day - before + time '08:00')
                FROM unnest('{30,15,7,3,1}'::int[]) AS before
                WHERE day - before > CAST(:today AS date)) AS reminded_at
        FROM timed
    )
    INSERT INTO services (
        id, customer_id, subsidiary, plan, universe, brand, driver, configuration, period_months,
        mode, state, anchor, paid_periods, imported_periods, expires_at, desired, generation,
        confirmed, confirmed_until, resource_id, suspended_at, payment_method_id,
        agreed_version, next_step, next_step_at, next_subject)
    SELECT md5('service-' || n)::uuid, customer, subsidiary, plan, universe, brand, driver,
           jsonb_build_object('domain', 'example-' || n || '.org'), months,
           CASE WHEN will < 10 THEN 'manual' WHEN will < 15 THEN 'stop' ELSE 'automatic' END,
           state, anchor, periods, periods, day::timestamp AT TIME ZONE zone, resource, 1,
           resource, day, 'resource-' || n,
           CASE state WHEN 'suspended' THEN (day + 5)::timestamp AT TIME ZONE zone END,
           CASE WHEN means >= 4 THEN method END,
           CASE WHEN word < 3 THEN 1 ELSE 2 END,
           CASE WHEN state <> 'terminated' THEN 'remind' END,
           CASE WHEN state <> 'terminated'
                THEN coalesce(reminded_at, CAST(:today AS date) + 1 + time '08:00')
                     AT TIME ZONE zone END,
           CASE WHEN state <> 'terminated' THEN md5('service-' || n)::uuid END
    FROM told
""")

_RENEWALS = text("""
    INSERT INTO renewals (service_id, period_number, expires_on, net, currency)
    SELECT s.id, s.paid_periods + 1, s.confirmed_until, p.renewal, p.currency
    FROM services AS s JOIN prices AS p
      ON (p.plan, p.subsidiary, p.period_months) = (s.plan, s.subsidiary, s.period_months)
    WHERE s.state <> 'terminated' AND s.confirmed_until < CAST(:today AS date) + :days
""")


def make_due(engine: Engine, due: int) -> None:
    """So many services, spread over all there are, are to be asked for payment now."""
    with engine.begin() as tx:
        tx.execute(text("DELETE FROM tasks"))
        tx.execute(text("DELETE FROM lane_pauses"))
        tx.execute(_MAKE_DUE, {"due": due})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM services"))
        connection.execute(text("CHECKPOINT"))


def sweep(engine: Engine, due: int) -> float:
    """Seconds until a scheduler has handed over what is due, and nothing else."""
    scheduler = Scheduler(engine, CatalogueCache(), SystemClock(), Settings())
    scheduler.round()  # the first of a day takes the forecast's snapshot, too
    make_due(engine, due)
    started = time.perf_counter()
    found = scheduler.round()
    seconds = time.perf_counter() - started
    if found != due:
        raise RuntimeError(f"{found} services were handed over, not {due}")
    return seconds


def forecast(engine: Engine, today: date) -> float:
    """Seconds for what falls due within a year, by month."""
    started = time.perf_counter()
    with engine.begin() as tx:
        rows = monitoring.forecast.forecast(
            tx, today=today, until=today + timedelta(days=365), by=By.MONTH
        )
    seconds = time.perf_counter() - started
    if not rows:
        raise RuntimeError("nothing falls due")
    return seconds


# By their ids, which say nothing about where they lie.
_MAKE_DUE = text("""
    UPDATE services SET next_step = 'request', next_step_at = now() - interval '1 hour',
        next_subject = id
    WHERE id IN (SELECT id FROM services WHERE state = 'active' ORDER BY id LIMIT :due)
""")
