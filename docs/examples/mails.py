"""A mail server that delivers nothing: it prints the text of every mail it is given.

.venv/bin/python docs/examples/mails.py 8025
"""

import signal
import sys
import threading
from email import message_from_bytes, policy
from typing import Any

from aiosmtpd.controller import Controller


class Printer:
    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        content = envelope.content.replace(b"\r\n", b"\n")  # CRLF is how mails travel
        mail = message_from_bytes(content, policy=policy.default)
        body = mail.get_body(("plain",))
        print(f"To: {mail['To']}\nSubject: {mail['Subject']}\n", flush=True)
        print(body.get_content() if body is not None else "", flush=True)
        return "250 OK"


def main(port: int) -> None:
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    controller = Controller(Printer(), hostname="127.0.0.1", port=port)
    controller.start()
    print(f"smtp://127.0.0.1:{port}", flush=True)
    stopping.wait()
    controller.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8025)
