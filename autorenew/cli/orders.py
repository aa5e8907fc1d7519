"""Commands about orders, rejected documents and the audit."""

import itertools
import sys
import uuid
from collections import Counter
from pathlib import Path

import click
from rich.progress import Progress
from sqlalchemy import Connection, text

from autorenew.cli.common import as_json, clock, database, realms, say, show
from monitoring import audit as auditing
from producers.intake import Answer, Intake, Verdict
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError, ConfigurationError
from schemas.settings import load_settings

BATCH = 500


@click.group()
def order() -> None:
    """Place orders and follow them."""


@order.command()
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
)
@click.option("--upstream", default="file", show_default=True, help="Whose keys these are.")
@as_json
def place(file: Path, upstream: str, as_json: bool) -> None:
    """Place the orders of FILE (NDJSON: one order a line; - is standard input).

    Exit code 1 if an order was not accepted. Placing the file again changes nothing.
    """
    engine = database()
    intake = Intake(engine, CatalogueCache(), clock(engine), realms())
    counts: Counter[str] = Counter()
    with (
        click.open_file(str(file), "rb") as source,
        Progress(disable=not sys.stderr.isatty(), transient=True) as progress,
    ):
        bar = progress.add_task("placing", total=None)
        lines = ((n, line.strip()) for n, line in enumerate(source, 1))
        numbered = ((n, line) for n, line in lines if line)
        while batch := list(itertools.islice(numbered, BATCH)):
            answers = intake.place(upstream, "file", [line for _, line in batch])
            for (number, _), answer in zip(batch, answers, strict=True):
                counts["repeated" if answer.repeated else answer.verdict] += 1
                counts["not accepted"] += answer.verdict is not Verdict.ACCEPTED
                _say(number, answer, as_json)
            progress.advance(bar, len(batch))
    if not as_json:
        said = [f"{counts[v]} {v}" for v in (*Verdict, "repeated") if counts[v]]
        say(", ".join(said) or "no orders in the file")
    sys.exit(1 if counts["not accepted"] else 0)


def _say(number: int, answer: Answer, json_lines: bool) -> None:
    if json_lines:
        row = (
            number, answer.key, answer.verdict, answer.order_id, answer.repeated,
            [problem.model_dump() for problem in answer.problems],
        )  # fmt: skip
        columns = ("line", "key", "verdict", "order", "repeated", "problems")
        show("", columns, [row], json_lines=True)
    elif answer.verdict is not Verdict.ACCEPTED:
        for problem in answer.problems:
            where = f" at {problem.path}" if problem.path else ""
            key = answer.key or "no key"
            say(
                f"line {number} ({key}): {answer.verdict}: {problem.code}{where}:"
                f" {problem.message}",
                err=True,
            )


_BY_KEY = text("""
    SELECT id, upstream, state, reason, problems FROM orders
    WHERE key = CAST(:key AS text)
      AND (CAST(:upstream AS text) IS NULL OR upstream = CAST(:upstream AS text))
""")


@order.command("show")
@click.argument("key")
@click.option("--upstream", help="Needed where several upstreams use the same key.")
@as_json
def show_command(key: str, upstream: str | None, as_json: bool) -> None:
    """Show the timeline of the order with this KEY, across all queues."""
    with database().connect() as tx:
        found = tx.execute(_BY_KEY, {"key": key, "upstream": upstream}).all()
        if not found:
            raise AutorenewError(f"there is no order with key {key!r}")
        if len(found) > 1:
            names = ", ".join(row.upstream for row in found)
            raise AutorenewError(f"several upstreams use key {key!r} ({names}): name --upstream")
        rows = _timeline(tx, found[0].id)
    if not as_json:
        reason = f" ({found[0].reason})" if found[0].reason else ""
        say(f"order {key} of {found[0].upstream}: {found[0].state}{reason}")
        for problem in found[0].problems or []:
            say(f"  {problem['code']} at {problem['path']}: {problem['message']}")
    columns = ("at", "after_s", "subject", "event", "waited_s", "attempt", "detail")
    show("timeline", columns, rows, json_lines=as_json)


def _timeline(tx: Connection, order_id: uuid.UUID) -> list[tuple[object, ...]]:
    rows = tx.execute(
        text("""
            SELECT e.at, coalesce('service ' || s.line || '.' || s.unit, 'order') AS subject,
                   e.name, e.waited, e.attempt, e.detail
            FROM (SELECT CAST(:id AS uuid) AS id UNION ALL
                  SELECT id FROM services WHERE order_id = :id UNION ALL
                  SELECT id FROM payment_requests WHERE order_id = :id) AS subjects
            JOIN events AS e ON e.subject = subjects.id
            LEFT JOIN services AS s ON s.id = e.subject
            ORDER BY e.at, e.id"""),
        {"id": order_id},
    ).all()
    start = rows[0].at if rows else None
    return [
        (
            row.at,
            f"{(row.at - start).total_seconds():.3f}",
            row.subject,
            row.name,
            None if row.waited is None else f"{max(row.waited, 0):.3f}",
            row.attempt,
            ", ".join(f"{k} {v}" for k, v in (row.detail or {}).items() if v is not None),
        )
        for row in rows
    ]


@click.group()
def rejected() -> None:
    """Documents that were not accepted."""


@rejected.command("list")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@as_json
def list_rejected(limit: int, as_json: bool) -> None:
    """List the newest ones with their problems; --json adds the document, secrets masked."""
    with database().connect() as tx:
        rows = tx.execute(
            text("""SELECT received_at, upstream, door, key, code, problems, times, body
                 FROM rejected_documents ORDER BY received_at DESC LIMIT :limit"""),
            {"limit": limit},
        ).all()
    columns = ("received_at", "upstream", "door", "key", "code", "problems", "times", "body")
    if as_json:
        show("", columns, rows, json_lines=True)
        return
    said = [
        (*r[:5], "; ".join(f"{p['path']}: {p['message']}" for p in r.problems), r.times)
        for r in rows
    ]
    show("rejected documents", columns[:-1], said, json_lines=False)


@click.command()
@click.option(
    "--far-sides/--no-far-sides",
    default=None,
    help="Compare the books of gateways and drivers, too. By default: if any are configured.",
)
@as_json
def audit(far_sides: bool | None, as_json: bool) -> None:
    """Check the invariants; exit code 1, with the ids concerned, if one is broken.

    The gateways and drivers are those of AUTORENEW_GATEWAY_URL or AUTORENEW_GATEWAYS, and of
    AUTORENEW_DRIVER_URLS or AUTORENEW_DRIVERS.
    """
    from workers.bootstrap import books_of

    settings = load_settings()
    books = None if far_sides is False else books_of(settings)
    if books is not None and books.is_empty:
        if far_sides:
            raise ConfigurationError("no gateway and no driver is configured")
        books = None
    with database(settings).connect() as tx:
        findings = auditing.audit(tx, books)
    rows = [
        (f.invariant, "broken" if f.broken else "holds", f.broken, " ".join(f.ids))
        for f in findings
    ]
    show("audit", ("invariant", "verdict", "broken", "ids"), rows, json_lines=as_json)
    sys.exit(1 if any(f.broken for f in findings) else 0)
