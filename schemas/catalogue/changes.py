"""Changes of a subsidiary that services depend on: its currency, its time zone, its country.

A change is planned with the local day that it holds from, and put in force on that day in one
transaction: what all processes share (:func:`apply`). Its services follow page by page, see
:mod:`producers.scheduler.changes`; until then everything is decided by what is in force, and
nothing that was asked for before is charged.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from schemas.catalogue.models import Catalogue, Price, Subsidiary
from schemas.catalogue.store import read
from schemas.clock import local_date
from schemas.errors import AutorenewError, CatalogueError, DataError
from schemas.rules import tax
from schemas.tables import subsidiary_changes
from schemas.tables.bulk import insert
from schemas.values import Period

FIELDS = ("currency", "timezone", "country")
LOCK_NOT_AVAILABLE = "55P03"
"""Of PostgreSQL: somebody reads the catalogue for longer than a change waits."""
"""What of a subsidiary no load of a catalogue changes while services depend on it."""

Priced = tuple[str, Period]
"""A plan, and a period for which it has a price."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a subsidiary.

    Attributes:
        since: the local day that it holds from.
        definition: field, one of :data:`FIELDS` -> what it becomes.
        prices: with a currency, what plans cost in it; else empty.
    """

    subsidiary: str
    since: date
    definition: Mapping[str, str]
    prices: Mapping[Priced, Price] = field(default_factory=dict)

    @property
    def currency(self) -> str | None:
        return self.definition.get("currency")


@dataclass(frozen=True, slots=True)
class Touched:
    """How much a change concerns, as things are.

    Attributes:
        services: of the subsidiary, that have not ended.
        orders_not_priced: accepted by the release before, without a price, and not yet priced;
            while there are any, neither the currency nor the country is changed.
        open_requests: payment requests of renewals; they are withdrawn and made anew.
        announced: renewals whose customers were told an amount.
    """

    services: int
    orders_not_priced: int
    open_requests: int
    announced: int


def differences(subsidiary: Subsidiary, wanted: Mapping[str, str | None]) -> dict[str, str]:
    """Which of the wanted values (None: not named) a subsidiary does not have yet."""
    return {
        name: value
        for name, value in wanted.items()
        if value is not None and value != getattr(subsidiary, name)
    }


def prices_of(catalogue: Catalogue, subsidiary: str) -> dict[Priced, Price]:
    """What plans cost in a subsidiary by catalogue files."""
    return {
        (plan.code, period): price
        for plan in catalogue.plans.values()
        for (code, period), price in plan.prices.items()
        if code == subsidiary
    }


def missing(renewed: Collection[Priced], change: Change) -> Iterator[str]:
    """By which prices services are renewed that have none in the new currency."""
    for plan, period in sorted(set(renewed) - change.prices.keys()):
        yield (
            f"plan {plan}: no price in {change.currency} for {period} in {change.subsidiary},"
            " and services are renewed by it"
        )


def contradictions(change: Change, files: Catalogue, before: Subsidiary) -> Iterator[str]:
    """Where catalogue files say something else of the subsidiary than the change."""
    described = files.subsidiaries.get(change.subsidiary)
    if described is None:
        yield f"subsidiary {change.subsidiary}: not in these files"
        return
    for name in FIELDS:
        becomes = change.definition.get(name, getattr(before, name))
        said = getattr(described, name)
        if said != becomes:
            yield f"subsidiary {change.subsidiary}: {name}: {said} in these files, not {becomes}"


def untaxed(
    subsidiary: Subsidiary, customers: Collection[tuple[str, str | None]], on: date
) -> Iterator[str]:
    """Whose renewal could not be taxed any more.

    Args:
        subsidiary: as it becomes.
        customers: (country, VAT number) of each.
        on: the local day.
    """
    lost: dict[str, int] = {}
    for country, vat_number in customers:
        try:
            tax.determine(
                subsidiary=subsidiary, customer_country=country, vat_number=vat_number, on=on
            )
        except DataError as error:
            lost[str(error)] = lost.get(str(error), 0) + 1
    for why, count in sorted(lost.items()):
        yield f"subsidiary {subsidiary.code}: {why}: {count:,} customers could not be charged"


@dataclass(frozen=True, slots=True)
class ChangeRow:
    subsidiary: str
    since: date
    definition: dict[str, Any]
    prices: list[dict[str, Any]]


_plan = insert(ChangeRow, subsidiary_changes)
_LOCK = text("LOCK TABLE catalogue_version IN EXCLUSIVE MODE")
_PLANNED = text("""
    SELECT id, since FROM subsidiary_changes WHERE subsidiary = :code AND applied_at IS NULL
