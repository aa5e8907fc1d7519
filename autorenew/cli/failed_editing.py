"""The command that corrects configurations that were refused: of one service, or of many."""

import sys
from dataclasses import replace

import click
from sqlalchemy import Connection, text

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json as json_option
from autorenew.cli.common import database, said_of, say
from autorenew.cli.failed_acting import ALL, RATE, WAIT, check_chosen, per_second, start
from autorenew.cli.lines import short
from autorenew.cli.selecting import counted, selects
from autorenew.cli.tasks import find_or_nothing_done
from producers.control import editing
from producers.control import failed as failures
from producers.control.editing import Foreseen
from producers.control.selection import Filters, State, TaskId
from producers.steps import CONVERGE
from schemas.catalogue.store import CatalogueCache
from schemas.values import BulkKind

# Of the reasons for which services would stay as they are.
_LISTED = 20


@click.command("edit")
@selects()
@ALL
@click.option("--set", "sets", multiple=True, metavar="OPTION=VALUE", help="May be repeated.")
@click.option("--unset", "unsets", multiple=True, metavar="OPTION", help="Without this option.")
@click.option("--dry-run", is_flag=True, help="Only say how many, and which would be refused.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@RATE
@click.option(
    "--all-at-once",
    is_flag=True,
    help="Not in batches of 1, 10, 100, …, and not halted if they fail again.",
)
@WAIT
@json_option
@acts(required=True, selects=True)
def edit_failed(
    filters: Filters, everything: bool, sets: tuple[str, ...], unsets: tuple[str, ...],
    dry_run: bool, yes: bool, rate: str | None, all_at_once: bool, wait: bool | None,
    as_json: bool, because: str,
) -> None:  # fmt: skip
    """Correct the configuration of services that the far side refused, and retry them.

    It is checked as that of an order is, against the options of the plan of each. The history has
    it before and after. The order stays as it was placed. One service that is named is corrected at
    once. Several, or what options or --all select, are corrected and retried by the fleet, in
    batches of 1, 10, 100, …, and it halts if one fails again in the same way: those whose turn has
    not come stay as they are. See `autorenew bulk`.
    """
    check_chosen(filters, everything)
    changes = _changes(sets, unsets)
    so_many = per_second(rate)
    if filters.step not in (None, CONVERGE):
        raise click.UsageError(f"only a failed {CONVERGE} has a configuration")
    in_bulk = dry_run or wait is not None or rate is not None or all_at_once
    engine = database()
    if not in_bulk and len(filters.names) == 1 and not _is_filtered(filters):
        with engine.connect() as tx:
            task = _one_service(tx, filters)
        if task is not None:
            with engine.begin() as tx:
                edited = editing.edit(tx, task.subject, changes, CatalogueCache().current(tx))
            _say_edited(task, edited, as_json=as_json)
            return
    filters = replace(filters, step=CONVERGE)
    with engine.connect() as tx:
        asked_at = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
        find_or_nothing_done(tx, replace(filters, states=frozenset({State.FAILED})), limit=1)
        foreseen = editing.foresee(tx, filters, changes, CatalogueCache().current(tx))
    if dry_run or not yes:
        _say_foreseen(foreseen, as_json=as_json and dry_run)
    if dry_run:
        return
    if foreseen.refused and not foreseen.changed:
        if yes:
            _say_foreseen(foreseen, as_json=False)
        say("nothing was done", err=True)
        sys.exit(1)
    if foreseen.changed and not yes:
        click.confirm(f"Change {_services(foreseen.changed)}, and retry them?", abort=True)
    start(
        BulkKind.EDIT, filters, rate=so_many, all_at_once=all_at_once, detail=changes,
        most=None if yes else foreseen.total, until=None if yes else asked_at,
        wait=wait is not False, as_json=as_json,
    )  # fmt: skip


def _changes(sets: tuple[str, ...], unsets: tuple[str, ...]) -> dict[str, str | None]:
    pairs = []
    for one in sets:
        option, equals, value = one.partition("=")
        if not equals or not option:
            raise click.BadParameter(f"{one!a} is not OPTION=VALUE", param_hint="--set")
        pairs.append((option, value))
    try:
        return editing.changes_of(pairs, unsets)
    except editing.CannotEdit as error:
        raise click.UsageError(f"--set, --unset: {error}") from None


def _is_filtered(filters: Filters) -> bool:
    return bool(replace(filters, names=()))


def _one_service(tx: Connection, filters: Filters) -> TaskId | None:
    """The one failed service that a name means; None: it means several."""
    (name,) = filters.names
    found = failures.select(tx, replace(filters, step=CONVERGE)).tasks
    if len(found) > 1:
        return None
    if found:
        return found[0].id
    return TaskId(CONVERGE, failures.one_subject(tx, name, upstream=filters.upstream))


def _say_edited(task: TaskId, edited: editing.Edited, *, as_json: bool) -> None:
    if as_json:
        document = {"subject": task.subject, "before": edited.before, "after": edited.after}
        click.echo(said_of(document))
        return
    for option in sorted(edited.before.keys() | edited.after.keys()):
        old, new = edited.before.get(option), edited.after.get(option)
        if old != new:
            say(f"{option}: {old if old is not None else '(not set)'} -> "
                f"{new if new is not None else '(not set)'}")  # fmt: skip
    say(f"1 task is ready again; see `autorenew failed show {short(task.subject)}`")


def _say_foreseen(foreseen: Foreseen, *, as_json: bool) -> None:
    if as_json:
        refused = [
            {"problem": r.problem, "services": r.services, "example": r.example}
            for r in foreseen.refused
        ]
        click.echo(said_of({"changed": foreseen.changed, "refused": refused}))
        return
    say(f"{_services(foreseen.changed)} would be changed, and retried")
    for refusal in foreseen.refused[:_LISTED]:
        first = f", such as {short(refusal.example)}"
        say(f"{_services(refusal.services)} would be refused{first}: {refusal.problem}")
    if (more := len(foreseen.refused) - _LISTED) > 0:
        say(f"and {counted(more, 'more reason')}")


def _services(number: int) -> str:
    return counted(number, "service")
