"""The console of operators, and who may use it."""

import sys
from typing import Any

import click

from autorenew.cli.acting import Words, acts
from autorenew.cli.common import as_json as json_option
from autorenew.cli.common import database, on_stop, present, read_database, said_of, say, show
from autorenew.cli.helping import Commands
from monitoring import metrics
from schemas.settings import load_settings
from schemas.values import OperatorRole

DEFAULT_PORT = 8070

_name = click.argument("name", type=Words())
_role = click.option(
    "--role",
    type=click.Choice([role.value for role in OperatorRole]),
    required=True,
    help="A reader sees; an operator acts, too; an administrator also adds operators.",
)
_stdin = click.option("--stdin", is_flag=True, help="Read the password from standard input.")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="0: any that is free.",
)
def console(host: str, port: int) -> None:
    """Serve the pages on which operators see and mend what the fleet does, until stopped.

    As the database role `console`; reads as `readonly` over AUTORENEW_READ_DATABASE_URL.
    """
    from autorenew.cli.processes import start
    from autorenew.console.serving import serve

    settings = load_settings()
    engine, clock = start(settings, "autorenew console", "console")
    reader = read_database(settings, application="autorenew console")
    server = serve(engine, reader, clock, settings, host=host, port=port)
    metrics.serve(settings)
    on_stop(server.stop)
    say(f"console on {settings.console_url or server.url}")
    present(engine, "console")
    server.run()
    server.close()


@click.group(cls=Commands)
def operators() -> None:
    """Who may use the console."""


@operators.command("add")
@_name
@_role
@_stdin
@click.option("--link", "with_link", is_flag=True, help="No password: print a link instead.")
@json_option
@acts()
def add_operator(name: str, role: str, stdin: bool, with_link: bool, as_json: bool) -> None:
    """Add the operator NAME; asks for a password."""
    from autorenew.console import accounts

    password = None if with_link else _password(stdin)
    with database().begin() as tx:
        account = accounts.add(tx, name, OperatorRole(role), password)
    url = _link(account.name) if with_link else None
    if as_json:
        click.echo(said_of({"name": account.name, "role": account.role, "link": url}))
        return
    say(f"{account.name} is added as {account.role}")
    if url is not None:
        say(url)


@operators.command("list")
@json_option
def list_operators(as_json: bool) -> None:
    """List operators with their roles, and when they last signed in."""
    from autorenew.console import accounts

    with database().connect() as tx:
        found = accounts.accounts(tx)
    rows = [
        (a.name, a.role, a.issuer or ("password" if a.has_password else "link"), a.created_at,
         a.signed_in_at, a.sessions)
        for a in found
    ]  # fmt: skip
    columns = ("name", "role", "signs_in_with", "created_at", "signed_in_at", "sessions")
    show("operators", columns, rows, json_lines=as_json)


@operators.command("remove")
@_name
@json_option
@acts()
def remove_operator(name: str, as_json: bool) -> None:
    """Remove the operator NAME; their sessions end at once."""
    from autorenew.console import accounts

    with database().begin() as tx:
        accounts.remove(tx, name)
    _tell({"name": name, "removed": True}, f"{name} is removed", as_json)


@operators.command("role")
@_name
@_role
@json_option
@acts()
def set_role(name: str, role: str, as_json: bool) -> None:
    """Give the operator NAME another role; their sessions end at once."""
    from autorenew.console import accounts

    with database().begin() as tx:
        accounts.set_role(tx, name, OperatorRole(role))
    _tell({"name": name, "role": role}, f"{name} is {role} now", as_json)


@operators.command("password")
@_name
@_stdin
@json_option
@acts()
def set_password(name: str, stdin: bool, as_json: bool) -> None:
    """Give the operator NAME another password; their sessions end at once."""
    from autorenew.console import accounts

    password = _password(stdin)
    with database().begin() as tx:
        accounts.set_password(tx, name, password)
    _tell({"name": name, "password": "changed"}, f"{name} has another password now", as_json)


@operators.command("link")
@_name
@json_option
@acts()
def make_link(name: str, as_json: bool) -> None:
    """Print a link that signs the operator NAME in once, within 15 minutes."""
    url = _link(name)
    _tell({"name": name, "link": url}, url, as_json)


def _tell(document: dict[str, Any], said: str, as_json: bool) -> None:
    if as_json:
        click.echo(said_of(document))
    else:
        say(said)


def _link(name: str) -> str:
    from autorenew.console.serving import link

    settings = load_settings()
    url = settings.console_url or f"http://127.0.0.1:{DEFAULT_PORT}"
    return link(database(settings), url, name)


def _password(stdin: bool) -> str:
    if stdin:
        return sys.stdin.readline().rstrip("\n")
    said: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return said
