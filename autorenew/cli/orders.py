"""Commands about orders, rejected documents, failed tasks, lanes and the audit."""

import itertools
import sys
import uuid
from collections import Counter
from pathlib import Path

import click
from rich.progress import Progress
from sqlalchemy import Connection, text

from autorenew.cli.common import as_json, clock, database, realms, say, show
from producers.control import failed as failures
from producers.control import lanes as all_lanes
from producers.intake import Answer, Intake, Verdict
from producers.steps import REFUND
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError
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


@click.group()
def failed() -> None:
    """Tasks that wait for a person."""


_queue = click.option("--queue", help="Only on this queue.")
_reason = click.option("--reason", help="Only with this reason.")


@failed.command("list")
@_queue
@_reason
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@as_json
def list_failed(queue: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List failed tasks with reason, error and time, and what can be done about each."""
    with database().connect() as tx:
        tasks = failures.list_failed(tx, queue=queue, reason=reason, limit=limit)
    columns = (
        "queue", "task", "subject", "order", "plan", "reason", "error", "attempts", "since",
        "possible",
    )  # fmt: skip
    rows = [
        (t.queue, t.name, t.subject, t.order_key, t.plan, t.reason, t.error, t.attempts,
         t.since.replace(microsecond=0), list(t.actions) if as_json else ", ".join(t.actions))
        for t in tasks
    ]  # fmt: skip
    show("failed tasks", columns, rows, json_lines=as_json)


@failed.command("retry")
@click.argument("subjects", nargs=-1, type=click.UUID)
@click.option("--all", "everything", is_flag=True, help="All that --queue and --reason select.")
@_queue
@_reason
def retry_failed(
    subjects: tuple[uuid.UUID, ...], everything: bool, queue: str | None, reason: str | None
) -> None:
    """Retry SUBJECTS, or --all, from the first attempt and with the same idempotency keys."""
    if everything == bool(subjects):
        raise click.UsageError("name SUBJECTS, or --all")
    with database().begin() as tx:
        chosen = list(subjects) or [
            task.subject
            for task in failures.list_failed(tx, queue=queue, reason=reason, limit=1_000_000)
        ]
        count = failures.retry(tx, chosen)
    say(f"{count} tasks are ready again")
    sys.exit(0 if count or everything else 1)


@failed.command("cancel")
@click.argument("subjects", nargs=-1, required=True, type=click.UUID)
@click.confirmation_option(prompt="Give these up, and refund what was paid for them?")
def cancel_failed(subjects: tuple[uuid.UUID, ...]) -> None:
    """Give SUBJECTS up; what was paid for them is credited and refunded.

    \b
    An order       that is not priced or not paid: it is cancelled
    A service      that is not delivered: it is cancelled
    A charge       of a renewal: it counts as declined, once none may have taken money
    An e-mail      counts as one that cannot be delivered; if it could not be written, what
                   is due of it is claimed anew
    A decision     (request, withdraw, suspend, terminate) that is not due any more: dropped
    """
    engine = database()
    with engine.begin() as tx:
        catalogue, now = CatalogueCache().current(tx), clock(engine).now()
        for subject in subjects:
            failures.cancel(tx, subject, catalogue, now)
    say(f"{len(subjects)} cancelled")


@failed.command("done")
@click.argument("subjects", nargs=-1, required=True, type=click.UUID)
@click.option("--reason", required=True, help="Kept in the history: who did what, and where.")
@click.confirmation_option(
    prompt="Is each of these, at the infrastructure, as it should be by now?"
)
def done_by_hand(subjects: tuple[uuid.UUID, ...], reason: str) -> None:
    """Say that the services SUBJECTS are as they should be: it was done by hand.

    For a failed `converge` of a service that was delivered: to suspend, resume, extend or delete
    it. Run it as the database role `provisioning`.
    """
    from workers import by_hand

    engine = database()
    with engine.begin() as tx:
        for subject in subjects:
            by_hand.done(tx, subject, reason, CatalogueCache(), clock(engine))
    say(f"{len(subjects)} done by hand")


@failed.command("settle")
@click.argument("subject", type=click.UUID)
@click.option("--reference", help="Of the payment: the bank's or the gateway's.")
@click.option("--not-taken", is_flag=True, help="A charge in doubt: nothing was taken.")
@click.option("--in-doubt", is_flag=True, help="A refund: the gateway has not made it, I looked.")
@click.option("--reason", help="Kept in the history.")
@click.confirmation_option(prompt="Is that so in the books of the gateway, or of the bank?")
def settle_by_hand(
    subject: uuid.UUID, reference: str | None, not_taken: bool, in_doubt: bool, reason: str | None
) -> None:
    """Say how the failed refund or charge of SUBJECT has ended.

    \b
    A refund    was paid back otherwise: --reference
    A charge    that is in doubt was taken: --reference; or was not: --not-taken

    Run it as the database role `billing`.
    """
    from workers import by_hand

    if (reference is None) != not_taken:
        raise click.UsageError("name --reference, or --not-taken")
    settings = load_settings()
    engine = database(settings)
    time = clock(engine, settings)
    with engine.begin() as tx:
        if REFUND in failures.names_of(tx, subject):
            if reference is None:
                raise AutorenewError(f"{subject} is a refund: name the --reference of its payment")
            by_hand.settle_refund(
                tx, subject, reference, reason, CatalogueCache(), time, in_doubt=in_doubt
            )
        else:
            by_hand.settle_charge(
                tx, subject, reference, reason, CatalogueCache(), time,
                settings.order_charge_delays,
            )  # fmt: skip
    say("settled")


@click.group()
def lanes() -> None:
    """Pause and resume groups of tasks: of a driver, of the gateway, of suspensions and ends."""


@lanes.command("list")
@as_json
def list_lanes(as_json: bool) -> None:
    """List the lanes, how many tasks wait in each, and which are paused."""
    with database().connect() as tx:
        rows = all_lanes.list_lanes(tx)
    show("lanes", ("lane", "queue", "tasks", "paused_at", "reason"), rows, json_lines=as_json)


@lanes.command()
@click.argument("lane")
@click.option("--reason", required=True)
def pause(lane: str, reason: str) -> None:
    """Start no further task in LANE; running tasks finish."""
    with database().begin() as tx:
        all_lanes.pause(tx, lane, reason)
    say(f"{lane} is paused")


@lanes.command()
@click.argument("lane")
def resume(lane: str) -> None:
    """Start the tasks that wait in LANE."""
    with database().begin() as tx:
        was_paused = all_lanes.resume(tx, lane)
    say(f"{lane} is resumed" if was_paused else f"{lane} was not paused")
