"""Who asks, and how often: limits for each address that requests come from."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

Network = IPv4Network | IPv6Network

# Of clients that are remembered; the one that has not asked for longest is forgotten first.
MOST_REMEMBERED = 100_000
# An IPv6 customer has at least such a network (RFC 6177), and may use all of its addresses.
_IPV6_PREFIX = 64


def network(text: str) -> Network:
    """A network, or an address as one of its own.

    Raises:
        ValueError: it is neither.
    """
    return ip_network(text.strip(), strict=False)


def client_of(scope: Scope, trusted: Sequence[Network]) -> str:
    """The address that a request comes from: an IPv6 one as its /64.

    ``X-Forwarded-For`` counts only where a proxy of ours has written it: each appends whom it got
    the request from, so it is read from its end, and the first address that is not one of ours is
    the client's. What stands before that the client may have written itself.

    Args:
        trusted: the networks of our own proxies.
    """
    peer = scope["client"][0] if scope.get("client") else ""
    if not _is_in(peer, trusted):
        return _grouped(peer)
    hops = [
        _without_port(hop.strip())
        for name, value in scope["headers"]
        if name == b"x-forwarded-for"
        for hop in value.decode("latin-1").split(",")
    ]
    client = peer
    for hop in reversed(hops):
        if not _is_address(hop):
            break
        client = hop
        if not _is_in(hop, trusted):
            break
    return _grouped(client)


def _without_port(hop: str) -> str:
    """Some proxies add the port: ``192.0.2.7:5123``, ``[2001:db8::7]:5123``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, port = hop.partition(":")
    return host if colon and ":" not in port else hop


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(text: str, networks: Sequence[Network]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any((mapped or address) in network for network in networks)


def _grouped(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ip_network((int(address), _IPV6_PREFIX), strict=False))
    return str(address)


class Buckets:
    """A token bucket for each client: so many requests a minute, all of them at once if need be.

    For one thread.
    """

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._per_second = per_minute / 60
        self._monotonic = monotonic
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Take one of its requests.

        Returns:
            0.0, or for how many seconds it has to wait: then nothing was taken.
        """
        now = self._monotonic()
        left, at = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - at) * self._per_second)
        may = left >= 1
        self._left[client] = (left - 1 if may else left, now)
        if len(self._left) > MOST_REMEMBERED:
            self._left.popitem(last=False)
        return 0.0 if may else (1 - left) / self._per_second


class AddressLimits:
    """Answers 429 to whoever asks too often; ``/healthz`` and ``/readyz`` always answer.

    Args:
        per_minute: requests of one client.
        trusted: the networks of our own proxies.
        answer: makes the body of a 429 from the scope; returns it with its media type.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        per_minute: int,
        trusted: Sequence[Network] = (),
        answer: Callable[[Scope], tuple[bytes, str]] | None = None,
    ) -> None:
        self._app = app
        self._buckets = Buckets(per_minute)
        self._trusted = trusted
        self._answer = answer or (lambda _scope: (b"too many requests", "text/plain"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ("/healthz", "/readyz"):
            await self._app(scope, receive, send)
            return
        wait = self._buckets.wait(client_of(scope, self._trusted))
        if not wait:
            await self._app(scope, receive, send)
            return
        body, media_type = self._answer(scope)
        headers = [
            (b"content-type", media_type.encode("latin-1")),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(math.ceil(wait)).encode()),
        ]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": body})
