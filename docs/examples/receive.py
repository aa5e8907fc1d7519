"""Receives events over HTTPS: checks signatures, takes each event once, in the order it happened.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_... python receive.py 8443 cert.pem key.pem

Without a certificate it speaks HTTP, to stand behind a proxy that ends TLS.
"""

import os
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

MOST_BYTES = 1_000_000
# While a secret is replaced, put both here, separated by a blank.
VERIFIERS: list[Webhook] = []
# In a real receiver: a table, written in the transaction that acts on the event.
seen: set[str] = set()
last: dict[str, int] = {}


def verified(body: bytes, headers: dict[str, str]) -> Any:
    """The event.

    Raises:
        WebhookVerificationError: it is not from who knows the secret, or it is old.
    """
    for verifier in VERIFIERS[:-1]:
        try:
            return verifier.verify(body, headers)
        except WebhookVerificationError:
            continue
    return VERIFIERS[-1].verify(body, headers)


def take(event: Any) -> None:
    """Act on an event, once."""
    if event["id"] in seen:
        return
    seen.add(event["id"])
    sequence = int(event["sequence"])
    if sequence <= last.get(event["subject"], 0):
        note = " (late: what happened after it is known)"
    else:
        last[event["subject"]], note = sequence, ""
    print(event["type"], event["subject"], sequence, note, flush=True)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if length > MOST_BYTES:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        try:
            event = verified(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError:
            return self.answer(401)
        take(event)
        return self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    port, *certificate = sys.argv[1:]
    VERIFIERS.extend(Webhook(secret) for secret in os.environ["WEBHOOK_SECRET"].split())
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
