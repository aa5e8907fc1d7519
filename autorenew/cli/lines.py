"""Lists with one line an item, within 80 columns; texts that are too long are cut off."""

import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from producers.control.naming import SHORT
from schemas.shown import for_terminal

WIDTH = 80


@dataclass(frozen=True, slots=True)
class Column:
    """
    Attributes:
        width: in characters; of the last column it is what is left of the line.
        right: numbers end below each other.
    """

    name: str
    width: int = 0
    right: bool = False


def width() -> int:
    """How wide a line may be: 80, or the terminal, if that is wider."""
    return max(WIDTH, shutil.get_terminal_size().columns if sys.stdout.isatty() else 0)


def lines(
    columns: Sequence[Column], rows: Iterable[Sequence[object]], width: int = WIDTH
) -> Iterator[str]:
    """A line for the names of the columns, and one for each row."""
    for cells in ([column.name for column in columns], *rows):
        yield _line(columns, cells, width)


def _line(columns: Sequence[Column], cells: Sequence[object], width: int) -> str:
    parts = []
    left = width
    for column, cell in zip(columns, cells, strict=True):
        is_last = column is columns[-1]
        room = (column.width or left) if is_last else column.width
        shown = _cut("" if cell is None else for_terminal(str(cell)).strip(), room)
        parts.append(shown.rjust(room) if column.right and not is_last else shown.ljust(room))
        left -= room + 1
    return " ".join(parts).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def echo(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    for line in lines(columns, rows, width()):
        click.echo(line)


def short(id: uuid.UUID) -> str:
    """The beginning of an id, which stands for it in commands."""
    return str(id)[:SHORT]


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago that was: ``40s``, ``15m``, ``3h``, ``2d``."""
    if moment is None:
        return ""
    seconds = max(int((now - moment.astimezone(UTC)).total_seconds()), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size or (unit == "d" and seconds >= size):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
