"""Which gateways and drivers a database belongs with: written down at first use, checked later.

A second fleet on the same database, configured with a test gateway or another infrastructure, would
take money and build services at the wrong place.
"""

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
    without one, the provider and the region that its options name.

    >>> identity_of({"kind": "http", "url": "https://key@pay.example/v1?token=x"})
    'http https://pay.example/v1'
    """
    kind = str(options.get("kind", DEFAULT_KIND))
    url = options.get("url")
    if not isinstance(url, str):
        named = (options.get("provider"), options.get("region"))
        return " ".join([kind, *(name for name in named if isinstance(name, str))])
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    return f"{kind} {parts.scheme}://{host}{parts.path.rstrip('/')}"


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
                f" `autorenew far-side change {kind} {name} URL`"
            )


def _plain(options: Secret[dict[str, Any]]) -> dict[str, Any]:
    return options.get_secret_value()
