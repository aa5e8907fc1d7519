"""The command ``autorenew``."""

import errno
import importlib
import os
import sys
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from autorenew.cli.helping import INTERRUPTED, Commands
from schemas.errors import AutorenewError, first_line
from schemas.shown import for_terminal

# Command -> the module that holds it, imported when the command runs: `--help` imports none.
COMMANDS = {
    "demo": "local",
    "up": "local",
    "migrate": "admin",
    "broker": "admin",
    "catalogue": "admin",
    "subsidiary": "subsidiaries",
    "order": "orders",
    "rejected": "orders",
    "tasks": "tasks",
    "failed": "failed",
    "bulk": "bulk",
    "lanes": "lanes",
    "events": "webhooks",
    "webhooks": "webhooks",
    "audit": "auditing",
    "seals": "seals",
    "service": "services",
    "customer": "customers",
    "invoice": "invoices",
    "rollout": "admin",
    "far-side": "far_sides",
    "forecast": "forecast",
    "reconcile": "reconcile",
    "intake": "processes",
    "relay": "processes",
    "scheduler": "processes",
    "worker": "processes",
    "exporter": "exporter",
    "api": "serving",
    "keys": "keys",
    "pages": "pages",
    "simulator": "processes",
    "console": "console",
    "operators": "console",
}


# They run until they are stopped, and log for programs where no terminal is.
PROCESSES = frozenset(
    {"intake", "relay", "scheduler", "worker", "exporter", "api", "pages", "console", "simulator"}
)


SECTIONS = {
    "Try it, in one process": ("demo", "up"),
    "Set up": ("migrate", "broker", "catalogue", "subsidiary", "rollout", "far-side"),
    "Customers, and what is theirs": ("order", "rejected", "service", "customer", "invoice"),
    "What waits, failed or is held": ("tasks", "failed", "bulk", "lanes"),
    "Books and infrastructure": ("audit", "reconcile", "seals", "forecast"),
    "Who may come in, and who is told": ("keys", "operators", "webhooks", "events"),
    "Processes of the fleet": (
        "api", "intake", "relay", "scheduler", "worker", "exporter", "console", "pages",
        "simulator",
    ),
}  # fmt: skip


class _Lazy(Commands):
    sections = SECTIONS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"autorenew.cli.{COMMANDS[name]}")
        command = getattr(module, name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # Python has none where it was closed (`>&-`); what is to be done is done all the same.
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would end with 1, which means problems found
            click.echo("autorenew: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except click.Abort as error:
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise  # a no, or the end of the input
            click.echo("\nautorenew: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except AutorenewError as error:
            for line in str(error).splitlines():
                click.echo(f"autorenew: {for_terminal(line)}", err=True)
            sys.exit(2)
        except OSError as error:
            if error.errno not in _CANNOT_WRITE or ctx.invoked_subcommand in PROCESSES:
                raise
            click.echo(f"autorenew: cannot write: {error.strerror}", err=True)
            sys.exit(2)
        except Exception as error:
            if not _is_of_the_database(error):
                raise
            click.echo(f"autorenew: database: {for_terminal(first_line(error))}", err=True)
            if "permission denied" in first_line(error):
                click.echo(f"autorenew: {_WHICH_ROLE}", err=True)
            sys.exit(2)


_CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
_WHICH_ROLE = (
    "log in as the role of this command: docs/reference/command-line.md has it in `works as`"
)


def _is_of_the_database(error: Exception) -> bool:
    """Whether it is SQLAlchemy's, or the driver's where COPY goes past SQLAlchemy."""
    driver = sys.modules.get("psycopg")  # imported by whoever uses it
    return isinstance(error, SQLAlchemyError) or (
        driver is not None and isinstance(error, driver.Error)
    )


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="autorenew")
def main() -> None:
    """The back office behind one click: orders, renewals, billing and provisioning.

    \b
    Settings come from the environment: AUTORENEW_DATABASE_URL and others.
    Exit codes: 0 success, 1 problems found, 2 failed, 130 interrupted (Ctrl-C).
    """
    from schemas import logs
    from schemas.settings import load_settings

    process = click.get_current_context().invoked_subcommand or "autorenew"
    settings = load_settings()
    # A command is somebody's at a terminal, or in a script that reads its standard output.
    is_a_command = settings.log_format == "auto" and process not in PROCESSES
    format_ = "text" if is_a_command else settings.log_format
    logs.configure(process, settings.log_level, format_)
