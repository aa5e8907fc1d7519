"""Orders over HTTP, with one API process: one to a request, and many.

The client writes prepared requests to plain sockets and looks for the status line alone: it shares
the machine with what it measures.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import text

from autorenew.local.fleet import PrivateFleet
from benchmarks.orders import UPSTREAM, documents
from producers import history
from producers.api import keys
from producers.api.keys import KeyScope
from schemas.database import connect

CONNECTIONS = 64
WARM_UP = 500
LINES = 500


@dataclass(frozen=True, slots=True)
class Measured:
    """How long it took, and each request, in seconds."""

    seconds: float
    requests: Sequence[float]


def start(fleet: PrivateFleet) -> tuple[int, str]:
    """One API process that is ready; its port and a key."""
    member = fleet.start_api()
    port = fleet.port_of(member)
    engine = connect(fleet.database_url("api"))
    with history.acting(history.Operator("benchmark")), engine.begin() as tx:
        _, key = keys.create(
            tx, "benchmark", [KeyScope.ORDERS_WRITE], upstream=UPSTREAM, per_second=1_000_000
        )
    engine.dispose()
    return port, key


def one_each(port: int, key: str, count: int) -> Measured:
    """An order a request, over :data:`CONNECTIONS` connections that each wait for the answer."""
    asyncio.run(_run(port, _requests(key, "/v1/orders", documents(WARM_UP, 1)), b" 202 "))
    return asyncio.run(_run(port, _requests(key, "/v1/orders", documents(count, 1)), b" 202 "))


def many_each(port: int, key: str, count: int) -> Measured:
    """:data:`LINES` orders a request, over four connections."""
    bodies = documents(count, 1)
    batches = iter(lambda: b"\n".join(islice(bodies, LINES)), b"")
    requests = _requests(key, "/v1/orders:batch", batches, "application/x-ndjson")
    return asyncio.run(_run(port, requests, b" 200 ", connections=4))


def committed(fleet: PrivateFleet) -> int:
    with fleet.owner.connect() as tx:
        return int(tx.execute(text("SELECT count(*) FROM orders")).scalar_one())


def _requests(
    key: str, path: str, bodies: Iterator[bytes], media_type: str = "application/json"
) -> list[bytes]:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: "
    ).encode()
    return [head + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies]


_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


async def _run(
    port: int, requests: list[bytes], expected: bytes, *, connections: int = CONNECTIONS
) -> Measured:
    left = iter(requests)
    took: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        for request in left:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
            took.append(time.perf_counter() - began)
            if expected not in head[:20]:
                raise RuntimeError(f"not accepted: {head[:200]!r}")
        writer.close()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(client())
    return Measured(time.perf_counter() - started, took)
