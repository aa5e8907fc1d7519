"""The command ``audit``."""

import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy.exc import ProgrammingError

from autorenew.cli.common import as_json, database, say, show
from monitoring import audit as auditing
from monitoring.audit import Finding
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
@as_json
def audit(far_sides: bool | None, parts: int, as_json: bool) -> None:
    """Derive the books anew and compare; exit code 1, with what differs, if a check is broken.

    Run it as the database role `readonly`. The gateways and drivers are those of
    AUTORENEW_GATEWAY_URL or AUTORENEW_GATEWAYS, and of AUTORENEW_DRIVER_URLS or AUTORENEW_DRIVERS.
    """
    from workers.bootstrap import books_of

    settings = load_settings()
    books = None if far_sides is False else books_of(settings)
    if books is not None and books.is_empty:
        if far_sides:
            raise ConfigurationError("no gateway and no driver is configured")
        books = None
    with (
        database(settings).connect() as tx,
        Progress(
            TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True,
        ) as progress,
    ):  # fmt: skip
        bar = progress.add_task("auditing", total=None)
        try:
            findings = auditing.audit(
                tx,
                books,
                parts=parts,
                progress=lambda done, of: progress.update(bar, completed=done, total=of),
            )
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
                raise
            raise AutorenewError(
                "this database role may not read all books: run the audit as autorenew_readonly,"
                " or as the owner"
            ) from None
    if as_json:
        show("audit", _COLUMNS, map(_row, findings), json_lines=True)
    else:
        _tell(findings)
    sys.exit(1 if any(finding.broken for finding in findings) else 0)


_COLUMNS = ("check", "invariant", "verdict", "broken", "ids", "named")


def _row(finding: Finding) -> tuple[object, ...]:
    verdict = "broken" if finding.broken else "holds"
    return (
        finding.code, finding.invariant, verdict, finding.broken, finding.ids, finding.named
    )  # fmt: skip


def _tell(findings: Sequence[Finding]) -> None:
    """What is broken, with what breaks it; then what holds."""
    broken = [finding for finding in findings if finding.broken]
    for finding in broken:
        say(f"broken  {finding.code}: {finding.invariant}")
        for named in finding.named:
            say(f"          {named}")
        if (more := finding.broken - len(finding.named)) > 0:
            say(f"          and {more:,} more")
    for finding in findings:
        if not finding.broken:
            say(f"holds   {finding.code}: {finding.invariant}")
    count = len(findings)
    say(f"{len(broken)} of {count} checks are broken" if broken else f"all {count} checks hold")
