"""JSON as upstream sends it: bounded before anything else looks at it, and without ambiguity."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

MAX_BODY_BYTES = 256 * 1024
MAX_FIELDS = 100
"""Of one object. Twice as many as any object of ours may have."""
MAX_VALUES = 10_000
"""Objects, list items and fields of a document. The largest order has fewer than 6,000."""
MAX_PROBLEMS = 50
# A body that is this short cannot hold enough to be worth counting.
_SHORT_BYTES = 1024
_MAX_MESSAGE = 500


class Problem(BaseModel):
    """Why a document is not accepted: a stable code, where, and a sentence."""

    code: str
    path: str
    message: str


_SAID = {"missing": "is needed", "extra_forbidden": "there is no such field"}


def said_of(kind: str, message: str) -> str:
    """What is said of a field that pydantic does not accept.

    Args:
        kind: pydantic's type of the error.
        message: pydantic's own words, where there are none of ours.
    """
    return _SAID.get(kind, message)


def summary(problems: Sequence[Problem]) -> str:
    """The first problem as a sentence that stands alone, and how many there are beside it."""
    first, more = problems[0], len(problems) - 1
    said = f"{first.path}: {first.message}" if first.path else first.message
    return f"{said} ({more} more in `problems`)" if more else said


def at_most(problems: Sequence[Problem], count: int | None = None) -> list[Problem]:
    """The first ``MAX_PROBLEMS``, and one more that says how many there are beside them.

    Args:
        count: of all, where ``problems`` are only the first of them.
    """
    more = (len(problems) if count is None else count) - MAX_PROBLEMS
    if more <= 0:
        return list(problems)
    rest = Problem(code="more_problems", path="", message=f"{more} more problems are not listed")
    return [*problems[:MAX_PROBLEMS], rest]


def read(body: bytes) -> tuple[Any, list[Problem]]:
    """Read a JSON object; never raises.

    Returns:
        The value, and no problems. Or with problems: None, where there is no value that may be
        looked at; else the value without the fields that are ambiguous.
    """
    if len(body) > MAX_BODY_BYTES:
        message = f"{len(body)} bytes, at most {MAX_BODY_BYTES} are accepted"
        return None, [Problem(code="too_large", path="", message=message)]
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        return None, [Problem(code="not_json", path="", message=str(error))]
    if not isinstance(value, dict):
        return value, [Problem(code="not_json", path="", message="not a JSON object")]
    if len(body) > _SHORT_BYTES and (problem := _too_many(value)):
        return None, [problem]
    if problems := _repeated(body, value):
        ambiguous = {problem.path for problem in problems}
        return {name: item for name, item in value.items() if name not in ambiguous}, problems
    return value, []


def unambiguous(text: bytes | str) -> Any:
    """The value of a JSON text in which no field is given more than once.

    Raises:
        ValueError: it is not JSON, or a field is; the message names it.
    """
    value = from_json(text, allow_inf_nan=False)
    if problems := _repeated(text.encode() if isinstance(text, str) else text, value):
        named = ", ".join(problem.path for problem in problems if problem.path)
        raise ValueError(f"{named} is given more than once" if named else problems[0].message)
    return value


def _too_many(value: Any) -> Problem | None:
    """What is too much about a value, found before all of it was looked at."""
    count = 0
    left: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    while left:
        item, place = left.pop()
        if isinstance(item, dict):
            if len(item) > MAX_FIELDS:
                message = f"{len(item)} fields, at most {MAX_FIELDS} are accepted in an object"
                return Problem(code="too_many_fields", path=path_of(place), message=message)
            parts: Iterator[tuple[str | int, Any]] = iter(item.items())
        else:
            parts = enumerate(item)
        count += len(item)
        if count > MAX_VALUES:
            message = f"more than {MAX_VALUES} values"
            return Problem(code="too_many_fields", path="", message=message)
        left += [(part, (*place, name)) for name, part in parts if isinstance(part, dict | list)]
    return None


class _Ambiguous(dict[str, Any]):
    """An object of which fields were given more than once; the last one is what it holds."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        times = Counter(name for name, _ in pairs)
        self.repeated = [name for name, count in times.items() if count > 1]


def _fields(value: Any) -> int:
    """How many fields a value has, those of its parts included."""
    count, left = 0, [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            count += len(item)
            left += item.values()
        elif isinstance(item, list):
            left += item
    return count


def _repeated(body: bytes, value: Any) -> list[Problem]:
    """The fields that a document gives more than once: which of them is meant nobody knows."""
    # As many colons as fields: none is given twice, for each has a colon. Those within texts are
    # more, and then it is looked at closely, which takes ten times as long.
    if body.count(b":") == _fields(value):
        return []
    found = False

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        fields = dict(pairs)
        if len(fields) == len(pairs):
            return fields
        found = True
        return _Ambiguous(pairs)

    try:
        value = json.loads(body.decode(), object_pairs_hook=build)
    except (ValueError, RecursionError) as error:  # more particular than what read it before
        return [Problem(code="not_json", path="", message=str(error)[:_MAX_MESSAGE])]
    if not found:
        return []
    problems = [
        Problem(code="field_repeated", path=path_of(place), message="given more than once")
        for place in _places(value, ())
    ]
    return at_most(problems)


def _places(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Where fields are that were given more than once."""
    if isinstance(value, _Ambiguous):
        yield from ((*place, name) for name in value.repeated)
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for name, part in parts:
        if isinstance(part, dict | list):
            yield from _places(part, (*place, name))


def path_of(place: Sequence[str | int]) -> str:
    """Names and indexes as one text, with what is not ASCII replaced: ``lines.0.plan``."""
    return ".".join(_printable(str(part))[:100] for part in place)


def _printable(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text[:100])
