"""The command that says what falls due, and how right it was."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import click

from autorenew.cli.common import as_json, clock, database, say, show
from autorenew.cli.names import check_brands
from monitoring import forecast as forecasting
from monitoring.forecast import By, Decision, Outcome, ReviewRow, Row
from schemas.errors import AutorenewError
from schemas.fields import CURRENCY_DIGITS
from schemas.settings import load_settings
from schemas.shown import for_csv
from schemas.values import Money, Universe

YEAR = timedelta(days=365)


@click.command()
@click.option(
    "--by",
    type=click.Choice([step.value for step in By]),
    help="What to count by; month unless said.",
)
@click.option(
    "--universe",
    type=click.Choice([universe.value for universe in Universe]),
    help="Only of this universe.",
)
@click.option("--brand", help="Only of this brand.")
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="The first day that is left out; a year from today unless said.",
)
@click.option(
    "--review",
    "month",
    type=click.DateTime(["%Y-%m"]),
    metavar="YYYY-MM",
    help="What was forecast for a month, and what happened.",
)
@as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with a line of names.")
@click.option("--snapshot", is_flag=True, help="Only keep today's snapshot, if there is none.")
def forecast(
    by: str | None,
    universe: str | None,
    brand: str | None,
    until: datetime | None,
    month: datetime | None,
    as_json: bool,
    as_csv: bool,
    snapshot: bool,
) -> None:  # fmt: skip
    """How many services and how much money fall due, by what their customers decided.

    A service counts once, at its next expiry, by its subsidiary's calendar; its money is the net
    price of one more period. It

    \b
      will renew         is renewed by itself and can be charged
      will stop          ends because its customer said so
      undecided: manual  is renewed only if its customer asks for it
      undecided: contract, payment
                         its customer has still to accept the contract, or to
                         give a way to pay
      not rolled out     is of a brand whose renewal is not switched on there,
                         and not charged

    What is past its expiry and still unpaid is overdue. In JSON and CSV it has no start, and
    money is a decimal.

    A scheduler keeps one snapshot a day; --review compares one with what happened.
    """
    _check_choice(by, universe, brand, until, month, as_json, as_csv, snapshot)
    settings = load_settings()
    engine = database(settings)
    today = clock(engine, settings).now().date()
    if snapshot:
        with engine.begin() as tx:
            count = forecasting.take_snapshot(tx, today)
        say(f"snapshot of {today}: {f'{count} rows' if count else 'nothing to add'}")
        return
    within = Universe(universe) if universe else None
    with engine.connect() as tx:
        check_brands(tx, [brand] if brand else [])
        if month is not None:
            found = forecasting.review(tx, month.date(), within, brand)
            _show_review(f"{month:%Y-%m}", found, as_json, as_csv)
            return
        end = until.date() if until else today + YEAR
        if end <= today:
            raise AutorenewError(f"--until {end} is not after today, {today}")
        step = By(by or By.MONTH)
        rows = forecasting.forecast(
            tx, today=today, until=end, by=step, universe=within, brand=brand
        )
    _show_forecast(f"due from {today} until {end}", step, rows, as_json, as_csv)


def _check_choice(
    by: str | None,
    universe: str | None,
    brand: str | None,
    until: datetime | None,
    month: datetime | None,
    as_json: bool,
    as_csv: bool,
    snapshot: bool,
) -> None:
    if as_json and as_csv:
        raise click.UsageError("--json or --csv, not both")
    if month is not None and (by or until):
        raise click.UsageError("--review is about a whole month: no --by and no --until")
    if snapshot and any((by, universe, brand, until, month, as_json, as_csv)):
        raise click.UsageError("--snapshot is of everything: it takes no other option")


def _show_forecast(title: str, by: By, rows: list[Row], as_json: bool, as_csv: bool) -> None:
    if as_json or as_csv:
        names = ("start", "decision", "currency", "services", "net", "suspended_by_operator")
        plain = [(r.start, r.decision, r.currency, r.services, _decimal(r), r.held) for r in rows]
        _print_plain(names, plain, as_csv)
        return
    decisions = [decision for decision in Decision if any(r.decision is decision for r in rows)]
    buckets = dict.fromkeys((r.start, r.currency) for r in rows)
    lines = [
        (_label(start, by), *_cells([r for r in rows if (r.start, r.currency) == (start, currency)],
                                    decisions))
        for start, currency in buckets
    ]  # fmt: skip
    lines += [
        ("total", *_cells([r for r in rows if r.currency == currency], decisions))
        for currency in sorted({r.currency for r in rows})
    ]
    show(title, (by.value, *decisions, "all"), lines, json_lines=False)
    if held := sum(r.held for r in rows):
        say(f"{held:,} of them are suspended by an operator: see `service list --suspended`")


def _show_review(month: str, rows: list[ReviewRow], as_json: bool, as_csv: bool) -> None:
    if as_json or as_csv:
        names = ("made_on", "side", "what", "currency", "services", "net")
        plain = [
            (r.made_on, "forecast" if isinstance(r.what, Decision) else "happened", r.what,
             r.currency, r.services, _decimal(r))
            for r in rows
        ]  # fmt: skip
        _print_plain(names, plain, as_csv)
        return
    made_on = next((r.made_on for r in rows), None)
    made = "of which no forecast was kept"
    if made_on is not None:
        part = ", from that day on" if made_on.isoformat() > f"{month}-01" else ""
        made = f"as it was forecast on {made_on}{part}"
    currencies = sorted({r.currency for r in rows})
    for title, kinds in ((f"{month}, {made}", Decision), (f"{month}, what happened", Outcome)):
        there = [what for what in kinds if any(r.what is what for r in rows)]
        lines = [
            _cells([r for r in rows if r.currency == currency and r.what in there], there)
            for currency in currencies
        ]
        show(title, (*there, "all"), lines if there else [], json_lines=False)


def _cells(rows: Sequence[Row | ReviewRow], kinds: Iterable[str]) -> list[str]:
    """Services and money of each kind, and of all, in one currency."""
    by_kind = [[r for r in rows if _kind(r) == kind] for kind in kinds]
    return [_cell(some) for some in by_kind] + [_cell(rows)]


def _kind(row: Row | ReviewRow) -> str:
    return row.decision if isinstance(row, Row) else row.what


def _cell(rows: Sequence[Row | ReviewRow]) -> str:
    if not rows:
        return ""
    money = Money(sum(r.net for r in rows), rows[0].currency)
    return f"{sum(r.services for r in rows):,} ({money})"


def _label(start: date | None, by: By) -> str:
    if start is None:
        return "overdue"
    return f"{start:%Y-%m}" if by is By.MONTH else start.isoformat()


def _decimal(row: Row | ReviewRow) -> str:
    digits = CURRENCY_DIGITS[row.currency]
    return f"{Decimal(row.net).scaleb(-digits):.{digits}f}"


def _print_plain(names: Sequence[str], rows: Iterable[Sequence[Any]], as_csv: bool) -> None:
    if not as_csv:
        show("", names, rows, json_lines=True)
        return
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([for_csv(c) if isinstance(c, str) else c for c in row] for row in rows)
    click.echo(lines.getvalue(), nl=False)
