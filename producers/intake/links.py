"""Signed links in e-mails: each stands for a command, and only we can make one."""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeSerializer

from schemas.errors import AutorenewError, ConfigurationError

SHORTEST_SECRET = 16


class LinkInvalid(AutorenewError):
    """A link was changed or truncated, or is signed with another secret."""

    code = "link_invalid"


class Links:
    """Turns commands into links and back; safe to share between threads.

    The command in a link is signed, not encrypted: anyone who has the link can read it.

    Args:
        base_url: where the links lead, e.g. ``https://my.example.com``.
        secret: signs them, at least 16 characters; a new one invalidates all links.

    Raises:
        ConfigurationError: the secret is too short, or the base is not an HTTP URL.
    """

    def __init__(self, base_url: str, secret: str) -> None:
        if len(secret) < SHORTEST_SECRET:
            raise ConfigurationError(
                f"the secret of links must have at least {SHORTEST_SECRET} characters"
            )
        parts = _split(base_url)
        if parts is None or parts.query or parts.fragment:
            raise ConfigurationError(f"{base_url!r} is not a base URL such as https://example.com")
        self._base = f"{base_url.rstrip('/')}/do/"
        self._serializer = URLSafeSerializer(
            secret,
            salt="autorenew link",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def url(self, command: Mapping[str, Any]) -> str:
        """The link for a command, which must consist of JSON values."""
        token = self._serializer.dumps(dict(command))
        return self._base + (token if isinstance(token, str) else token.decode())

    def open(self, url_or_token: str) -> dict[str, Any]:
        """The command a link stands for.

        Raises:
            LinkInvalid: it was not made with this secret.
        """
        token = url_or_token.strip().rpartition("/")[2]  # a token contains no slash
        try:
            command = self._serializer.loads(token)
        except (BadData, ValueError, RecursionError):
            command = None
        if not isinstance(command, dict):
            raise LinkInvalid("this link is not valid: it was changed or is not complete")
        return command


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None
