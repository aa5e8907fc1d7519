"""The catalogue in force: written by a load, read by every process and kept in its memory."""

import dataclasses
import json
import threading
from typing import Any

from sqlalchemy import Connection, text

from schemas.catalogue.models import Catalogue, Contract, Option, Plan, Price, Subsidiary
from schemas.errors import ConfigurationError
from schemas.tables import contracts, plans, prices, rows_from_json, subsidiaries
from schemas.values import Money, Period, Universe


def save(tx: Connection, catalogue: Catalogue) -> int:
    """Put a catalogue in force. Plans it does not name are taken off sale, never deleted.

    Returns:
        The version that processes compare with what they hold.
    """
    tx.execute(text("LOCK TABLE catalogue_version IN EXCLUSIVE MODE"))
    _upsert(
        tx,
        subsidiaries,
        [
            {"code": s.code, "definition": dataclasses.asdict(s)}
            for s in catalogue.subsidiaries.values()
        ],
    )
    _upsert(
        tx,
        contracts,
        [
            {"code": c.code, "version": c.version, "definition": dataclasses.asdict(c)}
            for c in catalogue.contracts.values()
        ],
    )
    tx.execute(text("UPDATE plans SET on_sale = false"))
    _upsert(tx, plans, [_plan_row(plan) for plan in catalogue.plans.values()])
    tx.execute(text("DELETE FROM prices"))
    rows = [
        {
            "plan": plan.code,
            "subsidiary": subsidiary,
            "period_months": period.months,
            "currency": price.renewal.currency,
            "setup": price.setup.amount,
            "renewal": price.renewal.amount,
        }
        for plan in catalogue.plans.values()
        for (subsidiary, period), price in plan.prices.items()
    ]
    columns = tuple(rows[0]) if rows else ()
    if rows:
        tx.execute(
            text(f"INSERT INTO prices ({', '.join(columns)}) SELECT * FROM "
                 + rows_from_json(prices, *columns)),
            {"rows": json.dumps(rows)},
        )  # fmt: skip
    return int(
        tx.execute(
            text(
                "INSERT INTO catalogue_version AS v (sole, version) VALUES (true, 1)"
                " ON CONFLICT (sole) DO UPDATE SET version = v.version + 1, loaded_at = now()"
                " RETURNING version"
            )
        ).scalar_one()
    )


def _upsert(tx: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    columns = tuple(rows[0])
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
    tx.execute(
        text(
            f"INSERT INTO {table.name} ({', '.join(columns)})"
            f" SELECT * FROM {rows_from_json(table, *columns)}"
            f" ON CONFLICT (code) DO UPDATE SET {changes}"
        ),
        {"rows": json.dumps(rows)},
    )


def _plan_row(plan: Plan) -> dict[str, Any]:
    return {
        "code": plan.code,
        "universe": plan.universe,
        "brand": plan.brand,
        "driver": plan.driver,
        "contract": plan.contract,
        "on_sale": True,
        "definition": {
            "name": plan.name,
            "quantity_min": plan.quantity_min,
            "quantity_max": plan.quantity_max,
            "options": {name: dataclasses.asdict(o) for name, o in plan.options.items()},
        },
    }


def read(tx: Connection) -> Catalogue:
    """The catalogue in force, whole."""
    offers: dict[str, dict[tuple[str, Period], Price]] = {}
    for plan, subsidiary, months, currency, setup, renewal in tx.execute(
        text("SELECT plan, subsidiary, period_months, currency, setup, renewal FROM prices")
    ):
        offers.setdefault(plan, {})[subsidiary, Period(months)] = Price(
            Money(setup, currency), Money(renewal, currency)
        )
    rows = tx.execute(
        text("SELECT code, universe, brand, driver, contract, definition FROM plans WHERE on_sale")
    )
    return Catalogue(
        [
            Subsidiary(**d)
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
                prices=offers.get(row.code, {}),
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
