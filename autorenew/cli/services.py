"""Commands about services that exist: what a customer's one click does, for support and scripts."""

import json
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import click
from sqlalchemy import Connection, Engine, text

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json, clock, database, realms, say, show
from autorenew.cli.helping import Commands
from autorenew.cli.importing import import_services
from autorenew.cli.names import check_customers
from autorenew.cli.selecting import counted
from producers.control import ending, suspending
from producers.control.suspending import Verdict as Became
from producers.intake import Answer, Intake, Verdict
from producers.intake.links import Links
from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from producers.views import outlooks, timelines
from producers.views import services as views
from schemas.catalogue.store import CatalogueCache
from schemas.errors import AutorenewError, DataError
from schemas.settings import load_settings
from schemas.values import RenewalMode


@click.group(cls=Commands)
def service() -> None:
    """Follow services, and do what their customers ask for. Each command may be repeated."""


service.add_command(import_services)

_services = click.argument("services", nargs=-1, required=True, type=click.UUID)
_customer = click.argument("customer")


@service.command("list")
@click.option("--customer", help="Of the customer with this id.")
@click.option("--suspended", is_flag=True, help="Only those that an operator has suspended.")
@as_json
def list_services(customer: str | None, suspended: bool, as_json: bool) -> None:
    """List services of a customer, or those that an operator has suspended, and what is next."""
    if customer is None and not suspended:
        raise click.UsageError("name a --customer, or --suspended")
    wanted = views.Wanted(customer=customer, held=suspended)
    with database().connect() as tx:
        if customer is not None:
            check_customers(tx, [customer])
        found = sorted(_each(tx, wanted), key=_expiry)
    rows = [
        (
            one.id, one.plan, one.period, one.state, one.mode, one.expires_at, one.next_step,
            one.next_step_at, one.resource_id, one.suspended_because,
        )
        for one in found
    ]  # fmt: skip
    columns = (
        "service", "plan", "period", "state", "mode", "expires_at", "next_step", "next_step_at",
        "resource", "suspended_because",
    )  # fmt: skip
    show("services", columns, rows, json_lines=as_json)


@service.command("show")
@click.argument("service_id", metavar="SERVICE", type=click.UUID)
@as_json
def show_service(service_id: uuid.UUID, as_json: bool) -> None:
    """Show the next step of a service, what renewing it now would cost, and its history."""
    engine = database()
    now = clock(engine).now()
    with engine.connect() as tx:
        catalogue = CatalogueCache().current(tx)
        found = views.known(tx, [service_id], catalogue)
        if not found or found[0].renewable is None:
            raise AutorenewError(f"there is no delivered service {service_id}")
        one = views.view_of(found[0], catalogue, now)
        facts = {
            "service": str(one.id),
            "customer": one.customer,
            "plan": one.plan,
            "period": one.period,
            "state": one.state,
            "suspended_by_operator": one.suspended_by_operator,
            "suspended_because": one.suspended_because,
            "suspended_unpaid": one.suspended_at,
            "mode": one.mode,
            "expires_on": one.expires_on,
            "renewal_switched_on": one.renewal_switched_on,
            "contract_to_accept": one.contract_to_accept,
            "declined_charges": one.declined_charges,
            "next_step": one.next.step,
            "next_step_at": one.next.at,
            "next_because": one.next.text,
            "renewing_now": _quote(found[0], one, now),
        }
        events = timelines.of_subjects(tx, {service_id: "service"})
    if as_json:
        names = ("at", "name", "waited", "attempt", "detail")
        listed = [
            dict(zip(names, (e.at, e.event, e.waited, e.attempt, e.detail or None), strict=True))
            for e in events
        ]
        click.echo(json.dumps({**facts, "history": listed}, default=str))
        return
    for name, value in facts.items():
        if value is not None:
            say(f"{name.replace('_', ' '):20} {value}")
    rows = [(e.at, e.event, e.attempt, json.dumps(e.detail) if e.detail else None) for e in events]
    show("history", ("at", "event", "attempt", "detail"), rows, json_lines=False)


def _expiry(one: views.ServiceRow) -> tuple[bool, str, uuid.UUID]:
    return one.expires_at is None, str(one.expires_at), one.id


def _each(tx: Connection, wanted: views.Wanted) -> Iterator[views.ServiceRow]:
    """All that fit, part by part."""
    cursor = None
    while True:
        page = views.list_services(tx, wanted, limit=1000, cursor=cursor)
        yield from page.items
        if (cursor := page.next) is None:
            return


