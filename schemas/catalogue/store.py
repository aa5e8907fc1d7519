"""The catalogue in force: written by a load, read by every process and kept in its memory."""

import dataclasses
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, text

from schemas.catalogue.models import Catalogue, Contract, Option, Plan, Price, Subsidiary
from schemas.errors import CatalogueError, ConfigurationError
from schemas.rules.policies import DEFAULT_POLICY, Policy, ReminderRule
from schemas.tables import contracts, plans, policies, prices, subsidiaries
from schemas.tables.bulk import insert
from schemas.values import Money, Period, Universe


@dataclass(frozen=True, slots=True)
class SubsidiaryRow:
    code: str
    definition: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ContractRow:
    code: str
    version: int
    definition: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PolicyRow:
    code: str
    definition: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PlanRow:
    code: str
    universe: Universe
    brand: str
    driver: str
    contract: str | None
    policy: str
    on_sale: bool
    definition: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PriceRow:
    plan: str
    subsidiary: str
    period_months: int
    currency: str
    setup: Money
    renewal: Money
    on_sale: bool


_put_subsidiaries = insert(
    SubsidiaryRow, subsidiaries, "ON CONFLICT (code) DO UPDATE SET definition = excluded.definition"
)
_put_contracts = insert(
    ContractRow,
    contracts,
    "ON CONFLICT (code) DO UPDATE SET version = excluded.version, definition = excluded.definition",
)
_put_policies = insert(
    PolicyRow, policies, "ON CONFLICT (code) DO UPDATE SET definition = excluded.definition"
)
_put_plans = insert(
    PlanRow,
    plans,
    "ON CONFLICT (code) DO UPDATE SET universe = excluded.universe, brand = excluded.brand,"
    " driver = excluded.driver, contract = excluded.contract, policy = excluded.policy,"
    " on_sale = excluded.on_sale, definition = excluded.definition",
)
_put_prices = insert(
    PriceRow,
    prices,
    "ON CONFLICT (plan, subsidiary, period_months) DO UPDATE SET currency = excluded.currency,"
    " setup = excluded.setup, renewal = excluded.renewal, on_sale = excluded.on_sale",
)


def save(tx: Connection, catalogue: Catalogue) -> int:
    """Put a catalogue in force. Plans it does not name are taken off sale, never deleted.

    Returns:
        The version that processes compare with what they hold.

    Raises:
        CatalogueError: it changes what decides about money, time or place of services that there
            are, or prices a plan in another currency than the subsidiary's.
    """
    tx.execute(text("LOCK TABLE catalogue_version IN EXCLUSIVE MODE"))
    problems = [*_foreign_prices(catalogue), *_depended_on(tx, catalogue)]
    if problems:
        raise CatalogueError(problems)
    before = _renewal_terms(tx)
    _put_subsidiaries(
        tx, (SubsidiaryRow(s.code, _subsidiary(s)) for s in catalogue.subsidiaries.values())
    )
    _put_contracts(
        tx,
        (
            ContractRow(c.code, c.version, dataclasses.asdict(c))
            for c in catalogue.contracts.values()
        ),
    )
    used = {plan.policy.code: plan.policy for plan in catalogue.plans.values()}
    _put_policies(tx, (PolicyRow(code, _policy_definition(p)) for code, p in used.items()))
    tx.execute(text("UPDATE plans SET on_sale = false WHERE on_sale"))
    _put_plans(tx, map(_plan_row, catalogue.plans.values()))
    # Prices are kept: what is not sold any more is still renewed.
    tx.execute(text("UPDATE prices SET on_sale = false WHERE on_sale"))
    _put_prices(
        tx,
        (
            PriceRow(
                plan=plan.code,
                subsidiary=subsidiary,
                period_months=period.months,
                currency=price.renewal.currency,
                setup=price.setup,
                renewal=price.renewal,
                on_sale=True,
            )
            for plan in catalogue.plans.values()
            for (subsidiary, period), price in plan.prices.items()
        ),
    )
    after = _renewal_terms(tx)
    others = [code for code, (_, contract, _) in after.items()
              if code in before and before[code][1] != contract]  # fmt: skip
    if others:  # what was accepted of one contract says nothing about another
        tx.execute(_LOCK_OF_PLANS, {"plans": others})
        tx.execute(_AGREED_OF_ANOTHER, {"plans": others})
    touched = sorted(code for code, terms in after.items() if before.get(code, terms) != terms)
    if touched:
        tx.execute(text("INSERT INTO recomputations (plans) VALUES (:plans)"), {"plans": touched})
    return _bump(tx)


def _foreign_prices(catalogue: Catalogue) -> Iterator[str]:
    for plan in catalogue.plans.values():
        for (code, period), price in plan.prices.items():
            currency = catalogue.subsidiary(code).currency
            if {price.setup.currency, price.renewal.currency} != {currency}:
                yield f"plan {plan.code}: prices.{code}.{period}: not in {currency}"


