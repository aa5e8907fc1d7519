"""From JSON to the frozen models of :mod:`producers.client.models`.

Fields that this client does not know are left out: a newer release may have more of them. So may an
enumeration, whose values are read as texts.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import date, datetime
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def read(kind: Callable[..., T], value: Any) -> T:
    """
    Raises:
        KeyError: a field that every release has is missing.
        ValueError, TypeError: a value is of another kind.
    """
    found: T = _reader(kind)(value)
    return found


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (one,) = (argument for argument in arguments if argument is not type(None))
        inner = _reader(one)
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        inner = _reader(arguments[0])
        return lambda value: tuple(inner(one) for one in _checked(value, list))
    if origin is Mapping:
        inner = _reader(arguments[1])
        return lambda value: {n: inner(one) for n, one in _checked(value, dict).items()}
    if kind is datetime:
        return datetime.fromisoformat
    if kind is date:
        return date.fromisoformat
    if kind is Any:
        return lambda value: value
    if kind in (str, bool, int):
        return lambda value: _checked(value, kind)
    if kind is float:
        return lambda value: float(_checked(value, (int, float)))
    return _object(kind)


def _object(kind: Any) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}

    def read_object(value: Any) -> Any:
        given = _checked(value, dict)
        return kind(**{n: reader(given[n]) for n, reader in readers.items() if n in given})

    return read_object


def _checked(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} instead of {kind}")
    return value
