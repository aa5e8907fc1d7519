"""What falls due: how many services and how much money, by what their customers decided.

One aggregated snapshot a day is kept, so that a forecast can be compared with what happened.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from schemas import locks
from schemas.locks import Lock
from schemas.rules.outlook import Decision as Decision
from schemas.rules.policies import DEFAULT_POLICY
from schemas.sql import statement
from schemas.tables import forecasts
from schemas.tables.bulk import insert
from schemas.values import Money, Universe

SNAPSHOT_DAYS = 92
"""A snapshot looks so far ahead: any three months."""


class Outcome(StrEnum):
    """What became of a service that fell due."""

    RENEWED = "renewed"
    ENDED = "ended"
    OPEN = "open"


class By(StrEnum):
    """What a forecast counts by; weeks begin on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Row:
    """Services that fall due together.

    Attributes:
        start: first day of the day, week or month; None: past their expiry and still unpaid.
        net: of one more period of each, in minor units; as their customers were told, or by the
            catalogue. What has no price counts with nothing.
        held: how many of them an operator has suspended; they renew and end like the others.
    """

    start: date | None
    decision: Decision
    currency: str
    services: int
    net: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """One line of what was forecast (a decision), or of what happened (an outcome).

    Attributes:
        made_on: the day of the snapshot that it is about; None: there is none.
    """

    made_on: date | None
    what: Decision | Outcome
    currency: str
    services: int
    net: int


def forecast(
    tx: Connection,
    *,
    today: date,
    until: date,
    by: By,
    universe: Universe | None = None,
    brand: str | None = None,
) -> list[Row]:
    """What falls due from today on, and what is overdue. Each service counts once, at its next
    expiry, on its subsidiary's local date.

    Args:
        until: the first day that is left out.
    """
    _hurry(tx)
    selection = _selection(tx, today, until, universe, brand)
    rows = tx.execute(_FORECAST, selection | {"by": by.value, "detailed": False})
    found = [
        Row(r.start, Decision(r.decision), r.currency, r.services, r.net, r.held) for r in rows
    ]
    order = {decision: number for number, decision in enumerate(Decision)}
    return sorted(found, key=lambda r: (r.start or date.min, r.currency, order[r.decision]))


def take_snapshot(tx: Connection, today: date) -> int:
    """Keep what falls due in the next :data:`SNAPSHOT_DAYS` days as it looks today.

    Returns:
        How many rows it has; 0 if there is one of today already. Whoever comes second waits for
        the first one's end.
    """
    locks.take(tx, Lock.SNAPSHOT)
    # A statement of its own: it has to see what was committed before the lock was given.
    if tx.execute(_TAKEN, {"today": today}).first() is not None:
        return 0
    _hurry(tx)
    until = today + timedelta(days=SNAPSHOT_DAYS)
    selection = _selection(tx, today, until) | {"by": By.DAY.value, "detailed": True}
    # Read first, written then: what writes is not done in parallel.
    rows = [
        SnapshotRow(
            made_on=today,
            due_on=r.start,
            universe=Universe(r.universe),
            brand=r.brand,
            currency=r.currency,
            decision=Decision(r.decision),
            services=r.services,
            net=Money(r.net, r.currency),
        )
        for r in tx.execute(_FORECAST, selection)
        if r.start is not None
    ]
    if rows:
        _keep(tx, rows)
    return len(rows)


def review(
    tx: Connection, month: date, universe: Universe | None = None, brand: str | None = None
) -> list[ReviewRow]:
    """What was forecast for the expiries of a month, and what happened to them.

    The forecast is the last one that was made by the first of the month and reaches its end, or
    else the first one made in it: then both sides are about its expiries from that day on. No
    forecast at all: only what happened.

    Args:
        month: any day of it.
    """
    first = month.replace(day=1)
    until = (first + timedelta(days=31)).replace(day=1)
    oldest = until - timedelta(days=SNAPSHOT_DAYS)
    made_on = tx.execute(_MADE_ON, {"first": first, "until": until, "oldest": oldest}).scalar_one()
    _hurry(tx)
    since = max(first, made_on or first)
    selection = _selection(tx, since, until, universe, brand)
    expected = tx.execute(_EXPECTED, selection | {"made_on": made_on})
    happened = tx.execute(_HAPPENED, selection)
    found = [ReviewRow(made_on, Decision(r.what), *r[1:]) for r in expected]
    found += [ReviewRow(made_on, Outcome(r.what), *r[1:]) for r in happened]
    order = {what: number for number, what in enumerate((*Decision, *Outcome))}
    return sorted(found, key=lambda r: (r.currency, order[r.what]))


