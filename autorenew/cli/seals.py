"""Commands about the hash chains of documents and history."""

import json
import sys
from pathlib import Path

import click

from autorenew.cli.common import as_json, database, say, show
from autorenew.cli.helping import Commands
from monitoring.seals import Head, heads, missing
from schemas.errors import ConfigurationError


@click.group(cls=Commands)
def seals() -> None:
    """Heads of the hash chains of invoices, credit notes and history.

    `audit` finds what was changed after it was hashed. Whoever may write everything can compute all
    hashes anew: keep the heads where they cannot write, and check them later.
    """


@seals.command("heads")
@as_json
def heads_command(as_json: bool) -> None:
    """Print the last number and hash of every chain; with --json to be kept elsewhere."""
    with database().connect() as tx:
        rows = [(head.chain, head.number, head.hash) for head in heads(tx)]
    show("heads", ("chain", "number", "hash"), rows, json_lines=as_json)


@seals.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check that the heads in FILE, as `heads --json` printed them, are still in the chains.

    Exit code 1 if one is not: what was written up to it is not what it was.
    """
    kept = _read(file)
    with database().connect() as tx:
        gone = missing(tx, kept)
    for head in gone:
        say(f"{head.chain} {head.number}: not what it was when this head was kept", err=True)
    say(f"{len(kept) - len(gone)} of {len(kept)} heads are in the chains")
    if gone:
        sys.exit(1)


def _read(file: Path) -> list[Head]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from None
    found = []
    for number, text in enumerate(lines, 1):
        try:
            if text.strip():
                found.append(Head(**json.loads(text)))
        except (TypeError, ValueError):
            raise ConfigurationError(f"line {number} is no head of a chain") from None
    if not found:
        raise ConfigurationError("the file has no heads of chains")
    return found
