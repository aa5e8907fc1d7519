"""Commands about tasks: what waits, for what and for how long, and making it ready."""

import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import click
from sqlalchemy import Connection, Engine, text

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json, database, say, show
from autorenew.cli.helping import Commands
from autorenew.cli.selecting import (
    Text,
    counted,
    say_more,
    say_unmatched,
    selects,
    shortened,
)
from producers.control import lanes, naming, running
from producers.control.naming import UnknownName
from producers.control.running import Outcome
from producers.control.selection import About, Filters, Selection, State, Task, describe, find

# Tasks that are changed in one transaction.
AT_ONCE = 500
COLUMNS = (
    "state", "queue", "task", "subject", "order", "customer", "services", "lane", "until", "reason",
    "error", "attempts", "total_attempts", "first_failed_at", "since",
)  # fmt: skip


@click.group(cls=Commands)
def tasks() -> None:
    """What is still to be done: what waits, for what, and since when."""


@tasks.command("list")
@selects(states=True)
@click.option(
    "--limit", type=click.IntRange(1), default=1000, show_default=True, help="So many at most."
)
@as_json
def list_tasks(filters: Filters, limit: int, as_json: bool) -> None:
    """List tasks: those of NAMES, and those that the options select.

    NAMES are ids of subjects, or keys of orders, customers and domains for all that is about them.

    \b
    ready        to be handed over
    waiting      for its time
    backing_off  after a failure, until its next attempt
    dispatched   handed to the broker, and not claimed
    leased       being worked on
    paused       ready or dispatched, and its lane is paused
    failed       for a person: see `autorenew failed`
    """
    with database().connect() as tx:
        selection = find(tx, filters, limit=limit)
        about = describe(tx, selection.tasks)
    show_tasks(selection, about, as_json=as_json)
    say_unmatched(selection.unmatched, "no such task")


def show_tasks(selection: Selection, about: dict[Any, About], *, as_json: bool) -> None:
    rows = [row(task, about[task.subject], as_json=as_json) for task in selection.tasks]
    show("tasks", COLUMNS, rows, json_lines=as_json)
    say_more(selection, as_json=as_json)


def row(task: Task, about: About, *, as_json: bool) -> Sequence[Any]:
    """A task as the columns of :data:`COLUMNS`."""
    services = [str(service) for service in about.services]
    return (
        task.state, task.queue, task.name, task.subject, about.order_key, about.customer,
        services if as_json else shortened(services), task.lane, whole_second(task.until),
        task.reason, task.error, task.attempts, task.total_attempts,
        whole_second(task.first_failed_at), whole_second(task.since),
    )  # fmt: skip


