"""Commands that set things up: database, broker, catalogue."""

import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import click
from sqlalchemy import text

from autorenew.catalogues import bundled
from autorenew.cli.acting import acts
from autorenew.cli.common import as_json, database, said_of, say, show
from autorenew.cli.helping import Commands
from autorenew.cli.names import check_brands, check_subsidiaries
from producers import topology
from producers.control import rollouts
from producers.intake import dead
from producers.management import Management
from schemas.catalogue import Catalogue, changes, load
from schemas.catalogue.ovh import OvhImport, import_ovh
from schemas.catalogue.store import read, save
from schemas.database import are_large_objects_open, connect
from schemas.database import migrate as migrate_database
from schemas.errors import ConfigurationError
from schemas.rules import sellable
from schemas.rules.policies import DEFAULT_POLICY
from schemas.settings import Settings, load_settings
from schemas.tables import ROLES


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date, as its owner.

    AUTORENEW_ROLE_PASSWORDS (JSON, role -> password) sets the passwords of the database roles.
    """
    settings = load_settings()
    passwords = {r: p.get_secret_value() for r, p in settings.role_passwords.items()}
    unknown = sorted(passwords.keys() - set(ROLES))
    if unknown:
        raise ConfigurationError(
            f"AUTORENEW_ROLE_PASSWORDS: no role {', '.join(unknown)}; there are {', '.join(ROLES)}"
        )
    engine = connect(settings.need("database_url"))
    click.get_current_context().call_on_close(engine.dispose)
    migrate_database(engine, passwords)
    say("the database is up to date")
    if are_large_objects_open(engine):
        say("every role may write large objects: run migrate once as a superuser to close them")


@click.group(cls=Commands)
def broker() -> None:
    """Exchanges, queues and users on RabbitMQ."""


@broker.command()
def setup() -> None:
    """Declare exchanges and queues, as an administrator; safe to repeat.

    \b
    With AUTORENEW_BROKER_MANAGEMENT_URL it also sets
    - policies: how much may wait in a queue of documents, and that nothing
      is given up
    - users, from AUTORENEW_BROKER_PASSWORDS (JSON, user -> password), each
      with the least permissions it needs

    Exit code 1 if something is left to do by hand, and a line says what.
    """
    settings = load_settings()
    urls = settings.need("broker_url")
    passwords = {u: p.get_secret_value() for u, p in settings.broker_passwords.items()}
    topology.check_users(passwords)
    topology.check_upstreams(settings.intake_upstreams)
    management: Management | None = None
    version: tuple[int, ...] = ()
    if passwords or settings.broker_management_url:
        management = _management(settings, urls)
        version = management.check()  # before anything is declared
    wanted = topology.policies(version, settings.intake_cap, settings.intake_cap_bytes)
    # First, so that a queue has its policy from the beginning.
    others = topology.set_policies(management, wanted) if management else []
    say(f"queues: {', '.join(topology.declare(urls, settings.intake_upstreams))}")
    if management is None:
        say(
            "no policies: AUTORENEW_BROKER_MANAGEMENT_URL is not set; without them intake takes any"
            " number of documents, and RabbitMQ 4 sets aside what was delivered 20 times",
            err=True,
        )
        sys.exit(1)
    say(f"policies: {', '.join(wanted)}")
    if passwords:
        users = topology.create_users(management, passwords, settings.realms)
        say(f"users: {', '.join(users)}")
    for other in others:
        say(other, err=True)
    sys.exit(1 if others else 0)


@broker.command("requeue-dead")
@click.option("--limit", type=click.IntRange(1), help="At most so many; by default all.")
def requeue_dead(limit: int | None) -> None:
    """Put documents that were set aside on intake.dead back into intake, oldest first.

    As an administrator, with AUTORENEW_BROKER_MANAGEMENT_URL.
    """
    settings = load_settings()
    urls = settings.need("broker_url")
    moved, left = dead.put_back(urls, _management(settings, urls), limit)
    say(f"{moved} documents are put back into intake, {left} are left on intake.dead")


def _management(settings: Settings, urls: str) -> Management:
    return Management(settings.need("broker_management_url"), topology.vhost_of(urls))


@click.group(cls=Commands)
def catalogue() -> None:
    """Plans, prices and contracts."""


_paths = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
_bundled = click.option("--bundled", "use_bundled", is_flag=True, help="The sample catalogue.")


@catalogue.command("load")
@_paths
@_bundled
def load_command(paths: tuple[Path, ...], use_bundled: bool) -> None:
    """Put the catalogue of PATHS (TOML files or folders) in force; other plans go off sale."""
    _put_in_force(_read(paths, use_bundled))


@catalogue.command()
@_paths
@_bundled
def check(paths: tuple[Path, ...], use_bundled: bool) -> None:
    """Check the files of PATHS, without a database.

    Exit code 2 if they cannot be loaded, 1 if they can and something in them could never be sold.
    """
    found = _read(paths, use_bundled)
    say(f"{len(found.plans)} plans, {len(found.contracts)} contracts: valid")
    if _warn_of_unsellable(found):
        sys.exit(1)


@catalogue.command("import-ovh")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--driver", default="dedicated", show_default=True, help="What builds them.")
@click.option("--contract", default="dedicated", show_default=True, help="What they require.")
@as_json
def import_ovh_command(file: Path, driver: str, contract: str, as_json: bool) -> None:
    """Add the plans of OVH's public catalogue FILE (.json or .json.gz) to those in force."""
    imported = import_ovh(file, driver=driver, contract=contract)
    engine = database()
    with engine.begin() as tx:
        current = read(tx)
        if imported.subsidiary not in current.subsidiaries or contract not in current.contracts:
            raise ConfigurationError(
                f"the catalogue in force lacks subsidiary {imported.subsidiary} or contract"
                f" {contract}: load one first"
            )
        currency = current.subsidiaries[imported.subsidiary].currency
        if imported.currency != currency:
            raise ConfigurationError(
                f"{file.name} is priced in {imported.currency},"
                f" and subsidiary {imported.subsidiary} sells in {currency}"
            )
        # Imported plans name no policy: they get the default one in force.
        policies = {plan.policy.code: plan.policy for plan in current.known_plans()}
        default = policies.get(DEFAULT_POLICY.code, DEFAULT_POLICY)
        plans = current.plans | {p.code: replace(p, policy=default) for p in imported.plans}
        save(
            tx,
            Catalogue(current.subsidiaries.values(), current.contracts.values(), plans.values()),
        )
    _report(imported, as_json)


