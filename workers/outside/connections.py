"""Connections to far sides: one that said something while nothing was asked is not used again.

A far side, or a proxy before it, that answers a request twice leaves its second answer on an idle
connection, where the next request would take it for its own. aiohttp and Go's ``net/http`` hand out
such a connection (nuclei #7671); urllib3 looks first, as is done here.
"""

from asyncio import Transport
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection

_taken: ContextVar[Transport | None] = ContextVar("taken", default=None)


@contextmanager
def cut_if_it_fails() -> Iterator[None]:
    """Of a request that fails meanwhile the connection ends at once, if it is being closed.

    asyncio closes a connection once all is sent that was written to it: to a far side that reads
    no more, never, and each such call would leave a socket open (aiohttp #1679).
    """
    token = _taken.set(None)
    try:
        yield
    except BaseException:
        transport = _taken.get()
        if transport is not None and transport.is_closing():
            transport.abort()
        raise
    finally:
        _taken.reset(token)


class CleanConnector(aiohttp.TCPConnector):
    """Closes an idle connection on which something has come, and takes the next one.

    What comes after a request has gone out cannot be told from its answer: where a mistake would
    matter, an answer says what it is about.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: WeakSet[Any] = WeakSet()

    async def connect(self, *request: Any, **options: Any) -> Connection:
        """
        Raises:
            ClientConnectionError: a new connection was spoken on before anything was asked.
        """
        while True:
            connection = await super().connect(*request, **options)
            protocol = connection.protocol
            is_new = protocol not in self._used
            self._used.add(protocol)
            if protocol is None or not protocol.should_close:
                _taken.set(connection.transport)
                return connection
            connection.close()
            if is_new:
                raise aiohttp.ClientConnectionError("an answer to nothing that was asked")
