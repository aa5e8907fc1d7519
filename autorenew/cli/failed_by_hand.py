"""Commands that tell what a person did instead of a failed task."""

import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace

import click
from sqlalchemy import Connection, Engine, text

from autorenew.cli.acting import Words, acts
from autorenew.cli.common import as_json as json_option
from autorenew.cli.common import clock, database, said_of, say
from autorenew.cli.failed_acting import ALL, LISTED, WAIT, check_chosen, each, start
from autorenew.cli.selecting import Text, counted, say_unmatched, selects
from autorenew.cli.tasks import find_or_nothing_done
from producers.control import failed as failures
from producers.control import stating
from producers.control.selection import Filters, State
from producers.steps import CHARGE, CONVERGE, REFUND
from schemas.catalogue.store import CatalogueCache
from schemas.settings import Settings, load_settings
from schemas.values import BulkKind

# Whether this role may write it down itself; who may not asks the fleet to, as the role console.
_MAY_WRITE = text("SELECT pg_has_role(current_user, 'autorenew_' || :role, 'USAGE')")


def _writes_itself(engine: Engine, role: str, names: Sequence[str]) -> bool:
    """Whether all is named by whole ids, and this is the role whose work it is."""
    with engine.connect() as tx:
        return all(map(_is_id, names)) and bool(tx.execute(_MAY_WRITE, {"role": role}).scalar())


def _is_id(name: str) -> bool:
    try:
        uuid.UUID(name)
    except ValueError:
        return False
    return True


@click.command("done")
@selects()
@ALL
@click.option("--dry-run", is_flag=True, help="Only say which.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@WAIT
@json_option
@acts(required=True, selects=True)
def done_by_hand(
    filters: Filters, everything: bool, dry_run: bool, yes: bool, wait: bool | None,
    as_json: bool, because: str,
) -> None:  # fmt: skip
    """Say that services are as they should be: it was done by hand.

    For failed `converge` tasks of services that were delivered: to suspend, resume, extend or
    delete them. Run it as the database role `console`: workers of the services' queues write it
    down, each by itself, as a bulk operation (see `autorenew bulk`). As the role `provisioning`,
    and with ids alone, it is written down at once. What cannot be is left as it is, and the exit
    code is 1.
    """
    check_chosen(filters, everything)
    if filters.step not in (None, CONVERGE):
        raise click.UsageError(f"only a failed {CONVERGE} is told as done by hand")
    engine = database()
    by_ids = bool(filters.names) and not everything and filters == Filters(names=filters.names)
    if by_ids and not dry_run and wait is None and _writes_itself(
        engine, "provisioning", filters.names
    ):  # fmt: skip
        _write_done(engine, [uuid.UUID(name) for name in filters.names], because, yes, as_json)
        return
    filters = replace(filters, step=CONVERGE)
    with engine.connect() as tx:
        asked_at = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
        selection = find_or_nothing_done(
            tx, replace(filters, states=frozenset({State.FAILED})), limit=LISTED
        )
        listed = failures.with_actions(tx, selection.tasks)
        total, tellable = stating.tellable(tx, filters)
    if dry_run or not yes:
        _say_tellable(listed, total, tellable, as_json=as_json and dry_run)
    if dry_run:
        say_unmatched(selection.unmatched, "no failed task")
        sys.exit(1 if selection.unmatched else 0)
    if total and not tellable:
        if yes:
            _say_tellable(listed, total, tellable, as_json=False)
        say("nothing was done", err=True)
        sys.exit(1)
    if tellable and not yes:
        click.confirm(_ASKED, abort=True)
    start(
        BulkKind.DONE, filters, all_at_once=True, most=None if yes else total,
        until=None if yes else asked_at, wait=wait is not False, as_json=as_json,
    )  # fmt: skip


_ASKED = "Is each of these, at the infrastructure, as it should be by now?"


def _say_tellable(
    listed: list[failures.FailedTask], total: int, tellable: int, *, as_json: bool
) -> None:
    from autorenew.cli.failed import echo_failed

    if as_json:
        click.echo(said_of({"told": tellable, "refused": total - tellable}))
        return
    if listed:
        echo_failed(listed)
    if total > len(listed):
        say(f"and {total - len(listed)} more")
    say(f"{counted(tellable)} would be told as done by hand")
    if total > tellable:
        say(f"{counted(total - tellable)} would be refused: not delivered yet")


def _write_done(
    engine: Engine, subjects: Sequence[uuid.UUID], because: str, yes: bool, as_json: bool
) -> None:
    from workers import by_hand

    if not yes:
        click.confirm(_ASKED, abort=True)
    time, catalogue = clock(engine), CatalogueCache()

    def do(tx: Connection, subject: uuid.UUID) -> None:
        by_hand.done(tx, subject, because, catalogue, time)

    each(subjects, do, engine, "done by hand", as_json=as_json)


@click.command("settle")
@click.argument("name", metavar="SUBJECT", type=Text())
@click.option("--upstream", type=Text(), help="Needed where several use the same order key.")
@click.option("--reference", type=Words(), help="Of the payment: the bank's or the gateway's.")
@click.option("--not-taken", is_flag=True, help="A charge in doubt: nothing was taken.")
@click.option("--in-doubt", is_flag=True, help="A refund: the gateway has not made it, I looked.")
@click.confirmation_option(prompt="Is that so in the books of the gateway, or of the bank?")
@WAIT
@json_option
@acts(tells=True)
def settle_by_hand(
    name: str, upstream: str | None, reference: str | None, not_taken: bool, in_doubt: bool,
    wait: bool | None, as_json: bool, because: str | None,
) -> None:  # fmt: skip
    """Say how the failed refund or charge of SUBJECT has ended.

    \b
    A refund    was paid back otherwise: --reference
    A charge    that is in doubt was taken: --reference; or was not: --not-taken

    One at a time, and not by filters: each payment has ended in its own way, with a reference of
    its own, and only who has looked it up in the books can say so. Run it as the database role
    `console`: a worker of the queue billing writes it down. As the role `billing`, and with an id,
    it is written down at once.
    """
    if (reference is None) != not_taken:
        raise click.UsageError("name --reference, or --not-taken")
    settings = load_settings()
    engine = database(settings)
    if wait is None and upstream is None and _writes_itself(engine, "billing", [name]):
        _write_settled(engine, settings, uuid.UUID(name), reference, because, in_doubt=in_doubt)
        return
    with engine.connect() as tx:
        task = stating.settleable(tx, name, upstream=upstream)
    detail = {"not_taken": True} if reference is None else {"reference": reference}
    start(
        BulkKind.SETTLE, Filters(names=(str(task.subject),), step=task.name), most=1,
        detail=detail | ({"in_doubt": True} if in_doubt else {}),
        wait=wait is not False, as_json=as_json,
    )  # fmt: skip


def _write_settled(
    engine: Engine, settings: Settings, subject: uuid.UUID, reference: str | None,
    because: str | None, *, in_doubt: bool,
) -> None:  # fmt: skip
    from workers import by_hand

    time = clock(engine, settings)
    with engine.begin() as tx:
        name = REFUND if REFUND in failures.names_of(tx, subject) else CHARGE
        by_hand.settle(
            tx, name, subject, because, CatalogueCache(), time, settings.order_charge_delays,
            reference=reference, in_doubt=in_doubt,
        )  # fmt: skip
    say("settled")
