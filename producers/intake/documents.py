"""A document that came in by some door, and the answer to it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schemas.json_bodies import at_most
from schemas.messages import NOT_OURS, CommandDocument, OrderDocument, Problem, parse
from schemas.values import OrderId


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"  # a valid document that cannot be carried out; an order's key is taken
    REJECTED = "rejected"  # not a valid document, or its key belongs to another one


class Refused(Exception):
    """Why a command cannot be done; nothing of it was."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems[0].message)
        self.problems = at_most(problems)


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was received.

    Attributes:
        value: the JSON value; None if it is not JSON.
        content: the order or the command, if its shape is valid.
        problems: why ``content`` is None.
        trace: the W3C trace context it is in, as a header ``traceparent``.
    """

    body: bytes
    value: Any
    content: OrderDocument | CommandDocument | None
    problems: list[Problem]
    trace: str | None = None

    @classmethod
    def read(cls, body: bytes, trace: str | None = None, type_: str | None = None) -> "Document":
        """Parse a body; never raises.

        Args:
            type_: what its message says that it is, such as ``order.v1``.
        """
        return cls(body, *parse(body, type_), trace)

    @property
    def is_ours(self) -> bool:
        """Whether it is of a form that is known here; else nothing is decided about it."""
        return not any(problem.code in NOT_OURS for problem in self.problems)


@dataclass(frozen=True, slots=True)
class Answer:
    """What upstream is told about one document.

    Attributes:
        repeated: nothing was done: the same document was answered this way before, or a command
            asked for what is already so.
    """

    verdict: Verdict
    key: str | None
    order_id: OrderId | None = None
    problems: list[Problem] = field(default_factory=list)
    repeated: bool = False