def _report(imported: OvhImport, json_lines: bool) -> None:
    skipped = imported.skipped_commitments
    if not json_lines:
        say(
            f"{len(imported.plans)} plans of {imported.subsidiary},"
            f" {sum(len(plan.prices) for plan in imported.plans)} prices,"
            f" tax rate {imported.tax_rate} %"
        )
        modes = ", ".join(f"{mode} {count}" for mode, count in sorted(skipped.items()))
        say(f"skipped commitments: {skipped.total()} pricings ({modes})")
        say(
            f"not priced: {sum(map(len, imported.unpriced_addons.values()))} mandatory add-on"
            f" families of {len(imported.unpriced_addons)} plans (--json lists them)"
        )
        return
    rows = [
        (plan.code, plan.brand, len(plan.prices), imported.unpriced_addons.get(plan.code, []))
        for plan in imported.plans
    ]
    show("plans", ("plan", "brand", "prices", "not_priced"), rows, json_lines=True)


@catalogue.command("list")
@as_json
def list_command(as_json: bool) -> None:
    """List the plans on sale."""
    with database().connect() as tx:
        plans = read(tx).plans.values()
    rows = [
        (
            plan.code,
            plan.universe,
            plan.brand,
            plan.contract,
            " ".join(sorted({subsidiary for subsidiary, _ in plan.prices})),
            " ".join(map(str, sorted({period for _, period in plan.prices}))),
        )
        for plan in sorted(plans, key=lambda plan: (plan.universe, plan.code))
    ]
    columns = ("plan", "universe", "brand", "contract", "subsidiaries", "periods")
    show("plans on sale", columns, rows, json_lines=as_json)