# Columns that no load changes while services depend on them: amounts, days, invoices or machines
# would change from one moment to the next.
_OF_SUBSIDIARIES = ("currency", "timezone", "country")
_OF_PLANS = ("universe", "brand", "driver")

_KNOWN_SUBSIDIARIES = text("SELECT code, definition FROM subsidiaries")
_KNOWN_PLANS = text("SELECT code, universe, brand, driver FROM plans")
_SERVICES = text("""
    SELECT count(*) FROM services
    WHERE (subsidiary = :subsidiary OR plan = :plan) AND state NOT IN ('terminated', 'cancelled')
""")
_ORDERS = text("""
    SELECT count(*) FROM orders AS o
    WHERE state = 'accepted' AND (subsidiary = :subsidiary OR EXISTS (
        SELECT FROM order_lines AS l WHERE l.order_id = o.id AND l.plan = :plan))
""")


def _depended_on(tx: Connection, catalogue: Catalogue) -> Iterator[str]:
    """Changes of a load that would change services that there are, with how many."""
    for code, definition in tx.execute(_KNOWN_SUBSIDIARIES):
        if new := catalogue.subsidiaries.get(code):
            changes = _changes(definition, new, _OF_SUBSIDIARIES)
            yield from _refused(tx, f"subsidiary {code}", changes, subsidiary=code)
    for row in tx.execute(_KNOWN_PLANS):
        if plan := catalogue.plans.get(row.code):
            changes = _changes(row._asdict(), plan, _OF_PLANS)
            yield from _refused(tx, f"plan {row.code}", changes, plan=row.code)


def _changes(before: Mapping[str, Any], after: object, names: Iterable[str]) -> list[str]:
    return [
        f"{name}: {before[name]} becomes {getattr(after, name)}"
        for name in names
        if before[name] != getattr(after, name)
    ]


def _refused(
    tx: Connection,
    what: str,
    changes: Sequence[str],
    subsidiary: str | None = None,
    plan: str | None = None,
) -> Iterator[str]:
    if not changes:
        return
    where = {"subsidiary": subsidiary, "plan": plan}
    services = tx.execute(_SERVICES, where).scalar_one()
    orders = tx.execute(_ORDERS, where).scalar_one()
    if services or orders:
        for change in changes:
            yield (
                f"{what}: {change}, and {services:,} services and {orders:,} orders depend on it"
                + (f": see `autorenew subsidiary change {subsidiary}`" if subsidiary else "")
            )


def set_rollout(tx: Connection, brand: str, subsidiary: str, starts_on: date | None) -> int:
    """Switch renewal on for a brand's services in a subsidiary, from a local day; None: off."""
    tx.execute(text("LOCK TABLE catalogue_version IN EXCLUSIVE MODE"))
    where = {"brand": brand, "subsidiary": subsidiary}
    if starts_on is None:
        tx.execute(
            text("DELETE FROM rollouts WHERE brand = :brand AND subsidiary = :subsidiary"), where
        )
    else:
        tx.execute(
            text("INSERT INTO rollouts VALUES (:brand, :subsidiary, :day)"
                 " ON CONFLICT (brand, subsidiary) DO UPDATE SET starts_on = excluded.starts_on"),
            {**where, "day": starts_on},
        )  # fmt: skip
    tx.execute(
        text("INSERT INTO recomputations (brand, subsidiary) VALUES (:brand, :subsidiary)"), where
    )
    return _bump(tx)


_LOCK_OF_PLANS = text(
    "SELECT id FROM services WHERE plan = ANY(:plans) ORDER BY id FOR NO KEY UPDATE"
)
_AGREED_OF_ANOTHER = text("""
    UPDATE services AS s SET agreed_version = (
        SELECT max(a.version) FROM agreements AS a
        WHERE a.customer_id = s.customer_id AND a.contract = p.contract)
    FROM plans AS p WHERE s.plan = ANY(:plans) AND p.code = s.plan
""")


def _renewal_terms(tx: Connection) -> dict[str, Any]:
    """What of each plan decides about next steps."""
    rows = tx.execute(
        text("SELECT p.code, y.definition, p.contract, c.version FROM plans AS p"
             " LEFT JOIN policies AS y ON y.code = p.policy"
             " LEFT JOIN contracts AS c ON c.code = p.contract")
    )  # fmt: skip
    return {row[0]: tuple(row[1:]) for row in rows}


def _bump(tx: Connection) -> int:
    return int(
        tx.execute(
            text(
                "INSERT INTO catalogue_version AS v (sole, version) VALUES (true, 1)"
                " ON CONFLICT (sole) DO UPDATE SET version = v.version + 1, loaded_at = now()"
                " RETURNING version"
            )
        ).scalar_one()
    )


