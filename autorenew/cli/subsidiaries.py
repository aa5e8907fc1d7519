"""Commands that change, on purpose, what the services of a subsidiary depend on."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import OperationalError

from autorenew.cli.common import as_json, clock, database, say, show
from autorenew.cli.helping import Commands
from schemas.catalogue import Subsidiary, changes, load
from schemas.catalogue.changes import LOCK_NOT_AVAILABLE, Change, Touched
from schemas.catalogue.store import read
from schemas.clock import local_date
from schemas.errors import AutorenewError
from schemas.fields import Country, CurrencyCode


@click.group(cls=Commands)
def subsidiary() -> None:
    """Change the currency, time zone or country of a subsidiary that has services."""


def _code(model: Any, option: str) -> Any:
    """A callback that takes what a type of :mod:`schemas.fields` takes."""

    def check(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
        try:
            return value and TypeAdapter(model).validate_python(value)
        except ValidationError as error:
            raise click.BadParameter(error.errors()[0]["msg"], param_hint=option) from None

    return check


def _zone(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return value and ZoneInfo(value).key
    except (KeyError, ValueError, OSError):  # not there; not a name; a folder, too long
        message = f"{value!r} is not an IANA time zone"
        raise click.BadParameter(message, param_hint="--timezone") from None


@subsidiary.command()
@click.argument("code", metavar="SUBSIDIARY")
@click.option(
    "--currency",
    metavar="CODE",
    callback=_code(CurrencyCode, "--currency"),
    help="ISO 4217, such as EUR; needs --catalogue.",
)
@click.option("--timezone", metavar="NAME", callback=_zone, help="IANA, such as Europe/London.")
@click.option(
    "--country",
    metavar="CODE",
    callback=_code(Country, "--country"),
    help="ISO 3166, such as GB.",
)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="The local day that it holds from; today, and so now, if not given.",
)
@click.option(
    "--catalogue",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file or folder with the subsidiary as it becomes, and prices. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def change(
    code: str,
    currency: str | None,
    timezone: str | None,
    country: str | None,
    since: datetime | None,
    paths: Sequence[Path],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Change what is named of SUBSIDIARY, now or from a day on.

    Says first what that concerns. Whatever speaks against it is listed; nothing is changed then.
    """
    wanted = {"currency": currency, "timezone": timezone, "country": country}
    if not any(wanted.values()):
        raise click.UsageError("name what to change: --currency, --timezone or --country")
    if currency is not None and not paths:
        raise click.UsageError("--currency needs prices in it: --catalogue")
    files = load(paths) if paths else None
    engine = database()
    now = clock(engine).now()
    with engine.connect() as tx:
        before = read(tx).subsidiaries.get(code)
        if before is None:
            raise AutorenewError(f"there is no subsidiary {code!r}")
        today = local_date(now, before.timezone)
        planned = Change(
            code,
            since.date() if since else today,
            changes.differences(before, wanted),
            changes.prices_of(files, code) if files is not None and currency is not None else {},
        )
        touched = changes.check(tx, planned, now, files)
    is_now = planned.since <= today
    if is_now:
        changes.refuse_unpriced(planned, touched)
    if not as_json:
        _say(before, planned, touched)
    if not dry_run:
        if not yes:
            click.confirm("Go on?", abort=True, err=as_json)
        try:
            with engine.begin() as tx:
                changes.plan(tx, planned, now, files)
                if is_now:
                    changes.apply_planned(tx, code)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            raise AutorenewError(
                "a transaction that has read the catalogue does not end, such as a backup:"
                " nothing was changed or planned; try again once it has ended",
                code="catalogue_busy",
            ) from None
    outcome = "checked" if dry_run else "in force" if is_now else "planned"
    if as_json:
        document = {
            "subsidiary": code,
            "since": planned.since.isoformat(),
            "outcome": outcome,
            "changes": {
                name: {"from": getattr(before, name), "to": value}
                for name, value in planned.definition.items()
            },
            **asdict(touched),
        }
        click.echo(json.dumps(document))
    else:
        say(_ENDED[outcome])


_ENDED = {
    "checked": "nothing speaks against it; nothing was changed",
    "in force": "it is in force; the scheduler carries it over to the services",
    "planned": "it is planned; the scheduler puts it in force on that day",
}


def _say(before: Subsidiary, planned: Change, touched: Touched) -> None:
    for name, value in planned.definition.items():
        say(
            f"subsidiary {planned.subsidiary}: {name}: {getattr(before, name)} becomes {value}"
            f" on {planned.since}"
        )
    counts = (f"{count:,} {name.replace('_', ' ')}" for name, count in asdict(touched).items())
    say(f"concerned: {', '.join(counts)}")


@subsidiary.command()
@as_json
def planned(as_json: bool) -> None:
    """List the changes that are planned, and those that were made."""
    with database().connect() as tx:
        rows = [
            (
                row.subsidiary,
                row.since,
                *(row.definition.get(name) for name in changes.FIELDS),
                _state(row),
                row.planned_at,
                row.applied_at,
            )
            for row in changes.listed(tx)
        ]
    columns = ("subsidiary", "since", *changes.FIELDS, "state", "planned_at", "in_force_at")
    show("changes of subsidiaries", columns, rows, json_lines=as_json)


def _state(row: Any) -> str:
    if row.applied_at is None:
        return "planned"
    return "under way" if row.under_way else "done"


@subsidiary.command()
@click.argument("code", metavar="SUBSIDIARY")
def withdraw(code: str) -> None:
    """Give up the change that is planned for SUBSIDIARY."""
    with database().begin() as tx:
        since = changes.withdraw(tx, code)
    if since is None:
        raise AutorenewError(f"no change of subsidiary {code!r} is planned")
    say(f"the change of subsidiary {code} on {since} is withdrawn")
