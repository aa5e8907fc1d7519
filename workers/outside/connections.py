"""Connections to far sides: one that said something while nothing was asked is not used again.

A far side, or a proxy before it, that answers a request twice leaves its second answer on an idle
connection, where the next request would take it for its own. aiohttp and Go's ``net/http`` hand out
such a connection (nuclei #7671); urllib3 looks first, as is done here.
"""

from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection


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
                return connection
            connection.close()
            if is_new:
                raise aiohttp.ClientConnectionError("an answer to nothing that was asked")
