"""Orders that come in within milliseconds of each other are taken in one transaction.

They wait in a line for two threads, which take what has come meanwhile: while transactions are
under way, the next batch forms. Nobody waits for others to come. Each gets its own answer, after
the commit.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from producers import history
from producers.api.keys import Key
from producers.history import Operator
from producers.intake import Answer, Intake
from producers.intake.documents import Document
from schemas.database import is_circumstance

MOST = 200
"""Orders of one transaction."""
LINE_MOST = 2000
"""Requests that may wait; more are told to come again."""


class Full(Exception):
    """Too many wait already."""


@dataclass(slots=True)
class _Waiting:
    key: Key
    intake: Intake
    documents: Sequence[Document]
    trace: str | None
    done: "asyncio.Future[list[Answer]]"
    loop: asyncio.AbstractEventLoop


class Taking:
    """The line and its threads.

    Args:
        threads: transactions that are under way at once. With two, one is worked on by the database
            while the other is read here.
    """

    def __init__(self, *, threads: int = 2) -> None:
        self._line: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"taking-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def take(
        self, key: Key, intake: Intake, documents: Sequence[Document], trace: str | None = None
    ) -> list[Answer]:
        """Take documents of a key's upstream; answers come after the commit.

        Args:
            trace: the W3C trace context that came with them.

        Raises:
            Full: too many wait.
            SQLAlchemyError: they were not taken, or it is unknown: send them again.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(key, intake, documents, trace, loop.create_future(), loop)
        with self._changed:
            if len(self._line) >= LINE_MOST or self._stopping:
                raise Full
            self._line.append(waiting)
            self._changed.notify()
        return await waiting.done

    def stop(self) -> None:
        """Take what waits, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while batch := self._next():
            self._take(batch[0].key, batch)

    def _next(self) -> list[_Waiting]:
        """What waits of one key, in the order it came; empty: it is over."""
        with self._changed:
            while not self._line:
                if self._stopping:
                    return []
                self._changed.wait()
            first = self._line[0]
            batch: list[_Waiting] = []
            rest: deque[_Waiting] = deque()
            count = 0
            for waiting in self._line:
                fits = waiting.key.id == first.key.id and waiting.intake is first.intake
                if fits and (not batch or count + len(waiting.documents) <= MOST):
                    batch.append(waiting)
                    count += len(waiting.documents)
                else:
                    rest.append(waiting)
            self._line = rest
            return batch

    def _take(self, key: Key, batch: list[_Waiting]) -> None:
        upstream = key.upstream
        assert upstream is not None
        documents = [document for waiting in batch for document in waiting.documents]
        traces = [waiting.trace for waiting in batch for _ in waiting.documents]
        try:
            with history.acting(Operator(actor(key))):
                answers = batch[0].intake.place(upstream, "api", documents, traces)
        except BaseException as error:
            if len(batch) > 1 and isinstance(error, Exception) and not is_circumstance(error):
                # One of them may be why: each by itself, so that none fails for another's sake.
                for waiting in batch:
                    self._take(key, [waiting])
                return
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        told = []
        for waiting in batch:
            end = start + len(waiting.documents)
            told.append((waiting.done, answers[start:end]))
            start = end
        batch[0].loop.call_soon_threadsafe(_tell_all, told)


def _tell_all(told: "list[tuple[asyncio.Future[list[Answer]], list[Answer]]]") -> None:
    for future, answers in told:
        if not future.done():  # its client may be gone
            future.set_result(answers)


def _fail(batch: Sequence[_Waiting], error: BaseException) -> None:
    def tell() -> None:
        for waiting in batch:
            if not waiting.done.done():
                waiting.done.set_exception(error)

    batch[0].loop.call_soon_threadsafe(tell)


def actor(key: Key) -> str:
    """Who is told in the history of what a key has done."""
    return f"key {key.name}"
