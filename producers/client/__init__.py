"""A client for upstream systems, over HTTP or AMQP; see :class:`Client`."""

from producers.client import errors, models
from producers.client.asynchronous import AsyncClient
from producers.client.calls import Done, Placed
from producers.client.errors import ClientError, NotDone, Problem
from producers.client.sync import Client

__all__ = [
    "AsyncClient", "Client", "ClientError", "Done", "NotDone", "Placed", "Problem", "errors",
    "models",
]  # fmt: skip
