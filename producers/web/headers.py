"""Headers that every answer has: what a browser may do with it."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing is loaded or run but what a page names, from its own origin; nobody frames it.
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""For pages without scripts."""
SCRIPTED_PAGE_POLICY = PAGE_POLICY + "; script-src 'self'; connect-src 'self'"
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""For answers that are no pages."""


class SecurityHeaders:
    """Adds them to every answer that does not set them itself.

    Args:
        policy: the ``Content-Security-Policy``.
        more: further headers, or other values.
    """

    def __init__(
        self, app: ASGIApp, *, policy: str = DATA_POLICY, more: Mapping[str, str] | None = None
    ) -> None:
        self._app = app
        headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "geolocation=(), camera=(), microphone=()",
            "cache-control": "no-store",
            **{name.lower(): value for name, value in (more or {}).items()},
        }
        self._headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                missing = [header for header in self._headers if header[0] not in given]
                message = {**message, "headers": [*message["headers"], *missing]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