def _read(paths: tuple[Path, ...], use_bundled: bool) -> Catalogue:
    if use_bundled == bool(paths):
        raise click.UsageError("name PATHS, or --bundled")
    return bundled() if use_bundled else load(paths)


def _put_in_force(found: Catalogue) -> None:
    with database().begin() as tx:
        version = save(tx, found)
        unpriced = list(changes.sold_without(tx))
    say(f"catalogue {version}: {len(found.plans)} plans in force")
    for warning in unpriced:
        say(f"warning: {warning}", err=True)
    _warn_of_unsellable(found)


def _warn_of_unsellable(found: Catalogue) -> bool:
    reasons = list(sellable.never(found, datetime.now(UTC).date()))
    for reason in reasons:
        say(f"warning: {reason}", err=True)
    return bool(reasons)


@click.group(cls=Commands)
def rollout() -> None:
    """Where renewal is switched on: by brand and subsidiary, from a day on.

    Services elsewhere are never charged, reminded, suspended or terminated automatically.
    """


@rollout.command("list")
@as_json
def list_rollouts(as_json: bool) -> None:
    """List where renewal is on, from which day, and for how many services."""
    with database().connect() as tx:
        rows = tx.execute(
            text("""SELECT brand, subsidiary, starts_on, services FROM rollouts
                 FULL JOIN (SELECT brand, subsidiary, count(*) AS services FROM services
                    WHERE state IN ('active', 'suspended') GROUP BY brand, subsidiary) AS s
                 USING (brand, subsidiary) ORDER BY starts_on NULLS LAST, brand, subsidiary""")
        ).all()
    columns = ("brand", "subsidiary", "starts_on", "services")
    show("rollout (no day: not switched on)", columns, rows, json_lines=as_json)


@rollout.command("set")
@click.argument("brand")
@click.argument("subsidiary")
@click.argument("day", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY")
@as_json
@acts()
def set_rollout_command(brand: str, subsidiary: str, day: datetime, as_json: bool) -> None:
    """Switch renewal on for BRAND in SUBSIDIARY, from the start of DAY (2026-01-31), local time."""
    with database().begin() as tx:
        check_subsidiaries(tx, [subsidiary])
        check_brands(tx, [brand])
        was = rollouts.switch(tx, brand, subsidiary, day.date())
    said = f"renewal is on for {brand} in {subsidiary} from {day.date()}"
    _tell_rollout(brand, subsidiary, day.date(), was, as_json, said)


@rollout.command("remove")
@click.argument("brand")
@click.argument("subsidiary")
@as_json
@acts()
def remove_rollout(brand: str, subsidiary: str, as_json: bool) -> None:
    """Switch renewal off for BRAND in SUBSIDIARY."""
    with database().begin() as tx:
        # A brand without plans may have been switched on while it had some.
        was = rollouts.switch(tx, brand, subsidiary, None)
        if was is None:
            check_subsidiaries(tx, [subsidiary])
            check_brands(tx, [brand])
    said = f"renewal is off for {brand} in {subsidiary}"
    said = said if was else f"{said}: no change, it was not on"
    _tell_rollout(brand, subsidiary, None, was, as_json, said)


def _tell_rollout(
    brand: str, subsidiary: str, day: date | None, was: date | None, as_json: bool, said: str
) -> None:
    if as_json:
        click.echo(
            said_of({"brand": brand, "subsidiary": subsidiary, "starts_on": day, "before": was})
        )
    else:
        say(said)


@rollout.command("show")
@click.argument("brand")
@click.argument("subsidiary")
@as_json
def show_rollout(brand: str, subsidiary: str, as_json: bool) -> None:
    """Show who switched renewal on or off for BRAND in SUBSIDIARY, when and why."""
    with database().connect() as tx:
        events = rollouts.history_of(tx, brand, subsidiary)
        if not events:
            check_subsidiaries(tx, [subsidiary])
            check_brands(tx, [brand])
    columns = ("at", "event", "starts_on", "before", "by", "because")
    rows = [(e.at, e.name, *((e.detail or {}).get(n) for n in columns[2:])) for e in events]
    show(f"renewal of {brand} in {subsidiary}", columns, rows, json_lines=as_json)
