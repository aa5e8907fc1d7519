"""The port to a mail server, and SMTP behind it."""

import asyncio
import logging
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from monitoring import metrics
from schemas import logs
from schemas.errors import ConfigurationError
from schemas.urls import is_internal
from workers.outside.health import GOOD, Health

log = logging.getLogger(__name__)

MAILS_PER_CONNECTION = 100
IDLE_SECONDS = 60.0


class MailState(StrEnum):
    SENT = "sent"
    REFUSED = "refused"  # a definite no for this mail or its recipient
    UNKNOWN = "unknown"  # it may have been sent
    UNAVAILABLE = "unavailable"  # certainly not sent; another time it may be


@dataclass(frozen=True, slots=True)
class MailAnswer:
    """How sending ended.

    Attributes:
        reason: a short stable code, for grouping.
        detail: the server's own words, on one line.
    """

    state: MailState
    reason: str | None = None
    detail: str | None = None

    @property
    def is_undeliverable(self) -> bool:
        """Whether it was refused for its recipient: not for us, and not for what it says."""
        return self.state is MailState.REFUSED and self.reason in _OF_THE_RECIPIENT


def code_of(answer: MailAnswer) -> str | None:
    """The server's reply code, such as ``550``, of an answer that has one."""
    code = (answer.detail or "")[:3]
    return code if code.isdecimal() and code.isascii() and len(code) == 3 else None


def health_of(answer: MailAnswer) -> Health | None:
    """Whether a mail server works: whatever it refuses, it does."""
    if answer.state not in (MailState.UNKNOWN, MailState.UNAVAILABLE):
        return GOOD
    if answer.reason == GREYLISTED:
        return None  # this sender and this recipient, for the first time
    words = filter(None, (answer.reason or answer.state, answer.detail))
    return Health(False, ": ".join(words))


GREYLISTED = "greylisted"
_OF_THE_RECIPIENT = ("recipient_refused", "address_unsupported", "address_invalid")


class Mailer(Protocol):
    """See :class:`workers.outside.attempts.Port`. A mail server cannot be asked what became of a
    mail: one that may have been sent is sent again, under the same Message-ID."""

    immediate: bool
    at_once: int | None
    """Mails under way; None: any number."""

    async def perform(self, operation: EmailMessage) -> MailAnswer: ...

    async def close(self) -> None: ...


class InstantMailer:
    """Sends nothing and keeps nothing: for benchmarks."""

    immediate = True
    at_once: int | None = None

    async def perform(self, operation: EmailMessage) -> MailAnswer:
        return MailAnswer(MailState.SENT)

    async def close(self) -> None:
        pass


class ThreadedMailer:
    """A mailer over SMTP, on threads of its own: smtplib waits.

    Args:
        at_once: mails under way; the caller has more than that wait. Mail servers limit
            connections far below what they limit mails to.
    """

    immediate = False

    def __init__(self, mailer: "SmtpMailer", *, at_once: int = 16) -> None:
        self.at_once: int | None = at_once
        self._mailer = mailer
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="smtp")

    async def perform(self, operation: EmailMessage) -> MailAnswer:
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        answer = await loop.run_in_executor(self._threads, self._mailer.send, operation)
        words = " ".join(filter(None, (answer.reason, answer.detail)))
        took = time.monotonic() - started
        logs.note(log, f"mail server: {answer.state} {words}".rstrip() + f", {took:.3f} s")
        return answer

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._mailer.close()