""")
_RENEWED = text("""
    SELECT p.plan, p.period_months
    FROM services AS s JOIN prices AS p ON (p.plan, p.subsidiary, p.period_months)
        = (s.plan, s.subsidiary, s.period_months)
    WHERE s.subsidiary = :code AND s.state NOT IN ('terminated', 'cancelled')
    UNION
    SELECT l.plan, l.period_months
    FROM tasks AS t JOIN orders AS o ON o.id = t.subject JOIN order_lines AS l ON l.order_id = o.id
    WHERE t.name = 'price' AND o.state = 'accepted' AND o.subsidiary = :code
""")
_CUSTOMERS = text("""
    SELECT country, vat_number FROM customers WHERE id IN (
        SELECT customer_id FROM services
        WHERE subsidiary = :code AND state NOT IN ('terminated', 'cancelled'))
""")
_TOUCHED = text("""
    SELECT
        (SELECT count(*) FROM services
         WHERE subsidiary = :code AND state NOT IN ('terminated', 'cancelled')) AS services,
        (SELECT count(DISTINCT o.id) FROM tasks AS t JOIN orders AS o ON o.id = t.subject
         JOIN order_lines AS l ON l.order_id = o.id
         WHERE t.name = 'price' AND o.state = 'accepted' AND o.subsidiary = :code
           AND l.currency IS NULL) AS orders_not_priced,
        (SELECT count(*) FROM payment_requests
         WHERE subsidiary = :code AND state = 'open' AND order_id IS NULL) AS open_requests,
        (SELECT count(*) FROM services AS s JOIN renewals AS r
            ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
         WHERE s.subsidiary = :code AND s.state IN ('active', 'suspended')
           AND r.announced IS NOT NULL) AS announced
""")


def check(tx: Connection, change: Change, now: datetime, files: Catalogue | None = None) -> Touched:
    """What a change of a subsidiary would concern, if nothing speaks against it.

    Args:
        files: where its prices come from, with the subsidiary as it becomes.

    Raises:
        CatalogueError: with everything that speaks against it.
    """
    problems = list(_problems(tx, change, now, files))
    if problems:
        raise CatalogueError(problems)
    return Touched(**tx.execute(_TOUCHED, {"code": change.subsidiary}).one()._mapping)


def plan(tx: Connection, change: Change, now: datetime, files: Catalogue | None = None) -> Touched:
    """Plan a change that :func:`check` finds nothing against."""
    tx.execute(_LOCK)
    touched = check(tx, change, now, files)
    prices = [
        {
            "plan": code,
            "period_months": period.months,
            "setup": price.setup.amount,
            "renewal": price.renewal.amount,
        }
        for (code, period), price in sorted(change.prices.items())
    ]
    _plan(tx, [ChangeRow(change.subsidiary, change.since, dict(change.definition), prices)])
    return touched


def _problems(
    tx: Connection, change: Change, now: datetime, files: Catalogue | None
) -> Iterator[str]:
    where = {"code": change.subsidiary}
    before = read(tx).subsidiaries.get(change.subsidiary)
    if before is None:
        yield f"there is no subsidiary {change.subsidiary!r}"
        return
    if planned := tx.execute(_PLANNED, where).first():
        yield (
            f"subsidiary {change.subsidiary}: a change is planned for {planned.since}:"
            f" `autorenew subsidiary withdraw {change.subsidiary}` first"
        )
    if not change.definition:
        yield f"subsidiary {change.subsidiary}: it is so already"
    if change.since < (today := local_date(now, before.timezone)):
        yield f"subsidiary {change.subsidiary}: {change.since} has passed: today is {today} there"
    if files is not None:
        yield from contradictions(change, files, before)
    if change.currency is not None:
        rows = tx.execute(_RENEWED, where)
        yield from missing([(row.plan, Period(row.period_months)) for row in rows], change)
    if "country" in change.definition:
        after = replace(before, country=change.definition["country"])
        customers = [(row.country, row.vat_number) for row in tx.execute(_CUSTOMERS, where)]
        yield from untaxed(after, customers, max(change.since, today))


_WHY_NOT = {
    "not_planned": "no such change is planned any more",
    "orders_not_priced": "orders are accepted and not priced yet: try again once they are",
    "prices_missing": "services are renewed by prices that it has none for in the new currency:"
    " withdraw it and plan it anew",
}
_APPLY = text("SELECT change_subsidiary(:id)")


class CannotApply(AutorenewError):
    """A planned change cannot be put in force now; ``code`` says why."""


def refuse_unpriced(change: Change, touched: Touched) -> None:
    """
    Raises:
        CannotApply: ``orders_not_priced``: it cannot be put in force now.
    """
    if touched.orders_not_priced and change.definition.keys() & {"currency", "country"}:
        raise CannotApply(
            f"subsidiary {change.subsidiary}: {touched.orders_not_priced:,}"
            f" {_WHY_NOT['orders_not_priced']}",
            code="orders_not_priced",
        )


def apply(tx: Connection, change_id: int) -> None:
    """Put a planned change in force; the transaction should end at once.

    Nobody reads or writes the catalogue meanwhile: whoever has decided something by the old one
    has written it before.

    Raises:
        CannotApply: ``not_planned``, ``orders_not_priced``, ``prices_missing``; nothing is changed.
        OperationalError: somebody has read the catalogue and does not end for two seconds.
    """
    why = tx.execute(_APPLY, {"id": change_id}).scalar_one()
    if why is not None:
        raise CannotApply(_WHY_NOT[why], code=why)


def apply_planned(tx: Connection, subsidiary: str) -> None:
    """The same for what was just planned for a subsidiary, in the same transaction."""
    planned = tx.execute(_PLANNED, {"code": subsidiary}).one()
    try:
        apply(tx, planned.id)
    except CannotApply as error:
        raise AutorenewError(f"subsidiary {subsidiary}: {error}", code=error.code) from None


_DUE = text("""
    SELECT c.id, c.subsidiary, c.since FROM subsidiary_changes AS c
    JOIN subsidiaries AS u ON u.code = c.subsidiary
    WHERE c.applied_at IS NULL AND c.since <= CAST(
        CAST(:now AS timestamptz) AT TIME ZONE (u.definition->>'timezone') AS date)
    ORDER BY c.id
