"""The progress of reading a file, for people: on standard error, and only on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from autorenew.cli.common import say


@contextmanager
def rows_done(verb: str, again: str) -> Iterator[Callable[[int], None]]:
    """How many rows were done so far; what comes out is called with the number of each batch.

    Args:
        verb: what is done to them, such as ``placing``.
        again: what a person does after Ctrl-C, said with how far it was.
    """
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress.advance(bar, rows)

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}"),
        TimeElapsedColumn(),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    try:
        with progress:
            bar = progress.add_task(verb, total=None)
            yield advance
    except KeyboardInterrupt:
        say(f"{verb}: interrupted after {done} rows; {again}", err=True)
        raise
