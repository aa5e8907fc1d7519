"""The port: calls in a bounded number of threads, each under one deadline. Imports no Libcloud."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from monitoring import metrics
from schemas.books import BookUnavailable, ResourceEntry
from schemas.errors import ConfigurationError
from schemas.values import ServiceId
from workers.provisioning.drivers.libcloud.call import Call
from workers.provisioning.drivers.libcloud.faults import Scrubber, answer_of
from workers.provisioning.drivers.libcloud.memory import Memory
from workers.provisioning.drivers.libcloud.settings import LibcloudSettings
from workers.provisioning.drivers.port import DriverAnswer, DriverState, Operation

RESOURCES_PAGE = 1000
# A list that was read for a page serves the pages after it.
LIST_SECONDS = 60.0
# Connections that were not used for longer may have been closed by the other end.
IDLE_SECONDS = 20.0

T = TypeVar("T")


class LibcloudDriver:
    Settings = LibcloudSettings
    immediate = False

    def __init__(self, name: str, settings: LibcloudSettings) -> None:
        self._target = f"driver:{name}"
        self._settings = settings
        self._scrubber = Scrubber(settings.secrets())
        where = f"AUTORENEW_DRIVERS[{name!r}]"
        try:
            from workers.provisioning.drivers.libcloud import connection, families, machines, making
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in ("libcloud", "requests"):
                raise
            raise ConfigurationError(
                f"{where}: the kind libcloud needs Apache Libcloud, which is not installed:"
                " pip install 'autorenew[libcloud]'"
            ) from None
        connection.install()
        self._make = making.maker(where, settings, self._scrubber)
        family = families.family_of(self._make.provider)
        self._machines = machines.Machines(family, settings.plans, Memory(), settings.late)
        self._clients: list[tuple[float, Any]] = []  # not in use: since when
        self._threads: ThreadPoolExecutor | None = None
        self._under_way: dict[ServiceId, Future[Any]] = {}
        self._listed: tuple[float, list[ResourceEntry]] | None = None

    async def perform(self, operation: Operation) -> DriverAnswer:
        return await self._answer(
            operation.kind, lambda client: self._machines.perform(client, operation), operation
        )

    async def ask(self, operation: Operation) -> DriverAnswer:
        return await self._answer("get", lambda client: self._machines.ask(client, operation))

    async def resources(self, after: str | None) -> Sequence[ResourceEntry]:
        now = time.monotonic()
        if after is None or self._listed is None or now - self._listed[0] > LIST_SECONDS:
            found = await self._run("resources", self._machines.resources)
            if isinstance(found, DriverAnswer):
                self._count("resources", found.state)
                raise BookUnavailable(found.reason or found.state)
            self._count("resources", DriverState.DONE)
            self._listed = now, found
        rest = [entry for entry in self._listed[1] if after is None or entry.cursor > after]
        return rest[:RESOURCES_PAGE]

    async def close(self) -> None:
        """Calls that are under way end by themselves, at their deadline."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
        while self._clients:
            self._make.discard(self._clients.pop()[1])
        self._listed = None

    async def _answer(
        self,
        name: str,
        work: Callable[[Any], DriverAnswer],
        changing: Operation | None = None,
    ) -> DriverAnswer:
        answer = await self._run(name, work, changing)
        self._count(name, answer.state)
        return answer

    def _count(self, name: str, outcome: str) -> None:
        metrics.calls.labels(self._target, name, outcome).inc()

    async def _run(
        self, name: str, work: Callable[[Any], T], changing: Operation | None = None
    ) -> T | DriverAnswer:
        """Do it in a thread.

        Args:
            changing: the operation, if it is one: one at a time for each service, so that a call
                that was given up has ended before the next one looks.
        """
        call = Call(self._settings.seconds)
        started = time.monotonic()
        try:
            if changing is not None and not await self._is_free(changing.service_id, call):
                return DriverAnswer(DriverState.UNAVAILABLE, reason="still_under_way")
            future = self._pool().submit(self._work, call, work)
            if changing is not None:
                self._follow(changing.service_id, future)
            return await self._wait(future, call)
        finally:
            metrics.call_seconds.labels(self._target, name).observe(time.monotonic() - started)

    async def _wait(self, future: Future[T | DriverAnswer], call: Call) -> T | DriverAnswer:
        waiting = asyncio.wrap_future(future)
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait({waiting}, timeout=max(call.ends_at - time.monotonic(), 0))
            if waiting.done() and not waiting.cancelled():
                return waiting.result()
        finally:
            if not waiting.done():
                call.cut()
                waiting.cancel()
        if call.began:
            state = DriverState.UNKNOWN if call.touched else DriverState.UNAVAILABLE
            return DriverAnswer(state, reason="no_answer", words="no answer in time")
        return DriverAnswer(DriverState.UNAVAILABLE, reason="no_thread_free")

    async def _is_free(self, service: ServiceId, call: Call) -> bool:
        """Wait until nothing is being done to a service; False: not within the deadline."""
        while (earlier := self._under_way.get(service)) is not None and not earlier.done():
            if (left := call.ends_at - time.monotonic()) <= 0:
                return False
            # Looked at, not cancelled with us: it is somebody else's.
            await asyncio.wait({asyncio.wrap_future(earlier)}, timeout=left)
        return True

    def _follow(self, service: ServiceId, future: Future[Any]) -> None:
        self._under_way[service] = future

        def ended(_: Future[Any]) -> None:
            if self._under_way.get(service) is future:
                self._under_way.pop(service, None)

        future.add_done_callback(ended)

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._settings.threads, self._target)
        return self._threads

    # From here on: in a thread.

    def _work(self, call: Call, work: Callable[[Any], T]) -> T | DriverAnswer:
        with call:
            call.began = True
            client = None
            answered = False
            try:
                client = self._client()
                done = work(client)
                answered = True
                return done
            except Exception as error:
                answered = call.status is not None  # if so, the connection is good
                return answer_of(error, call, self._scrubber)
            finally:
                if client is not None:
                    self._keep(client) if answered else self._make.discard(client)

    def _client(self) -> Any:
        """One for this thread alone: Libcloud's keep the state of their last request."""
        while True:
            try:
                since, client = self._clients.pop()
            except IndexError:
                return self._make()
            if time.monotonic() - since < IDLE_SECONDS:
                return client
            self._make.discard(client)

    def _keep(self, client: Any) -> None:
        if self._threads is None or len(self._clients) >= self._settings.threads:
            self._make.discard(client)
        else:
            self._clients.append((time.monotonic(), client))
