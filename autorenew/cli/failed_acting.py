"""Commands that retry and give up what has failed: some by name, or many in bulk."""

import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NoReturn

import click
from sqlalchemy import Connection, Engine, text

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json as json_option
from autorenew.cli.common import clock, database, said_of, say
from autorenew.cli.following import document, follow
from autorenew.cli.lines import short
from autorenew.cli.selecting import counted, say_unmatched, selects
from autorenew.cli.tasks import find_or_nothing_done, make_ready
from producers.control import bulk, groups
from producers.control import failed as failures
from producers.control.naming import UnknownName
from producers.control.selection import Filters, State
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError
from schemas.values import BulkKind, Money

# Of what is asked about, or only said, so many tasks are listed.
LISTED = 20
ALL = click.option("--all", "everything", is_flag=True, help="Every one, without a filter.")
RATE = click.option("--rate", help="So many tasks a second at most: 5, or 5/s.")
WAIT = click.option(
    "--wait/--no-wait", " /--detach", "wait", default=None,
    help="Follow it until its tasks have ended, or return at once. By default it is followed,"
    " unless tasks are named.",
)  # fmt: skip


def per_second(said: str | None) -> float | None:
    if said is None:
        return None
    try:
        rate = float(said.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not bulk.LEAST_RATE <= rate <= 1e6:
        raise click.BadParameter(f"{said!a} is not a rate such as 5/s", param_hint="--rate")
    return rate


def check_chosen(filters: Filters, everything: bool) -> None:
    if not filters and not everything:
        raise click.UsageError("name SUBJECTS, filter by options, or say --all")
    if filters.names and everything:
        raise click.UsageError("name SUBJECTS, or say --all")


def each(
    subjects: Iterable[uuid.UUID],
    do: Callable[[Connection, uuid.UUID], None],
    engine: Engine,
    what: str,
    *,
    missing: int = 0,
    as_json: bool = False,
) -> NoReturn:
    """Do something for each subject in a transaction of its own, say what became of it, and exit:
    with 1 if some could not be done, with 2 if none could.

    Args:
        what: became of those it was done for, such as ``cancelled``.
        missing: how many more there are that nothing can be done for.
    """
    done = 0
    left = missing
    became: dict[uuid.UUID, str | None] = {}
    for subject in dict.fromkeys(subjects):
        try:
            with engine.begin() as tx:
                do(tx, subject)
            done += 1
            became[subject] = None
        except AutorenewError as error:
            say(f"autorenew: {error}", err=True)
            left += 1
            became[subject] = str(error)
    if as_json:
        for subject, problem in became.items():
            outcome = "no_change" if problem else what.replace(" ", "_")
            click.echo(said_of({"subject": subject, "became": outcome, "problem": problem}))
    else:
        say(f"{done} {what}" + (f", {left} not" if left else ""))
    sys.exit(0 if not left else 1 if done else 2)


@click.command("retry")
@selects()
@ALL
@click.option("--limit", type=click.IntRange(1), help="So many of them at most.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@RATE
@click.option(
    "--all-at-once",
    is_flag=True,
    help="Not in batches of 1, 10, 100, …, and not halted if they fail again.",
)
@WAIT
@json_option
@acts()
def retry_failed(
    filters: Filters, everything: bool, limit: int | None, dry_run: bool, rate: str | None,
    all_at_once: bool, wait: bool | None, as_json: bool,
) -> None:  # fmt: skip
    """Retry what fits, from the first attempt and with the same idempotency keys.

    Only the failed tasks that are selected: not others of the same subjects, and none that fail
    later. NAMES are retried at once. What options or --all select is retried by the fleet, in
    batches of 1, 10, 100, …, and halts if a task fails again in the same way; Ctrl-C leaves it
    running: see `autorenew bulk`. Exit code 1 if some could not be, or failed again.
    """
    check_chosen(filters, everything)
    so_many = per_second(rate)
    if dry_run:
        say_dry(filters, limit, as_json=as_json)
    elif filters.names and wait is None and rate is None and not all_at_once:
        chosen = replace(filters, states=frozenset({State.FAILED}))
        make_ready(chosen, limit=limit, dry_run=False, as_json=as_json)
    else:
        start(
            BulkKind.RETRY, filters, limit=limit, rate=so_many, all_at_once=all_at_once,
            wait=wait is not False, as_json=as_json,
        )  # fmt: skip


def say_dry(
    filters: Filters, limit: int | None, *, what: str = "would be retried", refunds: bool = False,
    as_json: bool,
) -> NoReturn:  # fmt: skip
    """Say what fits, by groups and the first of it, and exit.

    Args:
        refunds: say how much money goes back, too.
    """
    from autorenew.cli.failed import echo_failed, show_groups

    with database().connect() as tx:
        found = groups.groups(tx, filters)
        selection = failures.select(tx, filters, limit=min(limit or LISTED, LISTED))
        listed = failures.with_actions(tx, selection.tasks)
        paid = groups.paid_for(tx, filters) if refunds else []
    total = min(selection.total, limit or selection.total)
    show_groups(found, as_json=as_json)
    if not as_json:
        if listed:
            echo_failed(listed)
        if total > len(listed):
            say(f"and {total - len(listed)} more")
        say(f"{counted(total)} {what}" + (f", and {_money(paid)} refunded" if paid else ""))
    elif refunds:
        refund = [{"amount": one.amount, "currency": one.currency} for one in paid]
        click.echo(said_of({"total": total, "refund": refund}))
    say_unmatched(selection.unmatched, "no failed task")
    sys.exit(1 if selection.unmatched else 0)


def start(
    kind: BulkKind, filters: Filters, *, limit: int | None = None, rate: float | None = None,
    all_at_once: bool = False, most: int | None = None, until: datetime | None = None,
    detail: Mapping[str, Any] | None = None, wait: bool, as_json: bool,
) -> None:  # fmt: skip
    """Start a bulk operation, follow it if so wanted, and exit.

    Args:
        detail: see :class:`producers.control.bulk.BulkOperation`.
        most: it is refused if more fit: they were not asked about.
        until: only what had failed by then: what failed later was not shown.
    """
    engine = database()
    with engine.begin() as tx:
        try:
            started = bulk.start(
                tx, kind, filters, rate=rate, all_at_once=all_at_once, limit=limit, until=until,
                detail=detail,
            )  # fmt: skip
        except UnknownName as error:
            raise UnknownName(f"{error}\nnothing was done") from None
        more = started.total - (started.total if most is None else most)
        if not started.total or more > 0:
            tx.rollback()
    say_unmatched(started.unmatched, "no failed task")
    if more > 0:
        say(f"autorenew: {counted(more)} more failed meanwhile: nothing was done", err=True)
        sys.exit(2)
    if not started.total:
        say("no failed task fits: nothing was done", err=as_json)
        sys.exit(1 if started.unmatched else 0)
    with engine.connect() as tx:
        operation = bulk.get(tx, started.id)
    begin = short(started.id)
    if not wait:
        if as_json:
            click.echo(said_of(document(operation)))
        else:
            say(
                f"bulk operation {started.id}: {kind} of {counted(started.total)} goes on by"
                f" itself; see `autorenew bulk show {begin}`"
            )
        sys.exit(1 if started.unmatched else 0)
    say(f"bulk operation {started.id}: {kind} of {counted(started.total)}", err=True)
    code = follow(engine, operation, as_json=as_json)
    sys.exit(code or (1 if started.unmatched else 0))


@click.command("cancel")
@selects()
@ALL
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@RATE
@WAIT
@json_option
@acts()
def cancel_failed(
    filters: Filters, everything: bool, yes: bool, dry_run: bool, rate: str | None,
    wait: bool | None, as_json: bool,
) -> None:  # fmt: skip
    """Give up the failed tasks that fit; what was paid for them is credited and refunded.

    It says how much that is, and asks. Each is given up by itself: if one cannot be, the others
    are, and the exit code is 1. NAMES are given up at once; what options or --all select is given
    up by the fleet: see `autorenew bulk`.

    \b
    An order       that is not priced or not paid: it is cancelled
    A service      that is not delivered: it is cancelled
    A charge       of a renewal: it counts as declined, once none may have
                   taken money
    An e-mail      counts as one that cannot be delivered; if it could not be
                   written, what is due of it is claimed anew
    A decision     (request, withdraw, suspend, terminate) that is not due any
                   more: it is dropped
    """
    check_chosen(filters, everything)
    so_many = per_second(rate)
    if dry_run:
        say_dry(filters, None, what="would be given up", refunds=True, as_json=as_json)
    in_bulk = not filters.names or wait is not None or rate is not None
    engine = database()
    with engine.connect() as tx:
        asked_at = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
        selection = find_or_nothing_done(
            tx,
            replace(filters, states=frozenset({State.FAILED})),
            limit=LISTED if in_bulk else None,
        )
        found = failures.with_actions(tx, selection.tasks[:LISTED])
        paid = groups.paid_for(tx, filters)
    if not yes and found:
        _ask(found, selection.total, paid)
    if in_bulk:
        start(
            BulkKind.CANCEL, filters, rate=so_many, all_at_once=True,
            most=selection.total if not yes else None, until=asked_at if not yes else None,
            wait=wait is not False, as_json=as_json,
        )  # fmt: skip
        return
    catalogue, now = CatalogueCache(), clock(engine).now()

    def cancel(tx: Connection, subject: uuid.UUID) -> None:
        steps = [task.name for task in selection.tasks if task.subject == subject]
        failures.cancel(tx, subject, catalogue.current(tx), now, steps=steps)

    say_unmatched(selection.unmatched, "it has no failed task; see `autorenew failed list`")
    subjects = [task.subject for task in selection.tasks]
    each(subjects, cancel, engine, "cancelled", missing=len(selection.unmatched), as_json=as_json)


def _money(paid: Iterable[Money]) -> str:
    return " and ".join(map(str, paid))


def _ask(found: list[failures.FailedTask], total: int, paid: list[Money]) -> None:
    from autorenew.cli.failed import echo_failed

    echo_failed(found)
    if total > len(found):
        say(f"and {total - len(found)} more")
    what = f"{_money(paid)} that" if paid else "what"
    refund = f"refund {what} was paid for them"
    click.confirm(f"Give {counted(total)} up, and {refund}?", abort=True)