def whole_second(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(microsecond=0)


_EMAIL = text("SELECT email FROM customers WHERE id = :id")
# The newest ones, in order.
_HISTORY = text("""
    SELECT * FROM (
        SELECT at, id, subject, name, attempt, detail FROM events WHERE subject = ANY(:subjects)
        ORDER BY at DESC, id DESC LIMIT :limit
    ) AS newest ORDER BY at, id
""")


@tasks.command("show")
@click.argument("name", type=Text())
@click.option("--upstream", type=Text(), help="Needed where several use the same order key.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="So many subjects, tasks and events (the newest) at most.",
)
@as_json
def show_task(name: str, upstream: str | None, limit: int, as_json: bool) -> None:
    """Show whom NAME is about, its tasks and its history: any id of a list, or a name.

    Also the id of a payment request or of an e-mail, which no other command opens.
    """
    filters = Filters(names=(name,), upstream=upstream)
    with database().connect() as tx:
        subjects = sorted(naming.subjects_of(tx, name, upstream=upstream))
        selection = find(tx, filters, limit=limit)
        listed = {*subjects[:limit], *(task.subject for task in selection.tasks)}
        about = describe(tx, [_Subject(subject) for subject in sorted(listed)])
        emails = {
            customer: tx.execute(_EMAIL, {"id": customer}).scalar()
            for customer in {a.customer for a in about.values() if a.customer}
        }
        events = find_history(tx, subjects, limit)
    said = [
        (
            a.kind, subject, a.customer, emails.get(a.customer or ""), a.order_key,
            [str(s) for s in a.services] if as_json else ", ".join(map(str, a.services)),
            list(a.domains) if as_json else ", ".join(a.domains),
            list(a.plans) if as_json else ", ".join(a.plans),
        )
        for subject, a in about.items()
    ]  # fmt: skip
    columns = ("kind", "subject", "customer", "email", "order", "services", "domains", "plans")
    show("about", columns, said, json_lines=as_json)
    show_tasks(selection, about, as_json=as_json)
    show_history(events, as_json=as_json)


def find_history(tx: Connection, subjects: Sequence[uuid.UUID], limit: int) -> Sequence[Any]:
    """The newest events of subjects, in order."""
    return tx.execute(_HISTORY, {"subjects": list(subjects), "limit": limit}).all()


def show_history(events: Sequence[Any], *, as_json: bool) -> None:
    history = [
        (e.at, e.subject, e.name, e.attempt,
         e.detail if as_json else ", ".join(f"{k} {v}" for k, v in (e.detail or {}).items()))
        for e in events
    ]  # fmt: skip
    show("history", ("at", "subject", "event", "attempt", "detail"), history, json_lines=as_json)


class _Subject:
    def __init__(self, subject: Any) -> None:
        self.subject = subject


@tasks.command("run")
@selects(states=True)
@click.option("--all", "everything", is_flag=True, help="All that the options select.")
@click.option("--limit", type=click.IntRange(1), help="So many of them at most.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@as_json
@acts()
def run_tasks(
    filters: Filters, everything: bool, limit: int | None, dry_run: bool, as_json: bool
) -> None:
    """Make tasks ready now: those of NAMES, or --all that back off or wait for their time.

    A task that backs off keeps its attempts; a failed one begins again. One that was handed to the
    broker is sent again. With --all, failed and dispatched ones are meant only if --state says so.
    Exit code 1 if one of NAMES has no task that could be made ready.
    """
    choose_one(filters, everything)
    if everything and not filters.states:
        filters = replace(filters, states=frozenset({State.WAITING, State.BACKING_OFF}))
    make_ready(filters, limit=limit, dry_run=dry_run, as_json=as_json)


def find_or_nothing_done(
    tx: Connection, filters: Filters, *, limit: int | None = None
) -> Selection:
    """What a command is to act on; an unknown name beside good ones stops it before it acts."""
    try:
        return find(tx, filters, limit=limit)
    except UnknownName as error:
        raise UnknownName(f"{error}\nnothing was done") from None


def choose_one(filters: Filters, everything: bool) -> None:
    if everything == bool(filters.names):
        raise click.UsageError("name SUBJECTS, or --all")


def make_ready(
    filters: Filters, *, limit: int | None, dry_run: bool, as_json: bool = False
) -> None:
    """Make what is selected ready, say what became of it, and exit."""
    engine = database()
    with engine.connect() as tx:
        selection = find_or_nothing_done(tx, filters, limit=limit)
        about = describe(tx, selection.tasks) if dry_run or as_json else {}
    if dry_run:
        show_tasks(selection, about, as_json=as_json)
        say_unmatched(selection.unmatched, _missing(filters))
        if not as_json:
            say(f"{counted(len(selection.tasks))} would be made ready")
        sys.exit(1 if selection.unmatched else 0)
    whole = Outcome()
    for outcome in _in_transactions(engine, selection.tasks):
        whole.ready += outcome.ready
        whole.sent_again += outcome.sent_again
        whole.left += outcome.left
        whole.held += outcome.held
    if as_json:
        _show_outcome(whole, selection.tasks, about)
    else:
        _say_outcome(whole, selection)
        with engine.connect() as tx:
            _say_held(tx, whole.held)
    say_unmatched(selection.unmatched, _missing(filters))
    idle = {task.subject for task in whole.left} - {t.subject for t in _done(whole)}
    sys.exit(1 if selection.unmatched or (filters.names and idle) else 0)


def _missing(filters: Filters) -> str:
    return "no failed task" if filters.states == {State.FAILED} else "no such task"


def _done(outcome: Outcome) -> list[Any]:
    return [*outcome.ready, *outcome.sent_again]


def _in_transactions(engine: Engine, chosen: Sequence[Task]) -> Iterator[Outcome]:
    for start in range(0, len(chosen), AT_ONCE):
        with engine.begin() as tx:
            outcome = running.run(tx, chosen[start : start + AT_ONCE])
        yield outcome


def _say_outcome(outcome: Outcome, selection: Selection) -> None:
    say(f"{counted(len(outcome.ready))} {'is' if len(outcome.ready) == 1 else 'are'} ready again")
    if outcome.sent_again:
        say(f"{counted(len(outcome.sent_again))} sent to the broker again")
    for task in outcome.left:
        say(f"{task.name} of {task.subject}: no change, it is {task.state}", err=True)
    if selection.more:
        say(f"{selection.more} more, left by --limit")


def _say_held(tx: Connection, held: Sequence[Task]) -> None:
    for lane in sorted({task.lane for task in held}):
        number = sum(task.lane == lane for task in held)
        say(f"{number} of them {'waits' if number == 1 else 'wait'}: lane {lane} is paused")
        for pause in lanes.paused(tx, lane):
            say(f"  pause {pause}")


def _show_outcome(outcome: Outcome, chosen: Sequence[Task], about: dict[Any, About]) -> None:
    ready, again = set(outcome.ready), set(outcome.sent_again)
    said = [
        (*row(task, about[task.subject], as_json=True),
         "ready" if task.id in ready else "sent_again" if task.id in again else "no_change")
        for task in chosen
    ]  # fmt: skip
    show("", (*COLUMNS, "became"), said, json_lines=True)
