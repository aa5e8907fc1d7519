"""Options that select tasks, the same for every command that lists some or acts on some."""

import functools
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from autorenew.cli.acting import check_text
from autorenew.cli.common import say
from producers.control.selection import Filters, Selection, State

F = Callable[..., Any]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Text(click.ParamType[str]):
    """Text as others chose it."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not value:
            self.fail("it names nothing", param, ctx)
        return check_text(str(value), lambda message: self.fail(message, param, ctx))


class Age(click.ParamType[timedelta]):
    name = "age"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,6})([smhdw])", str(value), re.ASCII)
        if found is None:
            self.fail(f"{value!a} is not an age such as 90s, 15m, 2h, 3d or 1w", param, ctx)
        return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


class Since(click.ParamType[datetime | timedelta]):
    """A time, or how long ago it was."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime | timedelta:
        if isinstance(value, datetime | timedelta):
            return value
        if re.fullmatch(r"[0-9]+[a-z]", str(value), re.ASCII):
            return Age().convert(value, param, ctx)
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(
                f"{value!a} is neither a time such as 2026-03-01T08:00Z nor an age such as 2h",
                param, ctx,
            )  # fmt: skip
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


NAMES = click.argument("names", nargs=-1, type=Text())
_OPTIONS = (
    click.option("--queue", type=Text(), help="Only on this queue."),
    click.option("--step", type=Text(), help="Only of this step, such as `charge`."),
    click.option("--lane", type=Text(), help="Only in this lane."),
    click.option("--driver", type=Text(), help="Only services of this driver."),
    click.option("--universe", type=Text(), help="Only services of this universe."),
    click.option(
        "--reason", type=Text(),
        help="Only those that failed for this reason: ours, or the far side's own code.",
    ),
    click.option(
        "--code", type=Text(),
        help="Only those with this code of the far side, and no other; `(none)`: it gave none.",
    ),
    click.option("--plan", type=Text(), help="Only about services of this plan."),
    click.option("--customer", type=Text(), help="Only about this customer."),
    click.option("--order", type=Text(), help="Only about the order with this key or id."),
    click.option("--service", type=Text(), help="Only about the service with this id."),
    click.option("--upstream", type=Text(), help="Needed where several use the same order key."),
    click.option(
        "--older-than", type=Age(),
        help="Only those that first failed, or became ready, so long ago: 90s, 15m, 2h, 3d, 1w.",
    ),
)  # fmt: skip
_SINCE = click.option(
    "--since",
    type=Since(),
    help="Only those that failed, or became ready, since then: 90s, 15m, 2h, 3d, 1w, or a time"
    " such as 2026-03-01 or 2026-03-01T08:00Z.",
)
_STATE = click.option(
    "--state", "states", multiple=True, type=click.Choice([state.value for state in State]),
    help="Only in this state. May be repeated.",
)  # fmt: skip


def selects(*, states: bool = False) -> Callable[[F], F]:
    """Names and options that select tasks; the command gets ``filters``."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> Any:
            fields = {
                name: kwargs.pop(name)
                for name in (
                    "names", "queue", "step", "lane", "driver", "universe", "reason", "code",
                    "plan", "customer", "order", "service", "upstream", "older_than", "since",
                )
            }  # fmt: skip
            chosen = frozenset(map(State, kwargs.pop("states", ())))
            return command(*args, filters=Filters(states=chosen, **fields), **kwargs)

        for option in reversed((*_OPTIONS, _SINCE, *((_STATE,) if states else ()))):
            run = option(run)
        return NAMES(run)

    return decorate


def say_more(selection: Selection, *, as_json: bool, see: str = "--limit") -> None:
    """What of a list was not shown."""
    if selection.more:
        say(f"and {selection.more} more; see {see}", err=as_json)


def say_none(what: str, page: int, total: int) -> None:
    """An empty list, or an empty page of one that is not."""
    say(f"{what}: none on page {page}, {total} in all" if total else f"{what}: none")


def say_unmatched(names: Sequence[str], what: str) -> None:
    for name in names:
        say(f"autorenew: {name}: {what}", err=True)


def counted(number: int, one: str = "task", many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def shortened(things: Sequence[object]) -> str:
    """The first of them, and how many more there are."""
    if not things:
        return ""
    more = f" and {len(things) - 1} more" if len(things) > 1 else ""
    return f"{things[0]}{more}"
