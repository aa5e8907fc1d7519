"""Waiting for orders to end: one look at the database for all who wait."""

import asyncio
import logging
import uuid

from sqlalchemy import Engine, text
from starlette.concurrency import run_in_threadpool

from producers.views.orders import ENDED
from schemas.errors import first_line

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
LONGEST_SECONDS = 30
MOST = 5000
"""Requests of a process that may wait at once; more are answered at once."""

_ENDED = text("SELECT id FROM orders WHERE id = ANY(:ids) AND state = ANY(:ended)")


class Waiters:
    """Those who wait; of one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[uuid.UUID, set[asyncio.Future[None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def until_ended(self, order: uuid.UUID, seconds: float) -> None:
        """Return when an order has ended, or after so many seconds, or when the process stops."""
        if seconds <= 0 or self._stopping or sum(map(len, self._waiting.values())) >= MOST:
            return
        self._loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(order, set()).add(future)
        if self._task is None:
            self._task = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass
        finally:
            waiting = self._waiting.get(order, set())
            waiting.discard(future)
            if not waiting:
                self._waiting.pop(order, None)

    def release(self) -> None:
        """Answer all who wait, and let nobody wait from now on; from any thread."""
        self._stopping = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_all)

    def _end_all(self) -> None:
        for order in list(self._waiting):
            self._end(order)

    async def _look(self) -> None:
        """Look until nobody waits any more."""
        while self._waiting:
            try:
                ids = list(self._waiting)
                for order in await run_in_threadpool(self._ended, ids):
                    self._end(order)
            except Exception as error:  # they go on waiting; the last answer says what is known
                log.warning("cannot look after orders: %s", first_line(error))
                await asyncio.sleep(1.0)
            await asyncio.sleep(LOOK_SECONDS)
        self._task = None

    def _ended(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        with self._engine.begin() as tx:
            return list(tx.execute(_ENDED, {"ids": ids, "ended": sorted(ENDED)}).scalars())

    def _end(self, order: uuid.UUID) -> None:
        for future in self._waiting.pop(order, set()):
            if not future.done():
                future.set_result(None)
