"""Signatures of Standard Webhooks 1.0: HMAC-SHA256 over id, time and body, with a shared secret."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable

PREFIX = "whsec_"
# The specification asks for 24 to 64 bytes.
SECRET_BYTES = 32


def new_secret() -> str:
    """A secret for one endpoint, as its receiver is told it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed(id_: str, at: int, body: bytes, keys: Iterable[str]) -> dict[str, str]:
    """The headers of a request.

    Args:
        id_: the same whenever the event is sent again.
        at: seconds since 1970, of this attempt.
        keys: secrets; each signs, so that a receiver may know either while one is replaced.

    Raises:
        ValueError: a secret is not one.
    """
    told = f"{id_}.{at}.".encode() + body
    signatures = (
        base64.b64encode(hmac.new(_key(secret), told, hashlib.sha256).digest()).decode()
        for secret in keys
    )
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("not a secret of a webhook") from None
