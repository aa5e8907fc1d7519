"""Commands that tell what a person did instead of a failed task."""

import sys
import uuid
from collections.abc import Callable, Iterable

import click
from sqlalchemy import Connection, Engine

from autorenew.cli.acting import acts
from autorenew.cli.common import clock, database, say
from producers.control import failed as failures
from producers.steps import REFUND
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError
from schemas.settings import load_settings


def each(
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


@click.command("done")
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

    each(subjects, do, engine, "done by hand")


@click.command("settle")
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
