"""What the commands share: the database, the clock, and tables for people and programs."""

import json
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import click
from sqlalchemy import Engine

from producers.intake.realms import Realms
from producers.presence import Presence
from schemas.clock import Clock
from schemas.database import check_schema, connect
from schemas.role_check import check_role
from schemas.settings import Settings, load_settings
from schemas.shown import for_terminal
from schemas.virtual_clock import clock_of

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one document a line.")


def database(settings: Settings | None = None, *, application: str | None = None) -> Engine:
    """The engine for AUTORENEW_DATABASE_URL; it is disposed of when the command ends.

    Args:
        application: the name of a process of the fleet; None: for a command, whose statements may
            take as long as its user waits.

    Raises:
        ConfigurationError: the database cannot be reached, or was not migrated.
    """
    settings = settings or load_settings()
    url = settings.need("database_url")
    engine = connect(url, application=application or "autorenew cli", patient=application is None)
    click.get_current_context().call_on_close(engine.dispose)
    check_schema(engine)
    return engine


def read_database(settings: Settings, *, application: str) -> Engine:
    """The engine for AUTORENEW_READ_DATABASE_URL, of a process that shows things.

    Raises:
        ConfigurationError: as :func:`database`.
    """
    engine = connect(settings.need("read_database_url"), application=application)
    click.get_current_context().call_on_close(engine.dispose)
    check_schema(engine)
    check_role(engine, "readonly")
    return engine


def present(engine: Engine, process: str) -> None:
    """Have the fleet know that this process is there, until the command ends.

    Args:
        process: as in :class:`producers.presence.Presence`.
    """
    click.get_current_context().call_on_close(Presence(engine, process).keep().end)


def clock(engine: Engine, settings: Settings | None = None) -> Clock:
    """The clock of this database's fleet."""
    settings = settings or load_settings()
    return clock_of(engine, virtual=settings.clock == "virtual")


def realms(settings: Settings | None = None) -> Realms:
    """Which upstreams share their customers."""
    return Realms((settings or load_settings()).realms)


def on_stop(stop: Callable[[], None]) -> None:
    """Call ``stop`` on SIGTERM and Ctrl-C; a second one ends the process at once."""

    def handle(_signal: int, _frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def show(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, json_lines: bool
) -> None:
    """Rows as a table for people, or as JSON lines for programs."""
    rows = list(rows)
    if json_lines:
        for row in rows:
            click.echo(json.dumps(dict(zip(columns, row, strict=True)), default=_text))
    elif rows:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo("\n".join(table(title, columns, rows, width)))
    else:
        click.echo(f"{title}: none")


def said_of(document: dict[str, Any]) -> str:
    """A document as JSON, on one line."""
    return json.dumps(document, default=_text)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None
) -> list[str]:
    """The lines of a table.

    Args:
        width: of the terminal: long texts are folded between words; if that is not enough, columns
            without a value are left out, and the last ones stand below their row, with their
            names. None: each row is one line, however long.
    """
    header = [name.replace("_", " ") for name in columns]
    days = {cell.astimezone(UTC).date() for row in rows for cell in row if _is_time(cell)}
    if width is not None and len(days) == 1:  # the date goes into the title
        title = f"{title} ({days.pop()} UTC)"
        rows = [[_time_of_day(cell) if _is_time(cell) else cell for cell in row] for row in rows]
    cells = [[_text(cell) for cell in row] for row in rows]
    by_column = list(zip(header, *cells, strict=True))
    if width is None:
        natural = [max(map(len, column)) for column in by_column]
        return [title, *_folded([header, *cells], natural, gap=2)]
    if (fitted := _fitted(by_column, len(header), width)) is not None:
        return [title, *_folded([header, *cells], *fitted)]
    filled = [column for column in by_column if any(column[1:])] or by_column[:1]
    header, *cells = map(list, zip(*filled, strict=True))
    for count in range(len(header), 1, -1):
        if (fitted := _fitted(filled, count, width)) is not None:
            return [title, *_with_rest_below(header, cells, *fitted, width)]
    return [title, *_one_field_a_line(header, cells)]


# A text that needs more of them in its column is easier to read below its row.
_MOST_LINES = 5


def _fitted(
    by_column: Sequence[Sequence[str]], count: int, width: int
) -> tuple[list[int], int] | None:
    """Widths of the first columns and the gap between them; None: they do not fit."""
    first = by_column[:count]
    natural = [max(map(len, column)) for column in first]
    least = [_least_width(name, texts) for name, *texts in first]
    for gap in (2, 1):
        widths = _shrunk(natural, least, width - gap * (count - 1))
        if widths is not None and all(
            whole <= _MOST_LINES * folded for whole, folded in zip(natural, widths, strict=True)
        ):
            return widths, gap
    return None


def _with_rest_below(
    header: Sequence[str], cells: Sequence[Sequence[str]], widths: list[int], gap: int, width: int
) -> list[str]:
    """Rows of the first columns; what the others say follows each row, indented."""
    count = len(widths)
    lines = _folded([header[:count]], widths, gap)
    for row in cells:
        lines += _folded([row[:count]], widths, gap)
        rest = zip(header[count:], row[count:], strict=True)
        said = "; ".join(f"{name}: {text}" for name, text in rest if text)
        lines += textwrap.wrap(
            said, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
    return lines


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _least_width(name: str, texts: Sequence[str]) -> int:
    """The narrowest width of a column: short cells stay whole, long ones are folded between words.

    A word is broken only if it is longer than words usually are, and never if it is a UUID.
    """
    header = max(map(len, name.split()))
    if (whole := max(map(len, texts))) <= 12:
        return max(header, whole)
    longest = 16 if any(" " in text for text in texts) else 24
    words = [word for text in texts for word in text.split()]
    return max(header, *(len(w) if _UUID.search(w) else min(len(w), longest) for w in words))


def _shrunk(natural: list[int], least: list[int], available: int) -> list[int] | None:
    """Widths that fit, reducing the widest column first; None if not even the least widths fit."""
    if sum(least) > available:
        return None
    widths = list(natural)
    while sum(widths) > available:
        _, widest = max((w, i) for i, w in enumerate(widths) if w > least[i])
        widths[widest] -= 1
    return widths


def _folded(rows: Iterable[Sequence[str]], widths: list[int], gap: int) -> list[str]:
    lines = []
    for row in rows:
        cells = [
            textwrap.wrap(text, max(width, 1), break_on_hyphens=False)
            for text, width in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
            lines.append((" " * gap).join(padded).rstrip())
    return lines


def _one_field_a_line(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    margin = max(map(len, header))
    lines = []
    for row in rows:
        named = zip(header, row, strict=True)
        lines += ["", *(f"{name.ljust(margin)}  {text}" for name, text in named if text)]
    return lines


def _is_time(cell: Any) -> bool:
    return isinstance(cell, datetime)


def _time_of_day(moment: datetime) -> str:
    return _text(moment).partition("T")[2].removesuffix("Z")


def _text(cell: Any) -> str:
    """A value as one line that is safe to show."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        precision = "milliseconds" if cell.microsecond else "seconds"
        return cell.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")
    return for_terminal(str(cell)).strip()


def say(line: str, *, err: bool = False) -> None:
    """Print one line in which others may have chosen some of the text."""
    click.echo(for_terminal(line), err=err)