def _quote(known: views.Known, one: views.ServiceView, now: datetime) -> str | None:
    """What paying now buys, as a customer is shown beforehand."""
    if known.renewable is None:
        return None
    try:
        quote = outlooks.quote_now(known.renewable, known.payer, now)
    except DataError as error:
        return f"not possible: {error.code}: {error}"
    if quote is None:
        return None
    buys = f"{quote.periods} x {one.period} for {quote.net} net, until {quote.paid_until}"
    return f"{buys}; {quote.total} with tax ({quote.mention}, {quote.rate} %)"


@service.command()
@_services
@as_json
@acts()
def stop(services: Sequence[uuid.UUID], as_json: bool) -> None:
    """End SERVICES when their paid periods end."""
    _command({"command": "stop", "services": _texts(services)}, services, as_json)


@service.command()
@_services
@as_json
@acts()
def resume(services: Sequence[uuid.UUID], as_json: bool) -> None:
    """Undo a stop of SERVICES."""
    _command({"command": "resume", "services": _texts(services)}, services, as_json)


@service.command()
@click.argument("mode", type=click.Choice([mode.value for mode in RenewalMode]))
@_services
@as_json
@acts()
def mode(mode: str, services: Sequence[uuid.UUID], as_json: bool) -> None:
    """Change how SERVICES renew: automatic, manual (reminded only) or stop."""
    document = {"command": "mode", "mode": mode, "services": _texts(services)}
    _command(document, services, as_json)


@service.command()
@_services
@click.option(
    "--expires-on",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="The expiry the customer saw; a service that expires later is left alone.",
)
@as_json
@acts()
def renew(services: Sequence[uuid.UUID], expires_on: Any, as_json: bool) -> None:
    """Renew SERVICES of one customer and pay for them now, together, whatever their mode."""
    engine = database()
    with engine.connect() as tx:
        held: dict[uuid.UUID, Renewable] = {s.id: s for s in _load(tx, services)}
    seen: dict[uuid.UUID, date] = {
        s: expires_on.date() if expires_on else held[s].view.expires_on if s in held else date.min
        for s in services
    }
    wanted = [{"id": str(s), "expires_on": seen[s].isoformat()} for s in services]
    _command({"command": "renew", "services": wanted}, services, as_json, engine)


@service.command()
@_customer
@click.argument("contract")
@click.option("--version", type=click.IntRange(1), help="The current one if not given.")
@as_json
@acts()
def accept(customer: str, contract: str, version: int | None, as_json: bool) -> None:
    """Record that CUSTOMER accepted CONTRACT; renewals that waited for it go on."""
    engine = database()
    if version is None:
        with engine.connect() as tx:
            found = CatalogueCache().current(tx).contract(contract)
        if found is None:
            raise AutorenewError(f"there is no contract {contract!r}")
        version = found.version
    agreed = [{"contract": contract, "version": version}]
    document = {"command": "accept", "customer": customer, "contracts": agreed}
    send(document, as_json, engine)


_KNOWN = text("SELECT id FROM services WHERE id = ANY(:ids)")


@service.command()
@_services
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@acts(required=True)
def end(services: Sequence[uuid.UUID], because: str, yes: bool, as_json: bool) -> None:
    """End SERVICES now, as an operator: whatever was paid, told or failed. It cannot be undone."""
    engine = database()
    with engine.connect() as tx:
        known = set(tx.execute(_KNOWN, {"ids": list(services)}).scalars())
    if unknown := [str(service) for service in services if service not in known]:
        raise AutorenewError(f"there is no service {', '.join(unknown)}; nothing was done")
    if not yes:
        number = counted(len(known), "service")
        click.confirm(f"{number} will be deleted now. Go on?", abort=True, err=as_json)
    with engine.begin() as tx:
        ended = ending.end(tx, services, because, CatalogueCache().current(tx), clock(engine).now())
    for service in sorted(known - set(ended)):
        say(f"{service}: it is not delivered, or has ended", err=True)
    if as_json:
        for service in sorted(known):
            verdict = Became.CHANGED if service in ended else Became.NOT_DELIVERED
            click.echo(json.dumps({"service": str(service), "verdict": verdict}))
    else:
        say(f"{len(ended)} of {len(known)} services are ending")
    sys.exit(0 if len(ended) == len(set(services)) else 1)


