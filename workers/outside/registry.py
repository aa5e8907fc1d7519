"""Gateways and drivers by name: found among what is installed, built from their own settings.

A package adds one by an entry point in the group ``autorenew.gateways`` or ``autorenew.drivers``.
The entry point names a class (or a function with an attribute ``Settings``) that is called with the
name it is configured under and its validated settings.
"""

import inspect
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol

from pydantic import BaseModel, Secret, ValidationError

from schemas.errors import ConfigurationError, first_line

Options = Mapping[str, Secret[dict[str, Any]]]

DEFAULT_KIND = "http"

# What the ports of a group are called by.
METHODS = {
    "gateways": ("perform", "ask", "book", "close"),
    "drivers": ("perform", "ask", "resources", "close"),
}


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


def lacks(group: str, port: Any) -> list[str]:
    """What a gateway or a driver lacks to be one; nothing: it can be called.

    A method that is no coroutine would do its work, and fail when its answer is awaited: money
    would be taken, and nobody would know.

    >>> lacks("drivers", object())[0]
    'it has no method perform'
    """
    wrong = []
    for name in METHODS[group]:
        method = getattr(port, name, None)
        if not callable(method):
            wrong.append(f"it has no method {name}")
        elif not inspect.iscoroutinefunction(method):
            wrong.append(f"its method {name} is not `async def`")
    if not isinstance(getattr(port, "immediate", None), bool):
        wrong.append("its attribute immediate is neither True nor False")
    return wrong


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
    offers = f"{where}: {found[0].value}"
    model = getattr(factory, "Settings", None)
    if not callable(factory) or not (inspect.isclass(model) and issubclass(model, BaseModel)):
        raise ConfigurationError(f"{offers} is not a class with Settings, a pydantic model")
    if "seconds" in model.model_fields:
        options.setdefault("seconds", seconds)
    try:
        settings = model.model_validate(options)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError(f"{where}: {'; '.join(problems)}") from None
    try:
        port = factory(name, settings)
    except ConfigurationError:
        raise
    except Exception as error:
        words = _without(first_line(error), options)
        raise ConfigurationError(f"{offers} cannot be built: {words}") from error
    if wrong := lacks(group, port):
        raise ConfigurationError(f"{offers} is not a {group[:-1]}: {'; '.join(wrong)}")
    return port


def _without(words: str, options: Any) -> str:
    """Words without the texts among options: one of them may be a secret."""
    for text in sorted(_texts(options), key=len, reverse=True):
        words = words.replace(text, "***")
    return words


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) > 3:
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)
