"""URLs in settings: what they must be, and where a secret may be sent without encryption.

No message repeats a part of one that may be a password.
"""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_ENCRYPTED_SSLMODES = ("require", "verify-ca", "verify-full")


def split(url: str, *schemes: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        ValueError: it has another scheme, or a port that cannot be.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in schemes:
        raise ValueError(f"must start with {schemes[0]}://")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its message could repeat part of a password
        raise ValueError(
            "not a URL with a port up to 65535 (in a password / : @ ? # are written as %2F …)"
        ) from None
    return parts


def split_with_host(url: str, *schemes: str) -> SplitResult:
    """The same of a URL that must name a host."""
    parts = split(url, *schemes)
    if not parts.hostname:
        raise ValueError("names no host")
    return parts


def check_web(url: str) -> str:
    """A base URL of HTTP, unchanged: paths are appended to it.

    Raises:
        ValueError: it is none.
    """
    split_with_host(url, "https", "http")
    if "?" in url or "#" in url:
        raise ValueError("a base URL has neither ? nor #")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("has characters that a URL cannot have: they are written as %20 …")
    return url


def is_internal(host: str | None, internal: Collection[str]) -> bool:
    """Whether nobody listens on the way: this machine itself, or a host that a setting names."""
    return host is None or host in internal or is_loopback(host)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def in_the_clear(url: str, internal: Collection[str]) -> str | None:
    """The host to which what a process sends with this URL travels unencrypted; None: to none."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "amqp", "smtp") and not is_internal(parts.hostname, internal):
        return parts.hostname
    return None


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """What is said of a database by its URL, in libpq's form: it may name several hosts.

    Attributes:
        hosts: names, addresses, or paths of local sockets; none: this machine's socket.
    """

    hosts: tuple[str, ...]
    password: str | None
    options: dict[str, str]


_DATABASE_SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")
_HOST = re.compile(r"(\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:@]*))(:(?P<port>[0-9]*))?")


def split_database(url: str) -> DatabaseUrl:
    """The parts of ``postgresql://user:password@host:port,host:port/database?option=value``.

    Raises:
        ValueError: it has another scheme, or a host or port that cannot be.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _DATABASE_SCHEMES:
        raise ValueError(f"must start with {_DATABASE_SCHEMES[0]}://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, _, hosts = authority.rpartition("@")
    found = [_HOST.fullmatch(host) for host in hosts.split(",")]
    if (
        "@" in user
        or not all(m is not None and int(m["port"] or 1) in range(1, 65536) for m in found)
        or re.search("%(?![0-9A-Fa-f]{2})|%00", url)
    ):  # no part is repeated: it could be one of a password
        raise ValueError(
            "not a URL with a port up to 65535 (in a password / : @ ? # % are written as %2F …)"
        )
    options = dict(parse_qsl(rest.partition("?")[2], keep_blank_values=True))
    named = [unquote(m["six"] or m["host"] or "") for m in found if m is not None]
    # libpq: `host` and `hostaddr` win over what is before the path.
    said = options.get("hostaddr") or options.get("host") or ",".join(named)
    _, has_password, password = user.partition(":")
    return DatabaseUrl(
        tuple(host for host in said.split(",") if host),
        unquote(password) if has_password else options.get("password"),
        options,
    )


def password_in_the_clear(url: str, internal: Collection[str]) -> str | None:
    """The database host to which the password in this URL may travel unencrypted; None: to none."""
    found = split_database(url)
    if found.password is None or found.options.get("sslmode") in _ENCRYPTED_SSLMODES:
        return None
    for host in found.hosts:
        if not host.startswith(("/", "@")) and not is_internal(host, internal):
            return host
    return None
