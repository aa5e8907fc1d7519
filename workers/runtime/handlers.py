"""What a handler is: a step inside the database, or one with the outside world."""

import uuid
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from sqlalchemy import Connection, Engine

from producers.ledger import Claim, Outcome
from workers.outside.health import Health

C = TypeVar("C")  # what is called
A = TypeVar("A")  # what is answered
K = TypeVar("K", contravariant=True)  # what was called


class DatabaseHandler(Protocol):
    """A step inside the database: one transaction holds a whole batch."""

    name: str

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        """Do the step for every subject; raises for a batch that holds a bad one."""
        ...


@runtime_checkable
class OutsideHandler(Protocol[C, A]):
    """A step with the outside world. No transaction is open while it calls."""

    name: str
    immediate: bool
    """Every call answers at once in this process: a batch is called inline, without waiting."""
    at_once: int | None
    """How many calls of a lane it can make at once; None: as many as are set. Those beyond it
    wait before their lease is looked at for the last time, not after."""

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, C]], Outcome]:
        """Write the attempts down; returns the calls to make, and what needs none."""
        ...

    async def call(self, call: C) -> A:
        """One call, under its deadline. Faults of the far side are answers, not exceptions."""
        ...

    def record(
        self, tx: Connection, claim: Claim, answers: Sequence[tuple[uuid.UUID, C, A]]
    ) -> Outcome:
        """Write outcomes down as they arrive, with their effects and follow-ups."""
        ...

    def health(self, call: C, answer: A) -> Health | None:
        """What an answer says of its far side; None: nothing, or no call was made."""
        ...

    async def close(self) -> None:
        """Let the connections of its calls go."""
        ...


@runtime_checkable
class Witnessing(Protocol[K]):
    """A step whose effects must not be lost: it remembers what it saw committed, and looks whether
    it is still there. Both use transactions of their own."""

    def look(self, engine: Engine) -> None:
        """Before each claim, and every few seconds while there is none."""
        ...

    def after_record(self, engine: Engine, calls: Sequence[K]) -> None: ...


Handler = DatabaseHandler | OutsideHandler[Any, Any]
