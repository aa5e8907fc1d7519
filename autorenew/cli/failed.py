"""Commands about failed tasks: what waits for a person, and what a person can do about it."""

import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import click
from sqlalchemy import Connection, Engine

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json, clock, database, say, show
from autorenew.cli.selecting import counted, say_more, say_unmatched, selects, shortened
from autorenew.cli.tasks import choose_one, find_or_nothing_done, make_ready, whole_second
from producers.control import failed as failures
from producers.control.selection import Filters, State
from producers.steps import REFUND
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError
from schemas.settings import load_settings

COLUMNS = (
    "queue", "task", "subject", "order", "customer", "services", "plan", "reason", "error",
    "attempts", "total_attempts", "first_failed_at", "since", "possible",
)  # fmt: skip


@click.group()
def failed() -> None:
    """Tasks that wait for a person."""


@failed.command("list")
@selects()
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@as_json
def list_failed(filters: Filters, limit: int, as_json: bool) -> None:
    """List failed tasks with reason, error and time, whom each is about, and what can be done.

    NAMES are ids of subjects, or keys of orders, customers and domains for all that is about them.
    """
    with database().connect() as tx:
        selection = failures.select(tx, filters, limit=limit)
        listed = failures.with_actions(tx, selection.tasks)
    rows = [_row(task, as_json) for task in listed]
    show("failed tasks", COLUMNS, rows, json_lines=as_json)
    say_more(selection, as_json=as_json)
    say_unmatched(selection.unmatched, "no failed task")


def _row(one: failures.FailedTask, as_json: bool) -> Sequence[Any]:
    task, about = one.task, one.about
    services = [str(service) for service in about.services]
    return (
        task.queue, task.name, task.subject, about.order_key, about.customer,
        services if as_json else shortened(services), one.plan,
        task.reason, task.error, task.attempts, task.total_attempts,
        whole_second(task.first_failed_at), whole_second(task.since),
        list(one.actions) if as_json else ", ".join(one.actions),
    )  # fmt: skip


@failed.command("retry")
@selects()
@click.option("--all", "everything", is_flag=True, help="All that the options select.")
@click.option("--limit", type=click.IntRange(1), help="So many of them at most.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@acts()
def retry_failed(filters: Filters, everything: bool, limit: int | None, dry_run: bool) -> None:
    """Retry NAMES, or --all, from the first attempt and with the same idempotency keys.

    Only the failed tasks that are selected: not others of the same subjects. Nothing is done if one
    of NAMES is not known. Exit code 1 if one has no failed task.
    """
    choose_one(filters, everything)
    make_ready(replace(filters, states=frozenset({State.FAILED})), limit=limit, dry_run=dry_run)


@failed.command("cancel")
@selects()
@click.option("--yes", is_flag=True, help="Do not ask.")
@acts()
def cancel_failed(filters: Filters, yes: bool) -> None:
    """Give the failed tasks of NAMES up; what was paid for them is credited and refunded.

    Each is given up by itself: if one cannot be, the others are, and the exit code is 1. Nothing is
    done if one of NAMES is not known.

    \b
    An order       that is not priced or not paid: it is cancelled
    A service      that is not delivered: it is cancelled
    A charge       of a renewal: it counts as declined, once none may have taken money
    An e-mail      counts as one that cannot be delivered; if it could not be written, what
                   is due of it is claimed anew
    A decision     (request, withdraw, suspend, terminate) that is not due any more: dropped
    """
    if not filters.names:
        raise click.UsageError("name SUBJECTS")
    engine = database()
    with engine.connect() as tx:
        selection = find_or_nothing_done(tx, replace(filters, states=frozenset({State.FAILED})))
        found = failures.with_actions(tx, selection.tasks)
    if not yes and found:
        show("failed tasks", COLUMNS, [_row(task, False) for task in found], json_lines=False)
        click.confirm(
            f"Give {counted(len(found))} up, and refund what was paid for them?", abort=True
        )
    catalogue, now = CatalogueCache(), clock(engine).now()

    def cancel(tx: Connection, subject: uuid.UUID) -> None:
        steps = [task.name for task in selection.tasks if task.subject == subject]
        failures.cancel(tx, subject, catalogue.current(tx), now, steps=steps)

    say_unmatched(selection.unmatched, "it has no failed task; see `autorenew failed list`")
    subjects = [task.subject for task in selection.tasks]
    _each(subjects, cancel, engine, "cancelled", missing=len(selection.unmatched))


def _each(
    subjects: Iterable[uuid.UUID],
    do: Callable[[Connection, uuid.UUID], None],
    engine: Engine,
    what: str,
    *,
    missing: int = 0,
) -> None:
    """Do something for each subject in a transaction of its own, say what became of it, and exit:
    with 1 if some could not be done, with 2 if none could.

    Args:
        missing: how many more there are that nothing can be done for.
    """
    done = 0
    left = missing
    for subject in dict.fromkeys(subjects):
        try:
            with engine.begin() as tx:
                do(tx, subject)
            done += 1
        except AutorenewError as error:
            say(f"autorenew: {error}", err=True)
            left += 1
    say(f"{done} {what}" + (f", {left} not" if left else ""))
    sys.exit(0 if not left else 1 if done else 2)


_subjects = click.argument("subjects", nargs=-1, required=True, type=click.UUID)


@failed.command("done")
@_subjects
@click.confirmation_option(
    prompt="Is each of these, at the infrastructure, as it should be by now?"
)
@acts(required=True)
def done_by_hand(subjects: tuple[uuid.UUID, ...], because: str) -> None:
    """Say that the services SUBJECTS are as they should be: it was done by hand.

    For a failed `converge` of a service that was delivered: to suspend, resume, extend or delete
    it. Run it as the database role `provisioning`. Each is written down by itself: if one cannot
    be, the others are, and the exit code is 1.
    """
    from workers import by_hand

    engine = database()
    time, catalogue = clock(engine), CatalogueCache()

    def do(tx: Connection, subject: uuid.UUID) -> None:
        by_hand.done(tx, subject, because, catalogue, time)

    _each(subjects, do, engine, "done by hand")


@failed.command("settle")
@click.argument("subject", type=click.UUID)
@click.option("--reference", help="Of the payment: the bank's or the gateway's.")
@click.option("--not-taken", is_flag=True, help="A charge in doubt: nothing was taken.")
@click.option("--in-doubt", is_flag=True, help="A refund: the gateway has not made it, I looked.")
@click.confirmation_option(prompt="Is that so in the books of the gateway, or of the bank?")
@acts(tells=True)
def settle_by_hand(
    subject: uuid.UUID, reference: str | None, not_taken: bool, in_doubt: bool, because: str | None
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
                tx, subject, reference, because, CatalogueCache(), time, in_doubt=in_doubt
            )
        else:
            by_hand.settle_charge(
                tx, subject, reference, because, CatalogueCache(), time,
                settings.order_charge_delays,
            )  # fmt: skip
    say("settled")
