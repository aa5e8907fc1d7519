"""What puts work on the queues: the ledger, the relay and the doors orders come in by.

For upstream systems: ``from producers import Client``. It is imported when it is asked for, and
brings neither the database nor the web server.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producers.client import AsyncClient, Client, ClientError

__all__ = ["AsyncClient", "Client", "ClientError"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from producers import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
