"""Commands about the gateways and drivers that a database belongs with."""

import click
from sqlalchemy import text

from autorenew.cli.common import as_json, database, say, show
from autorenew.cli.helping import Commands
from schemas import urls
from schemas.errors import AutorenewError, ConfigurationError
from schemas.tables.far_sides import FarSideKind
from workers.outside.identity import identity_of
from workers.outside.registry import DEFAULT_KIND

_LIST = text("SELECT kind, name, identity, since FROM far_sides ORDER BY kind, name")
_CHANGE = text("""
    UPDATE far_sides SET identity = :identity, since = now()
    WHERE kind = :kind AND name = :name RETURNING identity
""")
_KNOWN = text("SELECT name FROM far_sides WHERE kind = :kind ORDER BY name")


@click.group("far-side", cls=Commands)
def far_side() -> None:
    """Gateways and drivers that this database belongs with.

    A worker writes down where each is when it first starts. One that is configured with another
    place later does not start.
    """


@far_side.command("list")
@as_json
def list_far_sides(as_json: bool) -> None:
    """List gateways and drivers, where each is, and since when."""
    with database().connect() as tx:
        rows = tx.execute(_LIST).all()
    show("far sides", ("kind", "name", "identity", "since"), rows, json_lines=as_json)


@far_side.command()
@click.argument("kind", type=click.Choice([kind.value for kind in FarSideKind]))
@click.argument("name")
@click.argument("url")
@click.option("--port-kind", default=DEFAULT_KIND, show_default=True, help="The kind of its port.")
def change(kind: str, name: str, url: str, port_kind: str) -> None:
    """Say that the gateway or driver NAME is at URL from now on, as the database's owner.

    Stop the workers that call it first, and start them with the new URL. A kind that is known by
    provider and region is told them instead, as 'ec2 eu-west-3', or as
    'openstack cloud.example:5000/v3 shop'.
    """
    if port_kind == DEFAULT_KIND or "://" in url:
        try:
            urls.check_web(url)
        except ValueError as error:
            raise ConfigurationError(f"URL {error}") from None
        identity = identity_of({"kind": port_kind, "url": url})
    else:
        identity = identity_of({"kind": port_kind, "provider": url})
    with database().begin() as tx:
        if tx.execute(_CHANGE, {"kind": kind, "name": name, "identity": identity}).first() is None:
            known = ", ".join(tx.execute(_KNOWN, {"kind": kind}).scalars()) or "none"
            raise AutorenewError(f"there is no {kind} {name!r}; there are: {known}")
    say(f"{kind} {name} is {identity}")
