"""Orders, services and money: what there is, what is in doubt, what today brought."""

from collections.abc import Collection, Iterable
from datetime import timedelta

from sqlalchemy import Connection, text

from monitoring.exporter.collecting import Found
from monitoring.exporter.families import (
    MONEY,
    OLDEST_UNDELIVERED,
    OLDEST_UNKNOWN_CHARGE,
    OLDEST_UNKNOWN_OPERATION,
    ORDERS,
    SERVICES,
    SERVICES_DUE,
    UNDELIVERABLE,
    UNKNOWN_CHARGES,
    UNKNOWN_OPERATIONS,
)
from monitoring.forecast import By, Decision, forecast
from schemas.fields import CURRENCY_DIGITS
from schemas.values import OrderState

DUE_DAYS = 30
OVERDUE = "overdue"
OPEN_STATES = (OrderState.ACCEPTED, OrderState.PRICED, OrderState.PAID)
FLOWS = ("invoiced", "charged", "declined", "refunded", "credited")

# A refused order has neither an end nor a customer.
_OPEN = text("""
    SELECT state, count(*) AS orders,
        CAST(extract(epoch FROM clock_timestamp() - min(accepted_at)) AS float8) AS age
    FROM orders WHERE ended_at IS NULL AND customer_id IS NOT NULL GROUP BY state
""")
# Read by the process that asks alone: nobody waits for it.
_ALONE = text("SET LOCAL max_parallel_workers_per_gather = 0")
_ENDED = text("""
    SELECT state, count(*) AS orders FROM orders
    WHERE ended_at IS NOT NULL OR customer_id IS NULL GROUP BY state
""")


def open_orders(tx: Connection) -> Found:
    """Orders that have not ended; refused ones have from the beginning."""
    rows = tx.execute(_OPEN).all()
    counts = {(str(state),): 0.0 for state in OPEN_STATES} | {(r.state,): r.orders for r in rows}
    oldest = max((r.age for r in rows), default=0.0)
    return {ORDERS: counts, OLDEST_UNDELIVERED: {(): oldest}}


def ended_orders(tx: Connection) -> Found:
    """The others, of all years."""
    tx.execute(_ALONE)
    counts = {(str(state),): 0.0 for state in OrderState if state not in OPEN_STATES}
    return {ORDERS: counts | {(r.state,): r.orders for r in tx.execute(_ENDED)}}


_SERVICES = text("""
    SELECT universe, brand, state, mode, count(*) AS services FROM services GROUP BY 1, 2, 3, 4
""")


def services(tx: Connection) -> Found:
    """All services."""
    tx.execute(_ALONE)
    rows = tx.execute(_SERVICES)
    return {SERVICES: {(r.universe, r.brand, r.state, r.mode): r.services for r in rows}}


_TODAY = text("""
    SELECT CAST((now() + coalesce((SELECT ahead FROM virtual_clock), interval '0'))
        AT TIME ZONE 'UTC' AS date)
""")


def due(tx: Connection) -> Found:
    """What expires within the next days, by what their customers decided."""
    today = tx.execute(_TODAY).scalar_one()
    counts = {(str(decision),): 0.0 for decision in Decision} | {(OVERDUE,): 0.0}
    until = today + timedelta(days=DUE_DAYS)
    for row in forecast(tx, today=today, until=until, by=By.MONTH):
        counts[(OVERDUE if row.start is None else str(row.decision),)] += row.services
    return {SERVICES_DUE: counts}


_CHARGES = text("""
    SELECT count(*) AS charges,
        CAST(extract(epoch FROM clock_timestamp() - min(started_at)) AS float8) AS age
    FROM (
        SELECT started_at FROM charges WHERE state = 'unknown'
        UNION ALL SELECT started_at FROM refunds WHERE state = 'unknown'
    ) AS u
""")


def unknown_charges(tx: Connection) -> Found:
    """Charges and refunds in doubt."""
    row = tx.execute(_CHARGES).one()
    return {UNKNOWN_CHARGES: {(): row.charges}, OLDEST_UNKNOWN_CHARGE: {(): row.age or 0.0}}