def _plan_row(plan: Plan) -> PlanRow:
    return PlanRow(
        code=plan.code,
        universe=plan.universe,
        brand=plan.brand,
        driver=plan.driver,
        contract=plan.contract,
        policy=plan.policy.code,
        on_sale=True,
        definition={
            "name": plan.name,
            "quantity_min": plan.quantity_min,
            "quantity_max": plan.quantity_max,
            "options": {name: dataclasses.asdict(o) for name, o in plan.options.items()},
        },
    )


_SUBSIDIARY_FIELDS = {field.name for field in dataclasses.fields(Subsidiary)}


def _subsidiary(subsidiary: Subsidiary) -> dict[str, Any]:
    definition = dataclasses.asdict(subsidiary)
    # Processes of the release before know no such field.
    if not subsidiary.delivery_emails:
        del definition["delivery_emails"]
    return definition


def _known_subsidiary(definition: dict[str, Any]) -> Subsidiary:
    # A newer release may have written fields that this one does not know.
    known = {name: definition[name] for name in _SUBSIDIARY_FIELDS & definition.keys()}
    return Subsidiary(**known)


_POLICY_FIELDS = {field.name for field in dataclasses.fields(Policy)}


def _policy_definition(policy: Policy) -> dict[str, Any]:
    rules = [
        {"subsidiary": rule.subsidiary, "period": rule.period and str(rule.period),
         "days": rule.days, "since": rule.since and rule.since.isoformat(), "source": rule.source}
        for rule in policy.reminders_for
    ]  # fmt: skip
    definition = dataclasses.asdict(policy) | {"reminders_for": rules}
    # Processes of the release before know no such fields.
    if policy.source is None:
        del definition["source"]
    for name in ("undeliverable", "catch_up"):
        if definition[name] == getattr(DEFAULT_POLICY, name):
            del definition[name]
    return definition


def _policy(definition: dict[str, Any]) -> Policy:
    rules = (
        ReminderRule(
            rule["subsidiary"],
            Period.parse(rule["period"]) if rule["period"] else None,
            tuple(rule["days"]),
            date.fromisoformat(rule["since"]) if rule.get("since") else None,
            rule.get("source"),
        )
        for rule in definition["reminders_for"]
    )
    # A newer release may have written fields that this one does not know.
    known = {name: definition[name] for name in _POLICY_FIELDS & definition.keys()}
    return Policy(
        **known
        | {
            "reminders": tuple(definition["reminders"]),
            "charges": tuple(definition["charges"]),
            "reminders_for": tuple(rules),
        }
    )


def read(tx: Connection) -> Catalogue:
    """The catalogue in force, whole."""
    offers: dict[tuple[str, bool], dict[tuple[str, Period], Price]] = {}
    for row in tx.execute(
        text("SELECT plan, subsidiary, period_months, currency, setup, renewal, on_sale"
             " FROM prices")
    ):  # fmt: skip
        price = Price(Money(row.setup, row.currency), Money(row.renewal, row.currency))
        key = row.subsidiary, Period(row.period_months)
        offers.setdefault((row.plan, row.on_sale), {})[key] = price
    policy = {
        code: _policy(definition)
        for code, definition in tx.execute(text("SELECT code, definition FROM policies"))
    }
    rows = tx.execute(
        text("SELECT code, universe, brand, driver, contract, policy, on_sale, definition"
             " FROM plans")
    )  # fmt: skip
    return Catalogue(
        [
            _known_subsidiary(d)
            for d in tx.execute(text("SELECT definition FROM subsidiaries")).scalars()
        ],
        [Contract(**d) for d in tx.execute(text("SELECT definition FROM contracts")).scalars()],
        [
            Plan(
                code=row.code,
                universe=Universe(row.universe),
                brand=row.brand,
                driver=row.driver,
                contract=row.contract,
                prices=offers.get((row.code, True), {}),
                last_prices=offers.get((row.code, False), {}),
                policy=policy.get(row.policy, DEFAULT_POLICY),
                on_sale=row.on_sale,
                name=row.definition["name"],
                quantity_min=row.definition["quantity_min"],
                quantity_max=row.definition["quantity_max"],
                options={
                    name: Option(o["required"], tuple(o["values"]))
                    for name, o in row.definition["options"].items()
                },
            )
            for row in rows
        ],
        {
            (row.brand, row.subsidiary): row.starts_on
            for row in tx.execute(text("SELECT brand, subsidiary, starts_on FROM rollouts"))
        },
    )


class CatalogueCache:
    """The catalogue in force, read again only when a load has changed it; for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: tuple[int, Catalogue] | None = None

    def current(self, tx: Connection) -> Catalogue:
        version = tx.execute(text("SELECT version FROM catalogue_version")).scalar()
        if version is None:
            raise ConfigurationError("there is no catalogue: run `autorenew catalogue load`")
        held = self._held
        if held is None or held[0] != version:
            with self._lock:
                held = self._held
                if held is None or held[0] != version:
                    self._held = held = (version, read(tx))
        return held[1]
