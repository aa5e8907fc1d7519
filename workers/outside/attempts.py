"""The one shape of everything that is done outside: charges, refunds, operations, e-mails.

Write the attempt and its key down and commit; call with no transaction open; when an earlier try of
it was never decided, ask about it by its key first; record what is known. ``begin`` and ``record``
of a handler are its own SQL; what is between is here.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar
from uuid import UUID

from producers.ledger import Claim, ClaimedTask, Failure, Outcome, Retry
from schemas import logs
from workers.outside.texts import SaysWhy, bounded

log = logging.getLogger(__name__)

O = TypeVar("O", contravariant=True)  # noqa: E741 - what is done
A = TypeVar("A", covariant=True)  # what is answered
T = TypeVar("T")
W = TypeVar("W", bound=SaysWhy)

# Ports have deadlines of their own, of 300 s at most. One of another package that has none, and
# hangs, would hold its task and the room of its lane for ever.
LONGEST_SECONDS = 900.0


class Port(Protocol[O, A]):
    """A far side: one method that performs an operation, one that asks about it.

    Faults of the far side are answers, never exceptions. The same operation may be performed any
    number of times: its key, or its generation, makes it happen once.
    """

    immediate: bool
    """Answers at once in this process, without waiting for anything."""

    async def perform(self, operation: O) -> A: ...

    async def ask(self, operation: O) -> A:
        """What became of it, or what there is now. Changes nothing there."""
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...


async def attempt(
    port: Port[O, W], operation: O, *, in_doubt: bool, is_decided: Callable[[W], bool]
) -> W:
    """Perform an operation; one that may have been performed is asked about first.

    Args:
        in_doubt: it was begun before, and how that ended is not known.
        is_decided: whether an answer to the question leaves nothing to do. "Not found" does not:
            it may precede a late arrival, so it is performed again, under the same key.

    Returns:
        The answer, its code and words cleaned and cut: one that cannot be written down would leave
        what was done without a record.

    Raises:
        TypeError: the port answered something else.
        TimeoutError: it has not answered in :data:`LONGEST_SECONDS`. What it does is in doubt.
    """
    if port.immediate:
        return await _attempt(port, operation, in_doubt, is_decided)
    try:
        async with asyncio.timeout(LONGEST_SECONDS) as deadline:
            return await _attempt(port, operation, in_doubt, is_decided)
    except TimeoutError:
        if not deadline.expired():
            raise
        words = f"{type(port).__name__} has not answered in {LONGEST_SECONDS:g} s"
        raise TimeoutError(words) from None


async def _attempt(
    port: Port[O, W], operation: O, in_doubt: bool, is_decided: Callable[[W], bool]
) -> W:
    if in_doubt:
        found = _noted("asked", port, await port.ask(operation))
        if is_decided(found):
            return found
    return _noted("performed", port, await port.perform(operation))


def _noted(what: str, port: object, answer: W) -> W:
    if not isinstance(getattr(answer, "state", None), StrEnum):
        # Of a package of somebody else: a text instead of a state would mean none of them.
        raise TypeError(f"{type(port).__name__} {what}, and answered no state of its port")
    answer = bounded(answer)
    words = " ".join(filter(None, (answer.reason, answer.words)))
    logs.note(log, f"{what}: {answer.state} {words}".rstrip())
    return answer


class Done:
    """The task is done."""


class Again:
    """Nothing is wrong, and it is not done: look at it once more."""


Meaning = Done | Again | Retry | Failure

DONE = Done()
AGAIN = Again()


def settle(
    claim: Claim,
    answers: Sequence[tuple[UUID, Any, T]],
    meaning: Callable[[ClaimedTask, Any, T], Meaning],
) -> Outcome:
    """How the tasks of a claim end, by what the answers to their calls mean."""
    tasks = {task.subject: task for task in claim.tasks}
    outcome = Outcome()
    for subject, call, answer in answers:
        match meaning(tasks[subject], call, answer):
            case Done():
                outcome.done.append(subject)
            case Again():
                outcome.again.append(subject)
            case decision:
                outcome.add(decision)
    return outcome
