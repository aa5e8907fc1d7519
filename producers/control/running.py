"""Make tasks ready: what has failed, what backs off, what waits for its time, what got lost."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from producers import history, ledger
from producers.control import failed
from producers.control.selection import State, Task, TaskId
from producers.history import Event


@dataclass(slots=True)
class Outcome:
    """What became of tasks that were to run.

    Attributes:
        ready: ready now.
        sent_again: had been handed to the broker; their messages are sent again.
        left: had nothing to wait for, or changed meanwhile; with their state as it was found.
        held: of those that are ready, whose lane is paused.
    """

    ready: list[TaskId] = field(default_factory=list)
    sent_again: list[TaskId] = field(default_factory=list)
    left: list[Task] = field(default_factory=list)
    held: list[Task] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ready) + len(self.sent_again)


def run(tx: Connection, tasks: Iterable[Task]) -> Outcome:
    """Make tasks ready.

    A failed one begins again with its first attempt, as with :func:`failed.retry`; one that backs
    off keeps its attempts. A batch that was dispatched is sent again as a whole: a message only
    names it, and what arrives twice is done once. What is ready, or worked on, stays as it is.

    Args:
        tasks: as they were selected; what has changed since is left alone.
    """
    tasks = list(tasks)
    outcome = Outcome()
    outcome.ready += failed.retry(tx, (t for t in tasks if t.state is State.FAILED))
    waiting = [t for t in tasks if t.state in (State.WAITING, State.BACKING_OFF)]
    hurried = [
        TaskId(name, subject)
        for name in sorted({task.name for task in waiting})
        for subject in ledger.run_now(tx, name, [t.subject for t in waiting if t.name == name])
    ]
    outcome.ready += hurried
    dispatched = [t for t in tasks if t.state is State.DISPATCHED and t.batch is not None]
    sent = set(ledger.send_again(tx, {t.batch for t in dispatched if t.batch}))
    outcome.sent_again += [t.id for t in dispatched if t.batch in sent]
    done = {*outcome.ready, *outcome.sent_again}
    outcome.left = [t for t in tasks if t.id not in done]
    outcome.held = [t for t in tasks if t.id in done and t.is_lane_paused]
    history.record(tx, (_event(task, "task.hurried") for task in hurried))
    history.record(tx, (_event(task, "task.sent_again") for task in outcome.sent_again))
    return outcome


def _event(task: Any, name: str) -> Event:
    return Event(task.subject, name, {"task": task.name})
