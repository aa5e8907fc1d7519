"""Gateways and drivers by name: found among what is installed, built from their own settings.

A package adds one by an entry point in the group ``autorenew.gateways`` or ``autorenew.drivers``.
The entry point names a class (or a function with an attribute ``Settings``) that is called with the
name it is configured under and its validated settings.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol

from pydantic import BaseModel, Secret, ValidationError

from schemas.errors import ConfigurationError, first_line

Options = Mapping[str, Secret[dict[str, Any]]]

DEFAULT_KIND = "http"


class Factory(Protocol):
    """What an entry point leads to."""

    Settings: type[BaseModel]

    def __call__(self, name: str, settings: Any) -> Any: ...


def build(group: str, configured: Options, *, seconds: float) -> dict[str, Any]:
    """The ports of a group that are configured, by name.

    Args:
        group: ``gateways`` or ``drivers``.
        configured: name -> its options: ``kind`` (:data:`DEFAULT_KIND` if not given), and what
            the settings of that kind take.
        seconds: the deadline of a call, for those that take one and are told none.

    Raises:
        ConfigurationError: naming the setting and what is wrong, never a value.
    """
    return {
        name: _build(group, name, dict(options.get_secret_value()), seconds)
        for name, options in configured.items()
    }


def kinds(group: str) -> list[str]:
    """The kinds that are installed."""
    return sorted({point.name for point in entry_points(group=f"autorenew.{group}")})


def _build(group: str, name: str, options: dict[str, Any], seconds: float) -> Any:
    where = f"AUTORENEW_{group.upper()}[{name!r}]"
    kind = options.pop("kind", DEFAULT_KIND)
    found = [point for point in entry_points(group=f"autorenew.{group}") if point.name == kind]
    if not found:
        raise ConfigurationError(
            f"{where}: no kind {kind!r} is installed; there are {', '.join(kinds(group))}"
        )
    # A package that is installed twice names the same object twice.
    offered = sorted({point.value for point in found})
    if len(offered) > 1:
        raise ConfigurationError(
            f"{where}: several packages offer the kind {kind!r}: {', '.join(offered)}"
        )
    try:
        factory: Factory = found[0].load()
    except Exception as error:
        raise ConfigurationError(
            f"{where}: {found[0].value} cannot be loaded: {first_line(error)}"
        ) from error
    if "seconds" in factory.Settings.model_fields:
        options.setdefault("seconds", seconds)
    try:
        settings = factory.Settings.model_validate(options)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError(f"{where}: {'; '.join(problems)}") from None
    return factory(name, settings)