""")


def due(tx: Connection, now: datetime) -> Sequence[Any]:
    """Planned changes whose local day has come: (id, subsidiary, since)."""
    return tx.execute(_DUE, {"now": now}).all()


_LIST = text("""
    SELECT c.subsidiary, c.since, c.definition, c.former, c.planned_at, c.applied_at,
        EXISTS (SELECT FROM recomputations AS r WHERE r.change_id = c.id) AS under_way
    FROM subsidiary_changes AS c ORDER BY c.applied_at NULLS LAST, c.since, c.subsidiary
""")


def listed(tx: Connection) -> Sequence[Any]:
    """All changes, those that were applied first."""
    return tx.execute(_LIST).all()


_WITHDRAW = text("""
    DELETE FROM subsidiary_changes WHERE subsidiary = :code AND applied_at IS NULL RETURNING since
""")


def withdraw(tx: Connection, subsidiary: str) -> date | None:
    """Give up the change that is planned; returns its day, or None if there was none."""
    since: date | None = tx.execute(_WITHDRAW, {"code": subsidiary}).scalar()
    return since


_UNPRICED = text("""
    SELECT c.subsidiary, c.since, c.definition->>'currency' AS currency, p.plan, p.period_months
    FROM subsidiary_changes AS c JOIN prices AS p ON p.subsidiary = c.subsidiary AND p.on_sale
    WHERE c.applied_at IS NULL AND c.definition ? 'currency' AND NOT EXISTS (
        SELECT FROM jsonb_to_recordset(c.prices) AS n(plan text, period_months smallint)
        WHERE n.plan = p.plan AND n.period_months = p.period_months)
    ORDER BY c.subsidiary, p.plan, p.period_months
""")


def sold_without(tx: Connection) -> Iterator[str]:
    """What is sold, and has no price by the change of the currency that is planned there."""
    for row in tx.execute(_UNPRICED):
        yield (
            f"subsidiary {row.subsidiary} changes to {row.currency} on {row.since}, and the change"
            f" has no price for {row.plan}, {Period(row.period_months)}: plan it anew"
        )
