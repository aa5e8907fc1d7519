"""What the commands share: the database they talk to, and how they show things."""

import json
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from schemas.database import check_schema, connect
from schemas.settings import Settings, load_settings

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one document a line.")


def database(settings: Settings | None = None, *, application: str = "autorenew cli") -> Engine:
    """The database of AUTORENEW_DATABASE_URL, checked to be migrated."""
    settings = settings or load_settings()
    engine = connect(settings.need("database_url"), application=application)
    check_schema(engine)
    return engine


def show(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, json_lines: bool
) -> None:
    """Rows as a table for people, or as JSON lines for programs."""
    rows = list(rows)
    if json_lines:
        for row in rows:
            click.echo(json.dumps(dict(zip(columns, row, strict=True)), default=str))
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    Console().print(table if rows else f"{title}: none")


def on_stop(stop: Callable[[], None]) -> None:
    """Have SIGTERM and Ctrl-C ask for a clean end; the second one is not waited for."""

    def handle(_signal: int, _frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
