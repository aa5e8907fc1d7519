"""The command ``audit``."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Connection
from sqlalchemy.exc import ProgrammingError

from autorenew.cli.common import as_json, database, say, show
from monitoring import audit as auditing
from monitoring.audit import Finding, marks
from monitoring.audit.marks import Mark
from schemas.books import FarSides
from schemas.errors import AutorenewError, ConfigurationError
from schemas.settings import load_settings

_INSUFFICIENT_PRIVILEGE = "42501"


@click.command()
@click.option(
    "--far-sides/--no-far-sides",
    default=None,
    help="Compare the books of gateways and drivers, too. By default: if any are configured.",
)
@click.option(
    "--parts",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Look at so many ranges of ids, each in a short transaction of its own.",
)
@click.option(
    "--mark",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A clean run writes into this file where the next one may continue.",
)
@click.option(
    "--since",
    is_flag=True,
    help="Look only at what changed since the run that wrote --mark; at everything if none did.",
)
@as_json
def audit(
    far_sides: bool | None, parts: int, mark: Path | None, since: bool, as_json: bool
) -> None:
    """Derive the books anew and compare; exit code 1, with what differs, if a check is broken.

    Run it as the database role `readonly`. The gateways and drivers are those of
    AUTORENEW_GATEWAY_URL or AUTORENEW_GATEWAYS, and of AUTORENEW_DRIVER_URLS or AUTORENEW_DRIVERS.

    With --since it may run every few minutes. What was changed past the history, by hand, is found
    by a run over everything: run one every night, with the same --mark.
    """
    if since and mark is None:
        raise click.UsageError("--since needs --mark FILE: where the last clean run ended")
    if since and (far_sides or parts > 1):
        raise click.UsageError("--since cannot be combined with --far-sides or --parts")
    known = None
    if mark is not None:
        marks.prepare(mark)
        known = marks.read(mark) if since else None
    if since and known is None:
        say(f"there is no {mark} yet: looking at everything", err=True)
    run = _everything(far_sides, parts) if known is None else _changed(known)
    settings = load_settings()
    with (
        database(settings).connect() as tx,
        Progress(
            TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True,
        ) as progress,
    ):  # fmt: skip
        bar = progress.add_task("auditing", total=None)
        try:
            # Before it is looked at: what happens meanwhile is looked at again.
            reached = marks.take(tx)
            findings, of = run(tx, lambda done, of: progress.update(bar, completed=done, total=of))
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
                raise
            raise AutorenewError(
                "this database role may not read all books: run the audit as autorenew_readonly,"
                " or as the owner"
            ) from None
    is_clean = not any(finding.broken for finding in findings)
    if as_json:
        show("audit", _COLUMNS, map(_row, findings), json_lines=True)
    else:
        _tell(findings, of)
    if mark is not None and is_clean:
        marks.write(mark, reached)
    sys.exit(0 if is_clean else 1)


Run = Callable[[Connection, auditing.Progress], tuple[list[Finding], str]]
"""Audits; returns what it found, and what the verdict is about, as words behind it."""


def _everything(far_sides: bool | None, parts: int) -> Run:
    books = _books(far_sides)

    def run(tx: Connection, progress: auditing.Progress) -> tuple[list[Finding], str]:
        return auditing.audit(tx, books, parts=parts, progress=progress), ""

    return run


def _changed(known: Mark) -> Run:
    def run(tx: Connection, progress: auditing.Progress) -> tuple[list[Finding], str]:
        found = auditing.audit_since(tx, known, progress=progress)
        return (
            found.findings,
            f", of {found.subjects:,} subjects that changed since {known.at:%F %T} UTC",
        )

    return run


def _books(far_sides: bool | None) -> FarSides | None:
    from workers.bootstrap import books_of

    books = None if far_sides is False else books_of(load_settings())
    if books is not None and books.is_empty:
        if far_sides:
            raise ConfigurationError("no gateway and no driver is configured")
        return None
    return books


_COLUMNS = ("check", "invariant", "verdict", "broken", "ids", "named")


def _row(finding: Finding) -> tuple[object, ...]:
    verdict = "broken" if finding.broken else "holds" if finding.is_done else "not checked"
    return (
        finding.code, finding.invariant, verdict, finding.broken, finding.ids, finding.named
    )  # fmt: skip


def _tell(findings: Sequence[Finding], of: str) -> None:
    """What is broken, with what breaks it; then what was not looked at, and what holds."""
    broken = [finding for finding in findings if finding.broken]
    done = [finding for finding in findings if finding.is_done]
    for finding in broken:
        say(f"broken  {finding.code}: {finding.invariant}")
        for named in finding.named:
            say(f"          {named}")
        if (more := finding.broken - len(finding.named)) > 0:
            say(f"          and {more:,} more")
    for finding in findings:
        if not finding.is_done:
            say(f"not checked  {finding.code}: {finding.invariant}")
    for finding in done:
        if not finding.broken:
            say(f"holds   {finding.code}: {finding.invariant}")
    count = len(done)
    verdict = (
        f"{len(broken)} of {count} checks are broken" if broken else f"all {count} checks hold"
    )
    say(f"{verdict}{of}")
