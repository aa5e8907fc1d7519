"""Which failed tasks are meant, out of a URL or a form, and back."""

from datetime import UTC, datetime, timedelta

import click

from autorenew.cli.selecting import Age, Since
from autorenew.console.context import BadInput, Values
from producers.control.selection import Filters

# As a person enters them; in the order in which they are shown.
FIELDS = (
    "queue", "step", "lane", "driver", "universe", "reason", "code", "plan", "customer", "order",
    "service", "upstream", "older_than", "since",
)  # fmt: skip
NO_CODE = "(none)"
"""As a filter: the far side gave no reason of its own."""


def filters_of(values: Values) -> Filters:
    """
    Raises:
        BadInput: an age or a time cannot be read.
    """
    chosen: dict[str, str | timedelta | datetime | None] = {
        name: values.get(name) for name in FIELDS
    }
    try:
        for name, kind in (("older_than", Age()), ("since", Since())):
            if chosen[name] is not None:
                chosen[name] = kind.convert(chosen[name], None, None)
    except click.BadParameter as error:
        raise BadInput(error.message) from None
    return Filters(**chosen)  # type: ignore[arg-type]


def chosen_in(values: Values) -> dict[str, str]:
    """The fields that filter, as they were entered."""
    return {name: said for name in FIELDS if (said := values.get(name)) is not None}


def moment_of(values: Values, name: str) -> datetime | None:
    """A time that a page of ours wrote into a field.

    Raises:
        BadInput: it is none.
    """
    said = values.get(name)
    if said is None:
        return None
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        raise BadInput(f"{said!r} is not a time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
