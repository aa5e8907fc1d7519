"""The command ``autorenew reconcile``."""

import sys

import click

from autorenew.cli.common import as_json, clock, database, show
from schemas.errors import AutorenewError
from schemas.settings import load_settings


@click.group()
def reconcile() -> None:
    """Compare our books with those of the gateway."""


@reconcile.command()
@click.option("--book", is_flag=True, help="Book charges of the gateway that our books lack.")
@as_json
def gateway(book: bool, as_json: bool) -> None:
    """Show the differences between our books and the gateway's; after a restored backup, --book.

    Run it as the database role `billing`, with AUTORENEW_GATEWAY_URL. Lanes that the guard paused
    stay paused until a person resumes them with `autorenew lanes resume LANE --guard`. Exit code 1
    if a difference is left.
    """
    from producers.steps import BILLING
    from schemas.books import BookUnavailable
    from schemas.catalogue.store import CatalogueCache
    from workers.billing.charges import reconcile as books
    from workers.billing.charges.charge import ChargeHandler
    from workers.bootstrap import gateways_of, handlers
    from workers.outside.books import Books

    settings = load_settings()
    engine = database(settings)
    time = clock(engine, settings)
    catalogue = CatalogueCache()
    (handler,) = (
        h for h in handlers(settings, [BILLING], time)[BILLING] if isinstance(h, ChargeHandler)
    )
    try:
        theirs = Books(gateways_of(settings), {}).money()
        with engine.connect() as tx:
            found = books.compare(tx, theirs, catalogue.current(tx), time.now())
    except BookUnavailable as error:
        raise AutorenewError(f"cannot read the book: {error}") from None
    rows, left = [], 0
    for difference in found:
        booked = False
        if book:
            with engine.begin() as tx:
                booked = books.book(tx, handler, difference)
        left += not booked
        rows.append(
            (
                "booked" if booked else difference.difference,
                difference.kind,
                difference.amount,
                difference.customer,
                difference.request_id,
                difference.attempt,
                difference.key,
            )
        )
    columns = ("difference", "kind", "amount", "customer", "request", "attempt", "key")
    show("differences between our books and the gateway's", columns, rows, json_lines=as_json)
    sys.exit(1 if left else 0)
