"""Commands about bulk operations: what operators had done to many failed tasks, and how it goes."""

import sys
from datetime import UTC, datetime

import click

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json as json_option
from autorenew.cli.common import database, said_of, say
from autorenew.cli.following import document, filters_of, follow, show
from autorenew.cli.helping import Commands
from autorenew.cli.lines import Column, age, echo, short
from autorenew.cli.selecting import Text, counted, say_none
from producers.control import bulk as operations

_COLUMNS = (
    Column("ID", 8), Column("AGE", 4, right=True), Column("KIND", 6), Column("STATE", 7),
    Column("TOTAL", 7, right=True), Column("DONE", 7, right=True),
    Column("FAILED", 6, right=True), Column("BY", 10), Column("FILTER"),
)  # fmt: skip
_id = click.argument("id", type=Text())


@click.group(cls=Commands)
def bulk() -> None:
    """Bulk operations on failed tasks: see `autorenew failed retry`."""


@bulk.command("list")
@click.option("--open", "open_only", is_flag=True, help="Only those that have not ended.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="So many at most."
)
@click.option(
    "--page", type=click.IntRange(1), default=1, show_default=True, help="Which page of so many."
)
@json_option
def list_bulk(open_only: bool, limit: int, page: int, as_json: bool) -> None:
    """List bulk operations, the newest first."""
    skip = (page - 1) * limit
    with database().connect() as tx:
        found, total = operations.list_operations(tx, open_only=open_only, limit=limit, skip=skip)
    if as_json:
        for one in found:
            click.echo(said_of(document(one)))
    elif found:
        now = datetime.now(UTC)
        echo(
            _COLUMNS,
            (
                (
                    short(o.id), age(o.created_at, now), o.kind, o.state, o.total, o.done,
                    o.failed, o.asked_by, filters_of(o),
                )
                for o in found
            ),
        )  # fmt: skip
    else:
        say_none("bulk operations", page, total)
    if (more := total - skip - len(found)) > 0:
        say(f"and {more} more; see --page", err=as_json)


@bulk.command("show")
@_id
@click.option("--wait", is_flag=True, help="Follow it until its tasks have ended.")
@json_option
def show_bulk(id: str, wait: bool, as_json: bool) -> None:
    """Show how a bulk operation stands, and why tasks were not done.

    ID may be its first eight characters. With --wait, the exit code is 1 if some were not done.
    """
    engine = database()
    with engine.connect() as tx:
        operation = operations.get(tx, operations.find_id(tx, id))
    if wait:
        sys.exit(follow(engine, operation, as_json=as_json))
    show(engine, operation, as_json=as_json)


@bulk.command("stop")
@_id
@json_option
@acts()
def stop_bulk(id: str, as_json: bool) -> None:
    """Send no more tasks of a bulk operation; what was sent goes on, the rest stays failed."""
    engine = database()
    with engine.begin() as tx:
        operation = operations.stop(tx, operations.find_id(tx, id))
    if as_json:
        click.echo(said_of(document(operation)))
        return
    say(
        f"stopped: {operation.sent} of {counted(operation.total)} had been sent,"
        f" {operation.under_way} of them are under way"
    )
