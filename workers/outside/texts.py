"""Texts of a far side, as they are kept and shown: printable, and short."""

import dataclasses
from typing import Any, ClassVar, Protocol, TypeVar

# Of an answer: the code by which failures are grouped, and what is said to a person.
MOST_CODE = 100
MOST_WORDS = 500


def cleaned(text: str, most: int = MOST_WORDS) -> str:
    """A text without what neither a person nor PostgreSQL can take.

    Args:
        most: characters that are kept.
    """
    return printable(text)[:most]


def printable(text: str) -> str:
    """A text of any length in which a NUL or an escape sequence does no harm."""
    return "".join(filter(str.isprintable, text))


class SaysWhy(Protocol):
    """An answer of a gateway or a driver: a dataclass with a code and words."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def state(self) -> str: ...

    @property
    def reason(self) -> str | None: ...

    @property
    def words(self) -> str | None: ...


T = TypeVar("T", bound=SaysWhy)


def bounded(answer: T) -> T:
    """An answer whose code and words can be kept, of whatever gateway or driver it is."""
    reason = cleaned(answer.reason, MOST_CODE) or None if answer.reason else answer.reason
    words = cleaned(answer.words) or None if answer.words else answer.words
    if (reason, words) == (answer.reason, answer.words):
        return answer
    return dataclasses.replace(answer, reason=reason, words=words)
