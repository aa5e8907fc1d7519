"""Which addresses a webhook may be sent to: those of the Internet, and networks that are named.

Upstream chooses the URL, so it must not lead to what only our own network may reach (server-side
request forgery): OWASP's cheat sheet asks to check the address that is really connected to.
"""

import asyncio
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# Beside what Python's is_global leaves out: protocol assignments (Oracle's metadata among them),
# Azure's metadata, 6to4 relays. Of IPv6 only 2000::/3 was ever given out (RFC 4291).
_INNER = tuple(map(ip_network, ("192.0.0.0/24", "168.63.129.16/32", "192.88.99.0/24", "2001::/23")))
_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Names that hang keep a thread each; calls for other names find another.
_THREADS = 32


class ForbiddenAddress(OSError):
    """An address that webhooks may not be sent to."""

    def __init__(self, address: object) -> None:
        super().__init__(
            f"{address} may not be reached: neither is it HTTPS to the Internet,"
            " nor is it in AUTORENEW_WEBHOOK_ALLOWED_NETWORKS"
        )


class Addresses:
    """
    Args:
        allowed: inner networks that may be reached.
        inner_only: nothing else may be: for requests without TLS.
    """

    def __init__(self, allowed: Iterable[Network], *, inner_only: bool = False) -> None:
        self._allowed = tuple(allowed)
        self._inner_only = inner_only

    def may_reach(self, text: str) -> bool:
        """Whether an address, as a resolver writes it, may be connected to."""
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        embedded = [address, *_within(address)]
        if any(one in network for one in embedded[-1:] for network in self._allowed):
            return True
        return not self._inner_only and all(map(_is_of_the_internet, embedded))


def _within(address: Address) -> list[Address]:
    """The IPv4 address that a packet to an IPv6 address ends at."""
    if isinstance(address, IPv4Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        found += address.teredo
    if address in _NAT64 or int(address) >> 32 == 0:  # the second: IPv4-compatible, deprecated
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


def _is_of_the_internet(address: Address) -> bool:
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address in _NAT64):
        return True  # what it holds is looked at by itself
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _INNER)
        and (isinstance(address, IPv4Address) or address in _UNICAST)
    )


class CheckedResolver(AbstractResolver):
    """Gives only addresses that may be reached. What it gives is what is connected to: nobody
    resolves the name again in between."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        if not found:
            raise OSError(None, f"{host} has no address")
        reachable = [one for one in found if self._addresses.may_reach(one["host"])]
        if not reachable:
            raise ForbiddenAddress(found[0]["host"])
        return reachable

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
    return [
        ResolveResult(
            hostname=host, host=str(place[0]), port=int(place[1]), family=kind, proto=proto,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, proto, _, place in found
        if kind in (socket.AF_INET, socket.AF_INET6)
    ]  # fmt: skip


def checked_socket(addresses: Addresses) -> Any:
    """Makes the socket of each connection: the last place where its address is looked at."""

    def make(info: Any) -> socket.socket:
        family, kind, proto, _, place = info
        if not addresses.may_reach(str(place[0])):
            raise ForbiddenAddress(place[0])
        return socket.socket(family=family, type=kind, proto=proto)

    return make
