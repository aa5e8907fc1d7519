"""Signed links: a click is a command, and nobody but us can write one."""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeSerializer

from schemas.errors import AutorenewError, ConfigurationError

SHORTEST_SECRET = 16


class LinkInvalid(AutorenewError):
    """A link was changed, cut short, or signed with another secret."""

    code = "link_invalid"


class Links:
    """Makes links of commands and commands of links; safe to share between threads.

    What a link holds is signed, not hidden: whoever has it can read it.

    Args:
        base_url: where the links lead, e.g. ``https://my.example.com``.
        secret: what they are signed with, at least 16 characters; a new one ends all links.

    Raises:
        ConfigurationError: the secret is too short, or the base is no http URL.
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
        """The link that stands for a command, which holds what JSON can hold."""
        token = self._serializer.dumps(dict(command))
        return self._base + (token if isinstance(token, str) else token.decode())

    def open(self, url_or_token: str) -> dict[str, Any]:
        """The command a link stands for.

        Raises:
            LinkInvalid: it is not one of ours.
        """
        token = url_or_token.strip().rpartition("/")[2]  # a token has none
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
