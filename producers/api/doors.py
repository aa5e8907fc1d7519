"""What all routes of a process share: its databases, intake, keys, and who waits."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from monitoring import metrics
from producers import history
from producers.api import answers
from producers.api.buckets import Buckets
from producers.api.keys import Key, KeyRing, KeyScope
from producers.api.narrowing import NarrowedCache
from producers.api.problems import Failed
from producers.api.taking import Taking, actor
from producers.api.waiting import Waiters
from producers.history import Operator
from producers.intake import Intake, rejected
from producers.intake.realms import Realms
from producers.loop import Loop
from producers.views.scope import Scope
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock

TIDY_SECONDS = 30.0


class Doors:
    """
    Args:
        write: as the role ``api``.
        read: as the role ``readonly``; may be a standby.
        buckets: of the keys' limits, shared with other processes; None: of this one alone.
        keep_days: how long rejected documents are kept; 0: for ever.
    """

    def __init__(
        self,
        write: Engine,
        read: Engine,
        clock: Clock,
        realms: Realms,
        buckets: Buckets | None = None,
        *,
        keep_days: int = 0,
    ) -> None:
        self.write = write
        self.read = read
        self.clock = clock
        self.realms = realms
        self._keep_days = keep_days
        self.keys = KeyRing(write, buckets)
        self.waiters = Waiters(read)
        self.taking = Taking()
        self._cache = CatalogueCache()
        self._intakes: dict[object, Intake] = {}
        self._next_tidy = time.monotonic() + TIDY_SECONDS
        self._loop = Loop("api", self._tidy, longest_pause=TIDY_SECONDS)
        self._tidying = threading.Thread(target=self._loop.run, name="api-tidying", daemon=True)
        self._tidying.start()

    def stop(self) -> None:
        """Take what waits to be taken, and end; answers under way are given before."""
        self.waiters.release()
        self._loop.stop()
        self.taking.stop()
        self._tidying.join(10)

    async def key(self, headers: Headers, scope: KeyScope) -> Key:
        """The key of a request. One without the scope is told so however often it asks, and what
        it may ask for stays whole: to come again later would not help.

        Raises:
            Failed: there is none, it may not be used for this, or not so often.
        """
        key = await self.known(headers)
        if scope not in key.scopes:
            raise Failed("scope_missing", f"the key lacks the scope {scope}")
        self.limit(key)
        return key

    async def known(self, headers: Headers) -> Key:
        """The key of a request that is not let in yet.

        Raises:
            Failed: there is none.
        """
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise Failed("key_missing", headers={"WWW-Authenticate": "Bearer"})
        is_known, key = self.keys.held(given)
        if not is_known:
            key = await run_in_threadpool(self.keys.find, given)
        if key is None:
            raise Failed(
                "key_unknown", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}
            )
        return key

    def limit(self, key: Key, cost: int = 1) -> None:
        """
        Raises:
            Failed: the key has asked for too much.
        """
        if seconds := self.keys.wait(key, cost):
            metrics.api_limited.inc()
            raise Failed("too_many_requests", headers={"Retry-After": str(int(seconds) + 1)})

    def scope(self, key: Key) -> Scope:
        """What a key sees."""
        return key.scope(self.realms)

    def intake(self, key: Key) -> Intake:
        """What takes a key's documents: with the catalogue that it sees."""
        narrowing = (key.brands, key.subsidiaries)
        intake = self._intakes.get(narrowing)
        if intake is None:
            cache = self._cache
            if narrowing != (None, None):
                cache = NarrowedCache(cache, *narrowing)
            intake = Intake(self.write, cache, self.clock, self.realms)
            self._intakes[narrowing] = intake
        return intake

    def catalogue(self, tx: Connection) -> Catalogue:
        return self._cache.current(tx)

    @contextmanager
    def acting(self, key: Key, because: str | None = None) -> Iterator[None]:
        """What is done meanwhile is told in the history as the key's."""
        with history.acting(Operator(actor(key), because)):
            yield

    def check_write(self) -> None:
        """Whether orders could be taken."""
        with self.write.begin() as tx:
            self._cache.current(tx)

    def check_read(self) -> None:
        with self.read.begin() as tx:
            tx.execute(text("SELECT 1"))

    def _tidy(self) -> float:
        """Note which keys are used, and forget old answers and rejected documents, once in a while.

        Where nothing comes over AMQP, no intake forgets those."""
        if self.keys.is_to_note():
            self.keys.note()
        if time.monotonic() >= self._next_tidy:
            self._next_tidy = time.monotonic() + TIDY_SECONDS
            more = answers.forget(self.write)
            if self._keep_days:
                with self.write.begin() as tx:
                    more += rejected.forget(tx, self._keep_days)
            if more:
                self._next_tidy = 0.0
        return 1.0