@service.command()
@_services
@as_json
@acts(required=True)
def suspend(services: Sequence[uuid.UUID], because: str, as_json: bool) -> None:
    """Suspend SERVICES, as an operator, until `unsuspend`: for abuse, or a dispute.

    A payment does not lift it. Paid time, reminders, charges and ends go on. Exit code 1 if one of
    them was not changed.
    """
    engine = database()
    with engine.begin() as tx:
        catalogue = CatalogueCache().current(tx)
        became = suspending.suspend(tx, services, because, catalogue, clock(engine).now())
    _tell(became, "are being suspended", as_json)


@service.command()
@_services
@as_json
@acts()
def unsuspend(services: Sequence[uuid.UUID], as_json: bool) -> None:
    """Lift the suspension of SERVICES by an operator; what is unpaid stays suspended.

    Exit code 1 if one of them was not changed.
    """
    engine = database()
    with engine.begin() as tx:
        catalogue = CatalogueCache().current(tx)
        became = suspending.unsuspend(tx, services, catalogue, clock(engine).now())
    _tell(became, "are not suspended by an operator any more", as_json)


def _tell(became: Mapping[uuid.UUID, Became], what: str, as_json: bool) -> None:
    """Say what became of services, and exit."""
    changed = [service for service, verdict in became.items() if verdict is Became.CHANGED]
    if as_json:
        show("", ("service", "verdict"), list(became.items()), json_lines=True)
    else:
        say(f"{len(changed)} of {len(became)} services {what}")
    for service, verdict in () if as_json else became.items():
        if verdict is not Became.CHANGED:
            say(f"{service}: {verdict}", err=True)
    sys.exit(0 if len(changed) == len(became) else 1)


@service.command("payment-method")
@_customer
@click.argument("token")
@click.option("--gateway", help="The gateway that knows TOKEN; `default` if not given.")
@click.option("--expires", metavar="YYYY-MM", help="The last month in which it can be charged.")
@click.option("--service", "services", multiple=True, type=click.UUID, help="Only for these.")
@as_json
@acts()
def payment_method(
    customer: str,
    token: str,
    gateway: str | None,
    expires: str | None,
    services: Sequence[uuid.UUID],
    as_json: bool,
) -> None:
    """Save another payment method of CUSTOMER, a gateway's TOKEN; unpaid renewals are retried."""
    document: dict[str, Any] = {
        "command": "payment_method", "customer": customer, "payment_method": token,
    }  # fmt: skip
    if gateway:
        document["payment_gateway"] = gateway
    if expires:
        document["payment_method_expires"] = expires
    if services:
        document["services"] = _texts(services)
    send(document, as_json, database())


@service.command("click")
@click.argument("url")
@as_json
@acts()
def click_link(url: str, as_json: bool) -> None:
    """Do what a signed link of an e-mail says."""
    settings = load_settings()
    links = Links.of(settings)
    engine = database(settings)
    send(links.open(url, clock(engine, settings).now()), as_json, engine)


def _texts(services: Sequence[uuid.UUID]) -> list[str]:
    return [str(service) for service in dict.fromkeys(services)]


def _load(tx: Connection, ids: Sequence[uuid.UUID]) -> list[Renewable]:
    return next_steps.load(tx, ids, CatalogueCache().current(tx))


def _command(
    document: dict[str, Any],
    services: Sequence[uuid.UUID],
    as_json: bool,
    engine: Engine | None = None,
) -> None:
    """Send a command in the name of the customer whom the first service belongs to."""
    engine = engine or database()
    with engine.connect() as tx:
        customer = tx.execute(
            text("SELECT customer_id FROM services WHERE id = :id"), {"id": services[0]}
        ).scalar()
    if customer is None:
        raise AutorenewError(f"there is no service {services[0]}")
    send({**document, "customer": customer}, as_json, engine)


def send(document: dict[str, Any], as_json: bool, engine: Engine) -> None:
    """Give a command in an operator's name, say how it ended, and exit."""
    intake = Intake(engine, CatalogueCache(), clock(engine), realms())
    (answer,) = intake.place("cli", "cli", [json.dumps(document).encode()])
    _say(answer, as_json)
    sys.exit(0 if answer.verdict is Verdict.ACCEPTED else 1)


def _say(answer: Answer, as_json: bool) -> None:
    if as_json:
        row = (answer.verdict, answer.repeated, [p.model_dump() for p in answer.problems])
        show("", ("verdict", "repeated", "problems"), [row], json_lines=True)
    elif answer.verdict is Verdict.ACCEPTED:
        say("no change" if answer.repeated else "done")
    for problem in () if as_json else answer.problems:
        where = f" at {problem.path}" if problem.path else ""
        say(f"{answer.verdict}: {problem.code}{where}: {problem.message}", err=True)
