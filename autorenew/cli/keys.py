"""Commands about keys of the HTTP API: made, listed, revoked."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from autorenew.cli.acting import acts
from autorenew.cli.common import as_json, database, realms, say, show
from autorenew.cli.helping import Commands
from autorenew.cli.names import check_brands, check_subsidiaries
from autorenew.cli.selecting import Text
from producers.api import keys as all_keys
from producers.api.keys import DEFAULT_PER_SECOND, KeyInvalid, KeyScope

_COLUMNS = (
    "name", "prefix", "upstream", "scopes", "brands", "subsidiaries", "per_second", "created_at",
    "created_by", "expires_at", "revoked_at", "last_used_at",
)  # fmt: skip


@click.group(cls=Commands)
def keys() -> None:
    """Keys of the HTTP API: who may use it, and for what."""


class _Expiry(click.ParamType[datetime]):
    name = "date"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        if isinstance(value, datetime):
            return value
        said = str(value)
        if said.endswith("d") and said[:-1].isascii() and said[:-1].isdigit() and len(said) < 6:
            return datetime.now(UTC) + timedelta(days=int(said[:-1]))
        try:
            moment = datetime.fromisoformat(said)
        except ValueError:
            self.fail(f"{value!a} is neither a date such as 2027-01-31 nor days such as 90d")
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@keys.command()
@click.option("--name", required=True, type=Text(), help="Told in the history of what it does.")
@click.option("--realm", type=Text(), help="Whose customers it sees; its upstream has that name.")
@click.option("--upstream", type=Text(), help="Whose orders it places; it sees the realm of it.")
@click.option("--all-realms", is_flag=True, help="An operator's: it sees all realms.")
@click.option(
    "--scope", "scopes", multiple=True, required=True,
    type=click.Choice([scope.value for scope in KeyScope]), metavar="SCOPE",
    help=f"May be repeated: {', '.join(scope.value for scope in KeyScope)}.",
)  # fmt: skip
@click.option("--brand", "brands", multiple=True, type=Text(), help="Only these; may be repeated.")
@click.option(
    "--subsidiary", "subsidiaries", multiple=True, type=Text(), help="Only these; may be repeated."
)
@click.option("--expires", type=_Expiry(), help="A date, or in so many days: 90d.")
@click.option(
    "--per-second", type=click.IntRange(1, 1_000_000), default=DEFAULT_PER_SECOND,
    show_default=True, help="Requests, and orders of batches, that a process answers it.",
)  # fmt: skip
@as_json
@acts()
def create(
    name: str, realm: str | None, upstream: str | None, all_realms: bool, scopes: Sequence[str],
    brands: Sequence[str], subsidiaries: Sequence[str], expires: datetime | None,
    per_second: int, as_json: bool,
) -> None:  # fmt: skip
    """Make a key, and show it once: it is kept nowhere.

    It belongs to a --realm, or to the realm of an --upstream.
    """
    whose = _whose(realm, upstream, all_realms)
    if expires is not None and expires <= datetime.now(UTC):
        raise KeyInvalid(f"--expires {expires:%F}: that has passed")
    with database().begin() as tx:
        check_brands(tx, brands)
        check_subsidiaries(tx, subsidiaries)
        made, text = all_keys.create(
            tx,
            name,
            [KeyScope(scope) for scope in scopes],
            upstream=whose,
            brands=brands,
            subsidiaries=subsidiaries,
            per_second=per_second,
            expires_at=expires,
        )
    if as_json:
        click.echo(json.dumps({"name": made.name, "prefix": made.prefix, "key": text}))
        return
    say(f"key {made.name}: shown once, and kept nowhere", err=True)
    click.echo(text)


def _whose(realm: str | None, upstream: str | None, all_realms: bool) -> str | None:
    """The upstream of a key; None: all realms."""
    if all_realms:
        if realm or upstream:
            raise click.UsageError("--all-realms, or a --realm or --upstream")
        return None
    if upstream is None:
        if realm is None:
            raise click.UsageError("name a --realm, an --upstream, or --all-realms")
        upstream = realm
    found = realms().of(upstream, "api")
    if realm is not None and found != realm:
        raise click.UsageError(f"upstream {upstream!r} is of the realm {found!r}, not {realm!r}")
    return upstream


@keys.command("list")
@as_json
def list_keys(as_json: bool) -> None:
    """List keys, the oldest first: what each is for, and when it was last used, to the minute."""
    with database().connect() as tx:
        found = all_keys.list_keys(tx)
    rows = [
        (
            key.name, key.prefix, key.upstream, sorted(key.scopes),
            None if key.brands is None else list(key.brands),
            None if key.subsidiaries is None else list(key.subsidiaries),
            key.per_second, *(_second(at) for at in (key.created_at,)), key.created_by,
            *map(_second, (key.expires_at, key.revoked_at, key.last_used_at)),
        )
        for key in found
    ]  # fmt: skip
    if not as_json:
        rows = [
            tuple(", ".join(cell) if isinstance(cell, list) else cell for cell in row)
            for row in rows
        ]
    show("keys", _COLUMNS, rows, json_lines=as_json)


def _second(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(microsecond=0)


@keys.command()
@click.argument("name", type=Text())
@acts()
def revoke(name: str) -> None:
    """Take no more requests with the key of this NAME or prefix, within two seconds."""
    with database().begin() as tx:
        is_new = all_keys.revoke(tx, name)
    say(f"{name} is revoked" if is_new else f"{name}: no change, it was revoked already")