def _selection(
    tx: Connection,
    today: date,
    until: date,
    universe: Universe | None = None,
    brand: str | None = None,
) -> dict[str, Any]:
    first_charge = DEFAULT_POLICY.charges[0]
    given = tx.execute(_GIVEN).one()
    return {
        "today": today,
        "until": until,
        "universe": universe,
        "brand": brand,
        "first_charge": first_charge,
        "catch_up": DEFAULT_POLICY.catch_up,
        # A method may expire between the last expiry and the charge that comes after it.
        "latest_charge": max(0, first_charge, given.latest_charge or 0),
        "plans": given.plans,
        "currencies": given.currencies,
    }


def _hurry(tx: Connection) -> None:
    """Until the transaction ends: read all services with more than one core, and group and look
    up in memory. Sorting is off because the planner takes the groups for many."""
    tx.execute(text("SET LOCAL max_parallel_workers_per_gather = 2"))
    tx.execute(text("SET LOCAL work_mem = '128MB'"))
    tx.execute(text("SET LOCAL hash_mem_multiplier = 4"))
    tx.execute(text("SET LOCAL enable_sort = off"))


# The current version of each plan's contract, its first day of charging and how many periods are
# charged together at most; the currency of each subsidiary. Given to the statement below as values:
# each join over all services took 5 to 10 % of its time.
_GIVEN = text("""
    SELECT CAST(coalesce(json_object_agg(l.code, json_build_object(
               'version', k.version, 'first_charge', y.definition->'charges'->0,
               'catch_up', y.definition->'catch_up')), '{}') AS text)
               AS plans,
           max(CAST(y.definition->'charges'->>0 AS integer)) AS latest_charge,
           (SELECT CAST(coalesce(json_object_agg(code, definition->>'currency'), '{}') AS text)
            FROM subsidiaries) AS currencies
    FROM plans AS l
    LEFT JOIN contracts AS k ON k.code = l.contract
    LEFT JOIN policies AS y ON y.code = l.policy
""")

_FORECAST = statement(__file__, "sql/forecast.sql")


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    made_on: date
    due_on: date
    universe: Universe
    brand: str
    currency: str
    decision: Decision
    services: int
    net: Money


_keep = insert(SnapshotRow, forecasts)
_TAKEN = text("SELECT 1 FROM forecasts WHERE made_on = :today LIMIT 1")
_MADE_ON = text("""
    SELECT coalesce(
        (SELECT max(made_on) FROM forecasts WHERE made_on BETWEEN :oldest AND :first),
        (SELECT min(made_on) FROM forecasts WHERE made_on > :first AND made_on < :until))
""")
_EXPECTED = text("""
    SELECT decision AS what, currency, CAST(sum(services) AS bigint), CAST(sum(net) AS bigint)
    FROM forecasts
    WHERE made_on = :made_on AND due_on >= :today AND due_on < :until
      AND (CAST(:universe AS text) IS NULL OR universe = :universe)
      AND (CAST(:brand AS text) IS NULL OR brand = :brand)
    GROUP BY decision, currency
""")
# Whose price was fixed is found by the day that was fixed with it, whatever became of it since.
# What nothing was fixed for (it was never reminded) can only be where it was.
_HAPPENED = text("""
    SELECT CASE WHEN paid THEN 'renewed'
                WHEN d.state = 'terminated' OR d.desired = 'absent' THEN 'ended'
                ELSE 'open' END AS what,
           coalesce(CASE WHEN d.net IS NULL THEN p.currency ELSE d.currency END,
               u.definition->>'currency') AS currency,
           count(*), CAST(sum(coalesce(d.net, p.renewal, 0)) AS bigint)
    FROM (
        SELECT s.subsidiary, s.plan, s.period_months, s.universe, s.brand, s.state, s.desired,
               s.paid_periods >= r.period_number AS paid, r.net, r.currency,
               r.expires_on AS due_on
        FROM renewals AS r JOIN services AS s ON s.id = r.service_id
        WHERE r.expires_on >= :today AND r.expires_on < :until
        UNION ALL
        SELECT s.subsidiary, s.plan, s.period_months, s.universe, s.brand, s.state, s.desired,
               false, NULL, NULL,
               CAST(s.expires_at AT TIME ZONE (u.definition->>'timezone') AS date)
        FROM services AS s JOIN subsidiaries AS u ON u.code = s.subsidiary
        WHERE s.state IN ('active', 'suspended', 'terminated')
          AND s.expires_at > CAST(CAST(:today AS date) - 1 AS timestamptz)
          AND s.expires_at < CAST(CAST(:until AS date) + 1 AS timestamptz)
          AND NOT EXISTS (SELECT FROM renewals AS r
              WHERE r.service_id = s.id AND r.period_number = s.paid_periods + 1)
    ) AS d
    JOIN subsidiaries AS u ON u.code = d.subsidiary
    LEFT JOIN prices AS p ON p.plan = d.plan AND p.subsidiary = d.subsidiary
        AND p.period_months = d.period_months
    WHERE d.due_on >= :today AND d.due_on < :until
      AND (CAST(:universe AS text) IS NULL OR d.universe = :universe)
      AND (CAST(:brand AS text) IS NULL OR d.brand = :brand)
    GROUP BY 1, 2
""")
