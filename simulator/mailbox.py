"""The mail server: accepts every mail, unless told to refuse it, and keeps the newest."""

import asyncio
import fnmatch
import logging
import socket
import ssl
import threading
import weakref
from collections import Counter, deque
from email import policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser, BytesParser
from functools import cached_property
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

_MOST_IDS = 1_000_000


class _Kept:
    """A mail as it was received; parsed when it is first looked at."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @cached_property
    def message(self) -> EmailMessage:
        # SMTP ends lines by CRLF; a parsed message has LF, as in a mailbox on disk.
        content = self._content.replace(b"\r\n", b"\n")
        return BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(content)


def shown(mail: EmailMessage) -> dict[str, str]:
    """A mail as it is read by a person: its headers, and its text."""
    body = mail.get_body(("plain", "html"))
    headers = {name: str(mail.get(name, "")) for name in ("From", "To", "Subject", "Date")}
    content = body.get_content() if body is not None else ""
    return {
        **{name.lower(): value for name, value in headers.items()},
        "message_id": str(mail.get("Message-ID", "")).strip(),
        "text": content if isinstance(content, str) else "",
    }


class Mailbox:
    """An SMTP server in a thread.

    Args:
        port: 0 for any free one, which a restart keeps.
        keep: how many of the newest mails are kept.
        tls: speak TLS from the first byte.
        options: for ``aiosmtpd.smtp.SMTP``, e.g. ``tls_context`` to offer STARTTLS.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        keep: int = 1000,
        *,
        tls: ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        self.host = host
        self.port = port
        self.message_ids: Counter[str] = Counter()
        """Message-ID -> how often it was received; the newest million of them."""
        self.received = 0
        self.connections = 0
        self._tls = tls
        self._options = {"hostname": "localhost", "enable_SMTPUTF8": True, **options}
        self._lock = threading.Lock()
        self._kept: deque[_Kept] = deque(maxlen=keep)
        self._refused: list[str] = []
        self._deferred: list[str] = []
        self._open: weakref.WeakSet[SMTP] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return f"smtp://{self.host}:{self.port}"

    @property
    def messages(self) -> list[EmailMessage]:
        """The mails that are kept, oldest first."""
        with self._lock:
            kept = list(self._kept)
        return [one.message for one in kept]

    def refuse(self, pattern: str) -> None:
        """Answer recipients that match, such as ``*@example.com``, that they do not exist."""
        self._refused.append(pattern)

    def defer(self, pattern: str) -> None:
        """Answer recipients that match, such as ``*@example.com``, to try again later."""
        self._deferred.append(pattern)

    def start(self) -> None:
        if self._thread is not None:
            raise RuntimeError("the mailbox was started already")
        # aiosmtpd logs every client that disconnects to standard error.
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        listening = socket.create_server((self.host, self.port))
        self.port = listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop, listening, ready), name="mailbox", daemon=True
        )
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the mailbox did not start")

    def stop(self) -> None:
        """Stop at once and close all connections. The mails are kept."""
        thread, loop, self._thread = self._thread, self._loop, None
        if thread is None or loop is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

    def __enter__(self) -> "Mailbox":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(
        self, loop: asyncio.AbstractEventLoop, listening: socket.socket, ready: threading.Event
    ) -> None:
        hooks = _Hooks(self)

        def connection() -> SMTP:
            protocol = SMTP(hooks, loop=loop, **self._options)
            self.connections += 1
            self._open.add(protocol)
            return protocol

        server = loop.run_until_complete(
            loop.create_server(connection, sock=listening, ssl=self._tls)
        )
        ready.set()
        try:
            loop.run_forever()
        finally:
            server.close()
            loop.run_until_complete(self._hang_up())
            loop.close()

    async def _hang_up(self) -> None:
        for protocol in list(self._open):
            if isinstance(protocol.transport, asyncio.WriteTransport):
                protocol.transport.abort()
        clients = asyncio.all_tasks() - {asyncio.current_task()}
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next iteration of the loop

    def _answer(self, address: str) -> str:
        if any(fnmatch.fnmatch(address, pattern) for pattern in self._refused):
            return "550 5.1.1 no such mailbox"
        if any(fnmatch.fnmatch(address, pattern) for pattern in self._deferred):
            return "451 4.7.1 greylisted, try again later"
        return "250 2.1.5 ok"

    def _take(self, content: bytes) -> None:
        headers = BytesHeaderParser(policy=policy.compat32).parsebytes(content)
        message_id = str(headers.get("Message-ID", "")).strip()
        with self._lock:
            self._kept.append(_Kept(content))
            self.message_ids[message_id] += 1
            if len(self.message_ids) > _MOST_IDS:
                del self.message_ids[next(iter(self.message_ids))]
            self.received += 1


class _Hooks:
    """The handler aiosmtpd calls. A class of its own: aiosmtpd looks at every attribute of its
    handler at every connection."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_RCPT(  # noqa: N802 - named by aiosmtpd
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        answer = self._mailbox._answer(address)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(  # noqa: N802 - named by aiosmtpd
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content
        self._mailbox._take(content.encode() if isinstance(content, str) else content or b"")
        return "250 2.0.0 taken"
