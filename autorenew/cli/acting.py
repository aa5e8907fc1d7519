"""Who does it and why: options of every command that changes something by an operator's hand."""

import functools
import os
import pwd
import unicodedata
from collections.abc import Callable
from typing import Any

import click

from monitoring import tracing
from producers import history
from producers.history import Operator
from schemas.settings import load_settings

F = Callable[..., Any]

# Nobody waits at a terminal for a collector that is away.
PATIENCE_SECONDS = 1.0


def user() -> str:
    """The operating system's user; behind sudo, who called it."""
    if os.geteuid() == 0 and (caller := os.environ.get("SUDO_USER", "").strip()):
        return caller
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # of a container that knows no names
        return f"uid {os.getuid()}"


class Words(click.ParamType[str]):
    """Text that says something, without blanks at its ends."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        said = str(value).strip()
        if not said:
            self.fail("it says nothing", param, ctx)
        return check_text(said, lambda message: self.fail(message, param, ctx))


def check_text(value: str, fail: Callable[[str], Any]) -> str:
    """What the database can keep, and a terminal can show."""
    # Control characters, and half a character of an argument that is not UTF-8.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        fail(f"{value!a} has characters that cannot be kept")
    return value


def acts(*, required: bool = False, tells: bool = False, selects: bool = False) -> Callable[[F], F]:
    """``--by`` or ``--as``, and ``--because`` or ``--note``: all that a command records in the
    history has them.

    Args:
        required: why must be said.
        tells: the command gets why, as ``because``, and ``--reason`` is the same; so it is where
            that is required. Elsewhere ``--reason`` may be a filter, by why a task has failed.
        selects: it is, whatever else is said.
    """
    tells = tells or required
    names = ["--because", "--note", *(["--reason"] if tells and not selects else [])]

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(*args: Any, by: str | None, because: str | None, **kwargs: Any) -> Any:
            if by is not None and by.casefold() == "guard":
                raise click.UsageError("--by: the guard is no person")
            told = {"because": because} if tells else {}
            settings = load_settings()
            who = Operator(by or settings.operator or user(), because)
            if settings.traces_url and not tracing.is_on():
                tracing.configure(settings, "operator", patience=PATIENCE_SECONDS)
                click.get_current_context().call_on_close(tracing.close)
            with history.acting(who):
                return command(*args, **told, **kwargs)

        why = click.option(
            *names, "because", type=Words(), required=required,
            help="Why; kept in the history, for those who ask later.",
        )  # fmt: skip
        who = click.option(
            "--by", "--as", "by", type=Words(),
            help="Who; kept in the history. By default AUTORENEW_OPERATOR, or the system's user.",
        )  # fmt: skip
        return why(who(run))

    return decorate
