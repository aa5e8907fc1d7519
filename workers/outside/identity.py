"""Which gateways and drivers a database belongs with: written down at first use, checked later.

A second fleet on the same database, configured with a test gateway or another infrastructure, would
take money and build services at the wrong place.
"""

import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import Secret
from sqlalchemy import Connection, text

from schemas.errors import ConfigurationError
from schemas.tables.far_sides import FarSideKind
from workers.outside.registry import DEFAULT_KIND, Options

_WRITE = text("""
    INSERT INTO far_sides (kind, name, identity) VALUES (:kind, :name, :identity)
    ON CONFLICT DO NOTHING
""")
_READ = text("SELECT identity FROM far_sides WHERE kind = :kind AND name = :name")


def identity_of(options: Mapping[str, Any]) -> str:
    """Where a far side is: the kind of its port, and the URL in its options without a secret;
    without one, the provider and the region that its options name, and of a cloud with an address
    of its own that, and the tenant.

    >>> identity_of({"kind": "http", "url": "https://key@pay.example/v1?token=x"})
    'http https://pay.example/v1'
    >>> cloud = {"ex_force_auth_url": "https://cloud.example:5000/v3", "ex_tenant_name": "shop"}
    >>> identity_of({"kind": "libcloud", "provider": "openstack", "options": cloud})
    'libcloud openstack cloud.example:5000/v3 shop'
    """
    kind = str(options.get("kind", DEFAULT_KIND))
    url = options.get("url")
    if not isinstance(url, str):
        named = (options.get("provider"), options.get("region"), *_cloud(options.get("options")))
        return " ".join([kind, *(name for name in named if name and isinstance(name, str))])
    return f"{kind} {urlsplit(url).scheme}://{_host_and_path(url)}"


def _cloud(options: Any) -> tuple[Any, ...]:
    """Which of the clouds of one provider, in the options of Libcloud's class."""
    if not isinstance(options, Mapping):
        return ()
    url = options.get("ex_force_auth_url")
    # Without the scheme, as a place that is not called by its URL is told to ``far-side change``.
    return (_host_and_path(url) if isinstance(url, str) else None, options.get("ex_tenant_name"))


def _host_and_path(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2].lower() + parts.path.rstrip("/")


def _advice(kind: FarSideKind, name: str, identity: str) -> str:
    """The command that tells the fleet that a far side has moved."""
    port_kind, _, place = identity.partition(" ")
    words = ["autorenew", "far-side", "change", kind.value, shlex.quote(name)]
    # A URL is for the reader to fill in, with what this one leaves out.
    words.append("URL" if not place or "://" in place else shlex.quote(place))
    if port_kind != DEFAULT_KIND:
        words += ["--port-kind", shlex.quote(port_kind)]
    return " ".join(words)


def check(tx: Connection, kind: FarSideKind, configured: Options) -> None:
    """Check that this database belongs with the far sides that are configured.

    Args:
        tx: as a role that calls this kind. A far side that is new is written down.

    Raises:
        ConfigurationError: one is elsewhere than the fleet has had it so far.
    """
    for name, options in configured.items():
        identity = identity_of(_plain(options))
        key = {"kind": kind.value, "name": name}
        tx.execute(_WRITE, key | {"identity": identity})
        known = tx.execute(_READ, key).scalar_one()
        if known != identity:
            raise ConfigurationError(
                f"{kind} {name} of this database is {known}, and this process is configured with"
                f" {identity}; if it has moved, tell the fleet with"
                f" `{_advice(kind, name, identity)}`"
            )


def _plain(options: Secret[dict[str, Any]]) -> dict[str, Any]:
    return options.get_secret_value()
