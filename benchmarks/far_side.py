"""A gateway and an infrastructure that take their time, and do nothing else: for benchmarks.

One process, one event loop, the least HTTP that a client can be spoken to with, so that it is never
what a benchmark measures. It keeps nothing: every charge succeeds, every operation is done.
"""

import argparse
import asyncio
import json
import signal
from collections.abc import Collection

_STATES = {"create": "active", "resume": "active", "extend": "active", "suspend": "suspended",
           "terminate": "absent"}  # fmt: skip


class FarSide(asyncio.Protocol):
    """One connection. Requests are answered in their order, each after its delay.

    Args:
        charge_seconds: what the gateway takes for a call.
        operate_seconds: what the infrastructure takes for a call.
        hangs: drivers that never answer.
    """

    def __init__(
        self, charge_seconds: float, operate_seconds: float, hangs: Collection[str] = ()
    ) -> None:
        self._hangs = hangs
        self._charge_seconds = charge_seconds
        self._operate_seconds = operate_seconds
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            head, separator, rest = self._received.partition(b"\r\n\r\n")
            if not separator:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self._received = rest[length:]
            self._answer(head.split(b" ", 2)[1].decode(), rest[:length])

    def _answer(self, path: str, body: bytes) -> None:
        asked = json.loads(body) if body else {}
        if path.startswith("/gateway"):
            delay = self._charge_seconds
            said = {
                "key": asked["key"],
                "state": "succeeded",
                "reference": f"ch-{asked['key'][:8]}",
                "amount": asked["amount"],
                "currency": asked["currency"],
            }
        else:
            delay = self._operate_seconds
            _, _, driver, _, service_id, *kinds = path.split("/")
            if driver in self._hangs:
                return
            kind = kinds[0]
            said = {
                "resource_id": f"{driver}-{service_id[:8]}",
                "state": _STATES[kind],
                "generation": asked["generation"],
                "paid_until": asked["paid_until"],
            }
        content = json.dumps(said).encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
        asyncio.get_running_loop().call_later(delay, self._send, answer)

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def serve(
    port: int, charge_seconds: float, operate_seconds: float, hangs: Collection[str]
) -> None:
    """Serve on the loopback interface until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(
        lambda: FarSide(charge_seconds, operate_seconds, hangs), "127.0.0.1", port, backlog=4096
    )
    async with server:
        await ended.wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("port", type=int)
    arguments.add_argument("--charge-seconds", type=float, default=0.3)
    arguments.add_argument("--operate-seconds", type=float, default=0.5)
    arguments.add_argument("--hangs", nargs="*", default=[], metavar="DRIVER")
    given = arguments.parse_args()
    asyncio.run(serve(given.port, given.charge_seconds, given.operate_seconds, given.hangs))