class SmtpMailer:
    """Hands mails to a mail server; safe to share between threads.

    A connection is used by one thread at a time and kept for the next mail: for at most 100
    mails, and 60 s without one.

    Args:
        url: ``smtp://host:25``, ``smtp+starttls://user:password@host:587`` (never without TLS)
            or ``smtps://user:password@host:465`` (TLS from the first byte). User and password are
            percent-encoded. ``?cafile=PATH`` names the certificates to trust instead of the
            system's.
        seconds: deadline of each step: to connect, a command, the mail itself.
        internal: hosts to which a password may travel in the clear.

    Raises:
        ConfigurationError: the URL is wrong, or would send a password in the clear.
    """

    def __init__(self, url: str, *, seconds: float, internal: Collection[str] = ()) -> None:
        self._server = _Server.parse(url, internal)
        self._seconds = seconds
        self._own_name: str | None = None
        self._lock = threading.Lock()
        self._idle: list[_Session] = []  # the last used is used next: the others grow old

    def send(self, message: EmailMessage) -> MailAnswer:
        """Send to the address in To, from the address in From."""
        started = time.monotonic()
        answer = self._send(message)
        metrics.call_seconds.labels("smtp", "send").observe(time.monotonic() - started)
        metrics.calls.labels("smtp", "send", answer.state).inc()
        return answer

    def close(self) -> None:
        """Say goodbye where a connection is open; the next mail opens another."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            _leave(session)

    def _send(self, message: EmailMessage) -> MailAnswer:
        try:
            session = self._connection()
        except _Failed as failed:
            return failed.answer
        try:
            answer = _deliver(session, message)
        except BaseException:
            session.close()
            raise
        self._keep(session)
        return answer

    def _connection(self) -> "_Session":
        """One that works: the last used if it still answers, or a new one."""
        while True:
            with self._lock:
                session = self._idle.pop() if self._idle else None
            if session is None:
                return self._connect()
            if session.is_worn():
                _leave(session)
                continue
            try:
                # RFC 5321, 4.1.1.5: forgets the mail before, and shows that somebody is there.
                if session.rset()[0] == 250:
                    return session
            except (OSError, smtplib.SMTPException):
                pass
            session.close()

    def _keep(self, session: "_Session") -> None:
        if session.sock is None:
            return
        session.mails += 1
        session.used_at = time.monotonic()
        with self._lock:
            self._idle.append(session)
            worn = [one for one in self._idle if one.is_worn()]
            self._idle = [one for one in self._idle if one not in worn]
        for one in worn:
            _leave(one)

    def _connect(self) -> "_Session":
        server = self._server
        try:
            if server.implicit_tls:
                session: _Session = _TlsSession(
                    server.host,
                    server.port,
                    local_hostname=self._own_name,
                    timeout=self._seconds,
                    context=server.tls,
                )
            else:
                session = _Session(
                    server.host, server.port, local_hostname=self._own_name, timeout=self._seconds
                )
        except ssl.SSLError as error:
            raise _Failed(_unavailable("tls_failed", error)) from None
        except (OSError, smtplib.SMTPException) as error:
            raise _Failed(_unavailable("cannot_connect", error)) from None
        # To find it out may ask a name server; once is enough.
        self._own_name = session.local_hostname
        step = "cannot_connect"
        try:
            session.ehlo_or_helo_if_needed()
            if server.tls and not server.implicit_tls:
                step = "tls_failed"
                session.starttls(context=server.tls)
                session.ehlo()
            if server.user:
                step = "login_failed"
                session.login(server.user, server.password)
        except (OSError, ValueError, smtplib.SMTPException) as error:
            session.close()
            raise _Failed(_unavailable(step, error)) from None
        return session


@dataclass(frozen=True, slots=True)
class _Server:
    host: str
    port: int
    tls: ssl.SSLContext | None
    implicit_tls: bool
    user: str
    password: str

    @classmethod
    def parse(cls, url: str, internal: Collection[str]) -> "_Server":
        """Read a URL. No message repeats a part of it that may be a password."""
        try:
            parts = urlsplit(url)
            port = parts.port
            options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError:
            raise ConfigurationError(
                "the URL of the mail server cannot be read "
                "(in a password / : @ ? # are written as %2F …)"
            ) from None
        usual = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
        if parts.scheme not in usual or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigurationError(
                "the URL of the mail server is not one such as smtp://host:25, "
                "smtp+starttls://user:password@host:587 or smtps://user:password@host:465"
            )
        if parts.fragment or options.keys() - {"cafile"}:
            raise ConfigurationError("the URL of the mail server takes one option, cafile")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if bool(user) != bool(password):
            raise ConfigurationError("the URL of the mail server has a user or a password only")
        if not (user + password).isascii():
            raise ConfigurationError("user and password of the mail server must be ASCII")
        if parts.scheme == "smtp":
            if user and not is_internal(parts.hostname, internal):
                raise ConfigurationError(
                    f"the password for {parts.hostname} would travel in the clear: "
                    "use smtp+starttls:// or smtps://"
                )
            if options:
                raise ConfigurationError("cafile needs smtp+starttls:// or smtps://")
        return cls(
            host=parts.hostname,
            port=usual[parts.scheme] if port is None else port,
            tls=None if parts.scheme == "smtp" else _trusting(options.get("cafile")),
            implicit_tls=parts.scheme == "smtps",
            user=user,
            password=password,
        )


def _trusting(cafile: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except ssl.SSLError:
        raise ConfigurationError(f"cafile {cafile} holds no certificate") from None
    except OSError as error:
        raise ConfigurationError(f"cafile {cafile}: {error.strerror}") from None


class _Session(smtplib.SMTP):
    """A connection on which no answer takes longer than its timeout.

    smtplib's own limit is for each packet: a server that trickles would hold a thread for hours.
    """

    mails = 0
    used_at = 0.0

    def is_worn(self) -> bool:
        idle = time.monotonic() - self.used_at
        return self.mails >= MAILS_PER_CONNECTION or idle > IDLE_SECONDS

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            self.file = _Lines(self.sock)
        self.file.begin(self.timeout)
        try:
            return super().getreply()
        finally:
            if self.sock is not None:
                self.sock.settimeout(self.timeout)


class _TlsSession(_Session, smtplib.SMTP_SSL):
    pass


class _Lines:
    """What smtplib reads answers from. It makes a new one when TLS begins: nothing that was sent
    in the clear is read as if it had been protected."""

    _LONGEST = 65_536

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._end = 0.0
        self._left = 0

    def begin(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._left = self._LONGEST

    def readline(self, limit: int) -> bytes:
        while b"\n" not in self._buffer and len(self._buffer) < limit:
            seconds = self._end - time.monotonic()
            if self._connection is None or seconds <= 0:
                raise TimeoutError("no answer in time")
            self._connection.settimeout(seconds)
            part = self._connection.recv(4096)
            if not part:
                break
            self._buffer += part
        end = self._buffer.find(b"\n") + 1 or len(self._buffer)
        line = bytes(self._buffer[: min(end, limit)])
        del self._buffer[: len(line)]
        self._left -= len(line)
        if self._left < 0:
            raise OSError("an answer that does not end")
        return line

    def close(self) -> None:
        pass


class _Failed(Exception):
    """A step ended the sending."""

    def __init__(self, answer: MailAnswer) -> None:
        super().__init__(answer)
        self.answer = answer


def _deliver(session: _Session, message: EmailMessage) -> MailAnswer:
    """MAIL, RCPT, DATA; whatever happens, the connection is closed or good for another mail."""
    sender = message["From"].addresses[0].addr_spec
    recipient = message["To"].addresses[0].addr_spec
    international = not (sender + recipient).isascii()
    if international and not session.has_extn("smtputf8"):
        # RFC 6531, 3.2: such a recipient cannot be named to this server.
        return MailAnswer(MailState.REFUSED, "address_unsupported")
    content = message.as_bytes(policy=SMTP.clone(cte_type="7bit", utf8=international))
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    options = ["SMTPUTF8", "BODY=8BITMIME"] if international else []
    if session.has_extn("size"):
        options.append(f"size={len(content)}")

    begun = False
    try:
        _expect(session.mail(sender, options), (250,), "sender_refused")
        _expect(session.rcpt(recipient), (250, 251), "recipient_refused")
        _expect(session.docmd("DATA"), (354,), "message_refused")
        begun = True
        # A line with a single dot ends the mail (RFC 5321, 4.5.2).
        session.send(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
        _expect(session.getreply(), (250,), "message_refused")
    except _Failed as failed:
        return failed.answer
    except (OSError, ValueError, smtplib.SMTPException) as error:
        session.close()
        if begun:
            return MailAnswer(MailState.UNKNOWN, "lost_after_data", _words(error))
        return _unavailable("connection_lost", error)
    return MailAnswer(MailState.SENT)


def _expect(reply: tuple[int, bytes], wanted: tuple[int, ...], reason: str) -> None:
    code, words = reply
    if code in wanted:
        return
    detail = _one_line(f"{code} {words.decode(errors='replace')}")
    if not 400 <= code <= 599:
        # Out of step: what its next answer would be to, nobody knows.
        raise smtplib.SMTPServerDisconnected(f"unexpected answer {detail}")
    if code in (530, 538):  # RFC 4954, 6: it wants a login or TLS; no fault of the mail's
        raise _Failed(MailAnswer(MailState.UNAVAILABLE, "login_required", detail))
    if code >= 500:
        raise _Failed(MailAnswer(MailState.REFUSED, reason, detail))
    greylisted = reason == "recipient_refused" and code in (450, 451)
    raise _Failed(
        MailAnswer(MailState.UNAVAILABLE, GREYLISTED if greylisted else "try_later", detail)
    )


def _leave(session: _Session) -> None:
    try:
        session.putcmd("quit")
    except (OSError, smtplib.SMTPException):
        pass  # it went first
    session.close()  # without waiting for an answer: no mail hangs on it


def _unavailable(reason: str, error: Exception) -> MailAnswer:
    return MailAnswer(MailState.UNAVAILABLE, reason, _words(error))


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        words: Any = error.smtp_error
        text = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
        return _one_line(f"{error.smtp_code} {text}")
    return _one_line(str(error) or type(error).__name__)


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:500]
