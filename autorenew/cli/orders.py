"""Commands about orders, rejected documents and the audit."""

import itertools
import sys
from collections import Counter
from pathlib import Path

import click
from sqlalchemy import text

from autorenew.cli.common import as_json, clock, database, realms, say, show
from autorenew.cli.helping import Commands
from autorenew.cli.progress import rows_done
from producers.intake import Answer, Intake, Verdict
from producers.views import orders as views
from producers.views import timelines
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError
from schemas.settings import load_settings

BATCH = 500


@click.group(cls=Commands)
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
        rows_done(
            "placing", "place the file again: what was placed is not placed twice"
        ) as advance,
    ):
        lines = ((n, line.strip()) for n, line in enumerate(source, 1))
        numbered = ((n, line) for n, line in lines if line)
        while batch := list(itertools.islice(numbered, BATCH)):
            answers = intake.place(upstream, "file", [line for _, line in batch])
            for (number, _), answer in zip(batch, answers, strict=True):
                counts["repeated" if answer.repeated else answer.verdict] += 1
                counts["not accepted"] += answer.verdict is not Verdict.ACCEPTED
                _say(number, answer, as_json)
            advance(len(batch))
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


@order.command("show")
@click.argument("key")
@click.option("--upstream", help="Needed where several upstreams use the same key.")
@as_json
def show_command(key: str, upstream: str | None, as_json: bool) -> None:
    """Show the timeline of the order with this KEY, across all queues."""
    with database().connect() as tx:
        try:
            found = views.find(tx, key, upstream=upstream)
        except views.SeveralOrders as error:
            raise AutorenewError(f"{error}: name --upstream") from None
        if found is None:
            raise AutorenewError(f"there is no order with key {key!r}")
        happened = timelines.of_order(tx, found.id)
    if not as_json:
        reason = f" ({found.reason})" if found.reason else ""
        say(f"order {key} of {found.upstream}: {found.state}{reason}")
        for problem in found.problems:
            say(f"  {problem.code} at {problem.path}: {problem.message}")
    columns = ("at", "after_s", "subject", "event", "waited_s", "attempt", "detail")
    rows = [
        (
            one.at, f"{one.after_seconds:.3f}", one.about, one.event,
            None if one.waited is None else f"{one.waited:.3f}", one.attempt,
            ", ".join(f"{name} {value}" for name, value in one.detail.items()),
        )
        for one in happened
    ]  # fmt: skip
    show("timeline", columns, rows, json_lines=as_json)


@click.group(cls=Commands)
def rejected() -> None:
    """Documents that were not accepted."""


@rejected.command("list")
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="So many at most."
)
@as_json
def list_rejected(limit: int, as_json: bool) -> None:
    """List the newest ones with their problems; --json adds the document, secrets masked.

    With AUTORENEW_BROKER_URL it also says how many documents are set aside on intake.dead.
    """
    with database().connect() as tx:
        rows = tx.execute(
            text("""SELECT received_at, upstream, door, key, code, problems, times, body
                 FROM rejected_documents ORDER BY received_at DESC LIMIT :limit"""),
            {"limit": limit},
        ).all()
    columns = ("received_at", "upstream", "door", "key", "code", "problems", "times", "body")
    if as_json:
        show("", columns, rows, json_lines=True)
        _say_set_aside()
        return
    said = [
        (*r[:5], _summed_up([f"{p['path']}: {p['message']}" for p in r.problems]), r.times)
        for r in rows
    ]
    show("rejected documents", columns[:-1], said, json_lines=False)
    _say_set_aside()


_PROBLEMS_SHOWN = 5


def _summed_up(problems: list[str]) -> str:
    more = len(problems) - _PROBLEMS_SHOWN
    rest = [f"and {more} more (--json lists them)"] if more > 0 else []
    return "; ".join(problems[:_PROBLEMS_SHOWN] + rest)


def _say_set_aside() -> None:
    """What intake could not even reject, if there is any; it is kept by the broker."""
    from producers.intake import dead

    settings = load_settings()
    if settings.broker_url is None:
        return
    try:
        count = dead.count(settings.need("broker_url"))
    except AutorenewError as error:
        say(str(error), err=True)
        return
    if count:
        say(
            f"{count} documents are set aside on intake.dead: autorenew broker requeue-dead",
            err=True,
        )
