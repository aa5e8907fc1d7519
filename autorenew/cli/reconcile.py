"""The command ``autorenew reconcile``."""

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json, clock, database, say, show
from autorenew.cli.helping import Commands
from schemas.errors import AutorenewError
from schemas.settings import load_settings

if TYPE_CHECKING:
    from workers.provisioning.differences import Difference, Found
    from workers.provisioning.drivers.port import Driver


@click.group(cls=Commands)
def reconcile() -> None:
    """Compare our books with those of the gateway, and of the infrastructures."""


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


@reconcile.command()
@click.option("--driver", "names", metavar="NAME", multiple=True, help="Only this one; repeatable.")
@click.option("--mend", is_flag=True, help="Converge again what is missing or otherwise there.")
@click.option(
    "--terminate", "orphans", metavar="RESOURCE", multiple=True,
    help="End this resource, which should not be there; repeatable.",
)  # fmt: skip
@acts()
@as_json
def infrastructure(
    names: tuple[str, ...], mend: bool, orphans: tuple[str, ...], as_json: bool
) -> None:
    """Show what drivers say exists and should not, or the other way round.

    Run it as the database role `provisioning`, with AUTORENEW_DRIVER_URLS or AUTORENEW_DRIVERS.
    What is under way, or was within ten minutes, is not judged. A resource that is no service's is
    ended only if --terminate names it. Exit code 1 if a difference is left, 2 if a driver could not
    be looked at, or differs in so much that it is not believed.
    """
    from workers.bootstrap import check_far_sides, drivers_of
    from workers.provisioning import differences, mending

    settings = load_settings()
    engine = database(settings)
    drivers = drivers_of(settings)
    names = tuple(dict.fromkeys(names))
    if unknown := sorted(set(names) - drivers.keys()):
        known = ", ".join(sorted(drivers))
        raise AutorenewError(f"no driver {', '.join(unknown)} is configured; there are {known}")
    if orphans and len(names or drivers) > 1:
        raise AutorenewError("--terminate: say with one --driver whose resource it is")
    check_far_sides(engine, settings, ["provisioning"])
    kinds = differences.MENDABLE if mend else ()

    said: dict[str, str] = {}  # what became of resources that were to be ended, if anything did

    async def look() -> "list[tuple[Found, list[Difference]]]":
        looked = []
        for name in names or sorted(drivers):
            driver = drivers[name]
            try:
                found = await differences.look(engine, name, driver, share=settings.reconcile_share)
                with engine.begin() as tx:
                    done = mending.mend(tx, found, kinds, orphans=orphans, because="by hand")
                done += await _end_orphans(engine, driver, found, orphans, said)
            finally:
                await driver.close()
            looked.append((found, done))
        return looked

    looked = asyncio.run(look())
    rows, left, unseen = [], 0, 0
    for found, done in looked:
        for difference, row in zip(found.differences, differences.rows_of(found), strict=True):
            is_done = difference in done
            left += not is_done
            rows.append((*row, "mended" if is_done else difference.why))
        if found.outcome in (differences.Outcome.TOO_MANY, differences.Outcome.UNAVAILABLE):
            unseen += 1
            say(f"driver {found.driver}: {found.outcome}: {found.why}", err=True)
    ended = {d.resource_id for _, done in looked for d in done}
    for resource in dict.fromkeys(orphans):
        if resource in said:
            say(f"{resource} {said[resource]}", err=True)
        elif resource not in ended:
            for found, _ in looked:
                say(f"{resource} was not ended: {_why_not(found, resource)}", err=True)
    columns = ("driver", "difference", "service", "resource", "ours", "seen", "customer", "note")
    show("differences between drivers' books and ours", columns, rows, json_lines=as_json)
    sys.exit(2 if unseen else 1 if left or set(orphans) - ended else 0)


async def _end_orphans(
    engine: Any, driver: "Driver", found: "Found", orphans: Sequence[str], said: dict[str, str]
) -> list["Difference"]:
    """End those that a person named and that are no service's.

    Args:
        said: gets what became of those that are not gone by now, by the driver's name.
    """
    from producers import history
    from producers.control.lanes import subject_of
    from producers.history import Event
    from producers.steps import driver_place
    from workers.provisioning import mending
    from workers.provisioning.differences import Kind, Outcome
    from workers.provisioning.drivers.port import DriverState

    subject = subject_of(driver_place("", found.driver).lane)

    def record(name: str, detail: dict[str, Any]) -> None:
        with engine.begin() as tx:
            history.record(tx, [Event(subject, name, detail)])

    done = []
    for orphan in found.differences if found.outcome is Outcome.DIFFERENCES else ():
        is_named = orphan.kind is Kind.ORPHAN and orphan.resource_id in orphans
        if not is_named or orphan.service is not None:
            continue
        detail = {"resource": orphan.resource_id, "service": orphan.named}
        # What is being ended is known, whatever becomes of this process and of the call.
        record("lane.orphan_ending", detail)
        ending = await mending.end_orphan(driver, orphan)
        detail |= {"answer": ending.answer.state.value, "reason": ending.answer.reason}
        record("lane.orphan_ended" if ending.is_ended else "lane.orphan_not_ended", detail)
        if ending.is_ended:
            done.append(orphan)
        if not ending.is_ended or ending.answer.state is not DriverState.DONE:
            said[str(orphan.resource_id)] = str(ending)
    return done


def _why_not(found: "Found", resource: str) -> str:
    """Why a driver's resource that a person named was not to be ended."""
    from workers.provisioning.differences import Kind, Outcome

    if found.outcome in (Outcome.TOO_MANY, Outcome.UNAVAILABLE):
        return f"driver {found.driver}: {found.outcome}"
    own = [d for d in found.differences if d.resource_id == resource]
    for d in own:
        if d.kind is Kind.ORPHAN and d.why is not None:
            return d.why
        if d.kind is Kind.ORPHAN:
            return f"service {d.service} was changed meanwhile"
    for d in own:
        return f"it is that of service {d.service}, which should be there"
    for d in found.unsettled:
        if d.resource_id == resource:
            return f"service {d.service} is under way, or was changed a short while ago"
    return f"driver {found.driver} lists no such resource that should not be there"