# Starts from tasks, ready and failed, since each operation in doubt has one: the operations of all
# years are not read. An index of those in doubt would cost each operation its heap-only updates.
_OPERATIONS = text("""
    SELECT s.driver, count(*) AS operations,
        CAST(extract(epoch FROM clock_timestamp() - min(o.started_at)) AS float8) AS age
    FROM tasks AS t
    JOIN operations AS o ON o.service_id = t.subject AND o.state = 'unknown'
    JOIN services AS s ON s.id = t.subject
    WHERE t.name = 'converge' GROUP BY s.driver
""")
_DRIVERS = text("SELECT DISTINCT substr(lane, 8) FROM routes WHERE lane LIKE 'driver:%'")


def unknown_operations(tx: Connection) -> Found:
    """Operations in doubt, by driver."""
    rows = tx.execute(_OPERATIONS).all()
    counts = {(driver,): 0.0 for driver in tx.execute(_DRIVERS).scalars()}
    counts |= {(r.driver,): r.operations for r in rows}
    oldest = max((r.age for r in rows), default=0.0)
    return {UNKNOWN_OPERATIONS: counts, OLDEST_UNKNOWN_OPERATION: {(): oldest}}


_EMAILS = text("""
    SELECT (SELECT count(*) FROM emails WHERE refused_at IS NOT NULL
            AND sent_at IS NULL AND given_up_at IS NULL)
        + (SELECT count(*) FROM order_emails WHERE refused_at IS NOT NULL
            AND sent_at IS NULL AND given_up_at IS NULL)
""")


def emails(tx: Connection) -> Found:
    """E-mails that cannot be delivered."""
    return {UNDELIVERABLE: {(): tx.execute(_EMAILS).scalar_one()}}


_CURRENCIES = text("SELECT DISTINCT definition->>'currency' FROM subsidiaries")
# Documents have the day of their subsidiary, attempts a moment; days are found by block.
_MONEY = text("""
    WITH today AS MATERIALIZED (
        SELECT date_trunc('day', now(), 'UTC') AS midnight, CAST(:today AS date) AS day
    )
    SELECT 'invoiced' AS flow, currency, sum(total) AS amount
    FROM invoices WHERE issued_on >= (SELECT day FROM today) AND issued_on = (SELECT day FROM today)
    GROUP BY currency
    UNION ALL
    SELECT 'credited', currency, sum(total)
    FROM credit_notes
    WHERE issued_on >= (SELECT day FROM today) AND issued_on = (SELECT day FROM today)
    GROUP BY currency
    UNION ALL
    SELECT CASE state WHEN 'succeeded' THEN 'charged' ELSE 'declined' END, currency, sum(amount)
    FROM charges
    WHERE decided_at >= (SELECT midnight FROM today) AND state IN ('succeeded', 'declined')
    GROUP BY 1, 2
    UNION ALL
    SELECT 'refunded', currency, sum(amount)
    FROM refunds WHERE decided_at >= (SELECT midnight FROM today) AND state = 'succeeded'
    GROUP BY currency
""")


def money(tx: Connection) -> Found:
    """What today brought."""
    currencies = tx.execute(_CURRENCIES).scalars().all()
    rows = tx.execute(_MONEY, {"today": tx.execute(_TODAY).scalar_one()})
    return {MONEY: amounts(((r.flow, r.currency, int(r.amount)) for r in rows), currencies)}


def amounts(
    found: Iterable[tuple[str, str, int]], currencies: Collection[str]
) -> dict[tuple[str, ...], float]:
    """Amounts in minor units as numbers in the major unit; 0 where there is nothing.

    >>> amounts([("charged", "JPY", 500), ("charged", "EUR", 250)], [])
    {('charged', 'JPY'): 500.0, ('charged', 'EUR'): 2.5}
    """
    values: dict[tuple[str, ...], float] = {
        (flow, currency): 0.0 for flow in FLOWS for currency in currencies
    }
    for flow, currency, amount in found:
        values[flow, currency] = amount / 10 ** CURRENCY_DIGITS[currency]
    return values
