"""Broker URLs: one, or several separated by commas, of which the first that answers is used.

No message repeats a part of one that may be a password.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from schemas.urls import is_internal, split_with_host

_PORTS = {"amqp": 5672, "amqps": 5671}
_FILES = ("cafile", "certfile", "keyfile")
_OPTIONS = (*_FILES, "server_name")
# A password may have a comma in it: only one that is followed by another URL separates.
_SEPARATOR = re.compile(r",\s*(?=amqps?://)")


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where a broker is, as whom, and how it is known to be the right one.

    Attributes:
        tls: encrypted.
        cafile: PEM, whom to trust instead of those the system trusts.
        certfile, keyfile: PEM, our own certificate, and its key if that is in another file.
        server_name: what its certificate is for, if not ``host``.
    """

    host: str
    port: int
    vhost: str
    user: str
    password: str = field(repr=False)
    tls: bool = False
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    server_name: str | None = None

    @property
    def place(self) -> str:
        """Host and port, as messages name it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def in_the_clear(self, internal: Collection[str]) -> bool:
        """Whether what it is sent travels unencrypted."""
        return not self.tls and not is_internal(self.host, internal)


def parse(urls: str) -> tuple[BrokerUrl, ...]:
    """Read a setting with one URL or several.

    Raises:
        ValueError: one cannot be used, or they do not name the same virtual host.
    """
    found = tuple(_parse(url) for url in _SEPARATOR.split(urls.strip()))
    if len({url.vhost for url in found}) > 1:
        raise ValueError("all its URLs must name the same vhost")
    return found


def _parse(url: str) -> BrokerUrl:
    parts = split_with_host(url, "amqp", "amqps")
    tls = parts.scheme == "amqps"
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("has characters that a URL cannot have: they are written as %20 …")
    if parts.fragment or "#" in url:
        raise ValueError("has a #: in a password it is written %23")
    if parts.username is not None and parts.password is None:
        raise ValueError("names a user without a password")
    if "," in parts.path:
        raise ValueError("a , is followed by another URL (in a vhost it is written %2C)")
    if parts.path.count("/") > 1:
        raise ValueError("names a vhost with a /: there it is written %2F")
    return BrokerUrl(
        host=str(parts.hostname),
        port=parts.port or _PORTS[parts.scheme],
        vhost=unquote(parts.path[1:]) or "/",
        # RabbitMQ and its clients take these defaults for a URL without a user.
        user=unquote(parts.username or "guest"),
        password=unquote("guest" if parts.password is None else parts.password),
        tls=tls,
        **_options(parts.query, tls),
    )


def _options(query: str, tls: bool) -> dict[str, str]:
    accepted = ", ".join(_OPTIONS)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"after the ? come options as NAME=VALUE: {accepted}") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError("has an option twice")
    for name, value in options.items():
        if name not in _OPTIONS:
            shown = name if name.isidentifier() else "of that name"
            raise ValueError(f"there is no option {shown}; there are {accepted}")
        if not tls:
            raise ValueError(f"{name} is for amqps:// only")
        if not value:
            raise ValueError(f"{name} is empty")
        if name in _FILES:
            _check_readable(name, value)
    if "keyfile" in options and "certfile" not in options:
        raise ValueError("keyfile needs a certfile")
    return options


def _check_readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"{name} {path}: {error.strerror}") from None
