"""The command ``autorenew service import``: services of another system."""

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import click

from autorenew.cli.common import as_json, clock, database, realms, say, show
from autorenew.cli.progress import rows_done
from monitoring.forecast import Decision
from producers.imports.importing import Reject
from producers.imports.importing import import_services as import_rows
from producers.imports.prospects import Prospect
from producers.imports.rows import Form
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError
from schemas.shown import for_csv
from schemas.values import Money


@click.command("import")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "ndjson"]),
    help="Needed where FILE does not end in .csv or .ndjson.",
)
@click.option(
    "--rejects",
    "rejects_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for rejected rows. [default: FILE.rejects.csv]",
)
@click.option(
    "--upstream", required=True, help="Whose customers these are: orders for them come from it."
)
@click.option(
    "--dry-run", is_flag=True, help="Report what would happen; change nothing in the database."
)
@as_json
def import_services(
    file: Path,
    form: Form | None,
    rejects_path: Path | None,
    upstream: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import the services of FILE, one a line (CSV with a header, or NDJSON; - is standard input).

    \b
    Fields; those in brackets are optional:
      customer plan period resource_id expires_on
      [mode]                    automatic (default), manual or stop
      [anchor]                  the day its periods count from
      [state]                   active (default) or suspended
      [contract_version]        the newest version the customer accepted
      [payment_method]          a token; [payment_method_expires] its month or day
      [configuration]           a JSON object
      [subsidiary country language email vat_number name company address]
                                of a customer that is not known yet

    Rejected rows are written to a file, with line, codes and reasons, payment methods redacted.
    Exit code 1 if a row was rejected. Importing the file again changes nothing.

    Then comes what becomes of the imported services, with the money; see it with --dry-run before
    anything is charged. Nobody is charged before having been told, and what takes more periods than
    the policy's catch_up to reach the future waits for its customer.
    """
    form = form or _form_of(file)
    is_stdin = str(file) == "-"
    default = None if is_stdin else file.with_name(f"{file.name}.rejects.csv")
    path = rejects_path or default
    if path is not None and not is_stdin and path.exists() and path.samefile(file):
        raise click.UsageError("--rejects is FILE itself")
    rejects = _RejectsFile(path)
    engine = database()
    with (
        click.open_file(str(file), "rb") as source,
        rejects,
        rows_done("importing", "import the file again: it goes on") as advance,
    ):
        counts = import_rows(
            engine,
            CatalogueCache(),
            clock(engine),
            cast(BinaryIO, source),
            form,
            rejects.write,
            advance,
            realm=realms().of(upstream, "import") or upstream,
            dry_run=dry_run,
        )
    if not counts.rejected and default is not None and path == default:
        default.unlink(missing_ok=True)  # of an earlier import, whose rows are corrected now
    where = str(path) if path is not None and counts.rejected else None
    if as_json:
        summary: dict[str, Any] = {
            "imported": counts.imported,
            "known": counts.known,
            "rejected": counts.rejected,
            "rejects": where,
            "dry_run": dry_run,
            "prospects": [
                {
                    "decision": prospect.decision,
                    "is_late": prospect.is_late,
                    "services": prospect.services,
                    "net": {"amount": prospect.net, "currency": prospect.currency},
                }
                for prospect in counts.prospects
            ],
        }
        click.echo(json.dumps(summary))
    else:
        would = "would be " if dry_run else ""
        say(
            f"{counts.imported} {would}imported, {counts.known} already known,"
            f" {counts.rejected} {would}rejected" + (f" (see {where})" if where else "")
        )
        _show_prospects(counts.prospects)
    sys.exit(1 if counts.rejected else 0)


# (decision, whether its first day of charging has passed) -> what happens to the service.
_PROSPECTS = {
    (Decision.WILL_RENEW, False): "charged on their days",
    (Decision.WILL_RENEW, True): "charged as soon as their customers were told",
    (Decision.UNDECIDED_BEHIND, True): "expired too long ago to be charged by themselves",
    (Decision.NOT_ROLLED_OUT, False): "not charged: renewal is not switched on",
    (Decision.NOT_ROLLED_OUT, True): "not charged, and late: renewal is not switched on",
}


def _show_prospects(prospects: Sequence[Prospect]) -> None:
    if not prospects:
        return
    say("")
    show(
        "what becomes of them:",
        ("what", "services", "net_to_be_paid"),
        [
            (
                _PROSPECTS.get((p.decision, p.is_late)) or _phrase(p),
                f"{p.services:,}",
                str(Money(p.net, p.currency)),
            )
            for p in prospects
        ],
        json_lines=False,
    )


def _phrase(prospect: Prospect) -> str:
    words = prospect.decision.replace("undecided_", "undecided: ").replace("_", " ")
    return f"{words}, and late" if prospect.is_late else words


def _form_of(file: Path) -> Form:
    match file.suffix.lower():
        case ".csv":
            return "csv"
        case ".ndjson":
            return "ndjson"
    raise click.UsageError(f"{file} ends in neither .csv nor .ndjson: use --format")


class _RejectsFile:
    """A CSV file, created when the first row is written.

    Args:
        path: None: standard error.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._writer: Any = None

    def __enter__(self) -> "_RejectsFile":
        return self

    def write(self, reject: Reject) -> None:
        if self._writer is None:
            self._open()
        codes = dict.fromkeys(problem.code for problem in reject.problems)
        message = "; ".join(problem.message for problem in reject.problems)
        self._writer.writerow((reject.line, " ".join(codes), for_csv(message), for_csv(reject.row)))

    def _open(self) -> None:
        if self._path is None:
            target: TextIO = sys.stderr
        else:
            # It holds customers' data: readable by this user only.
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            except OSError as error:
                raise AutorenewError(f"--rejects: {error}") from None
            target = self._file = os.fdopen(descriptor, "w", encoding="utf-8", newline="")
        self._writer = csv.writer(target, lineterminator="\n")
        self._writer.writerow(("line", "code", "message", "row"))

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
