import asyncio
import os
import shutil
import smtplib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword
from prometheus_client import REGISTRY

from autorenew.local.ports import free_port
from schemas.errors import ConfigurationError
from simulator.mailbox import Mailbox
from workers.reminders import smtp
from workers.reminders.smtp import (
    InstantMailer,
    MailAnswer,
    MailState,
    SmtpMailer,
    ThreadedMailer,
)

SENT = MailAnswer(MailState.SENT)
USER, PASSWORD = "bill@ing", "p:a/s?s%w#rd"
LOGIN = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}"


def mail(to: str = "alice@example.com", text: str = "Bonjour\n", number: int = 1) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Billing <billing@example.org>"
    message["To"] = to
    message["Subject"] = "Échéance"
    message["Message-ID"] = f"<{number}@example.org>"
    message.set_content(text)
    return message


@contextmanager
def mailer(url: str, seconds: float = 10) -> Iterator[SmtpMailer]:
    made = SmtpMailer(url, seconds=seconds)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    # Not one of the ephemeral ports, which another process may have when it starts again.
    with Mailbox(port=free_port()) as running:
        yield running


class TestSending:
    def test_mail_arrives_as_it_was_composed(self, mailbox: Mailbox) -> None:
        text = ".\n..\nŽluťoučký kůň\n.the end\nFrom here\n" + "x" * 2000 + "\n"
        with mailer(mailbox.url) as sending:
            assert sending.send(mail(text=text)) == SENT
        (arrived,) = mailbox.messages
        assert arrived["From"] == "Billing <billing@example.org>"
        assert arrived["Subject"] == "Échéance"
        assert arrived.get_content() == text

    def test_a_mail_without_a_last_line_end_is_not_joined_to_its_end(
        self, mailbox: Mailbox
    ) -> None:
        message = mail()
        message.set_payload("the end")
        with mailer(mailbox.url, seconds=2) as sending:
            assert sending.send(message) == SENT

    def test_a_mailer_on_threads_sends_many_at_once(self, mailbox: Mailbox) -> None:
        async def send() -> list[MailAnswer]:
            sending = ThreadedMailer(SmtpMailer(mailbox.url, seconds=5), at_once=4)
            assert (sending.immediate, sending.at_once) == (False, 4)
            answers = await asyncio.gather(
                *(sending.perform(mail(f"{number}@example.com")) for number in range(20))
            )
            await sending.close()
            return answers

        assert asyncio.run(send()) == [SENT] * 20
        assert len(mailbox.messages) == 20

    def test_only_the_recipient_in_to_gets_it(self, mailbox: Mailbox) -> None:
        mailbox.refuse("bob@*")
        message = mail()
        message["Cc"] = "bob@example.com"
        with mailer(mailbox.url) as sending:
            assert sending.send(message) == SENT

    def test_an_address_of_any_alphabet_is_reached(self, mailbox: Mailbox) -> None:
        with mailer(mailbox.url) as sending:
            assert sending.send(mail("jiří@example.com")) == SENT
            assert sending.send(mail()) == SENT
        assert mailbox.messages[0]["To"] == "jiří@example.com"

    def test_address_the_server_cannot_handle_is_refused(self) -> None:
        with Mailbox(enable_SMTPUTF8=False) as mailbox, mailer(mailbox.url) as sending:
            answer = sending.send(mail("jiří@example.com"))
            assert answer == MailAnswer(MailState.REFUSED, "address_unsupported")
            assert sending.send(mail()) == SENT

    def test_a_sending_is_counted_by_how_it_ended(self, mailbox: Mailbox) -> None:
        def count(outcome: str) -> float:
            labels = {"target": "smtp", "operation": "send", "outcome": outcome}
            return REGISTRY.get_sample_value("autorenew_calls_total", labels) or 0

        def measured() -> float:
            labels = {"target": "smtp", "operation": "send"}
            return REGISTRY.get_sample_value("autorenew_call_seconds_count", labels) or 0

        before = count("sent"), count("refused"), measured()
        mailbox.refuse("bob@*")
        with mailer(mailbox.url) as sending:
            sending.send(mail())
            sending.send(mail("bob@example.com"))
        assert (count("sent"), count("refused"), measured()) == (
            before[0] + 1,
            before[1] + 1,
            before[2] + 2,
        )

    def test_a_mailer_for_benchmarks_says_it_was_sent(self) -> None:
        assert InstantMailer().immediate
        assert asyncio.run(InstantMailer().perform(mail())) == SENT


class TestRefusals:
    def test_a_refused_recipient_among_good_ones_harms_only_itself(self, mailbox: Mailbox) -> None:
        mailbox.refuse("bob@*")
        with mailer(mailbox.url) as sending:
            answers = [sending.send(mail(f"{who}@example.com")) for who in ("alice", "bob", "eve")]
        assert answers == [
            SENT,
            MailAnswer(MailState.REFUSED, "recipient_refused", "550 5.1.1 no such mailbox"),
            SENT,
        ]
        assert [one["To"] for one in mailbox.messages] == ["alice@example.com", "eve@example.com"]
        assert mailbox.connections == 1

    def test_deferred_recipient_is_retried_later(self, mailbox: Mailbox) -> None:
        mailbox.defer("bob@*")
        with mailer(mailbox.url) as sending:
            answer = sending.send(mail("bob@example.com"))
            assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "greylisted")
            assert sending.send(mail()) == SENT
        assert mailbox.connections == 1

    def test_a_mail_that_is_too_big_is_refused_before_it_is_sent(self) -> None:
        with Mailbox(data_size_limit=1000) as mailbox, mailer(mailbox.url) as sending:
            answer = sending.send(mail(text="x" * 5000))
            assert (answer.state, answer.reason) == (MailState.REFUSED, "sender_refused")
            assert sending.send(mail()) == SENT

    @pytest.mark.parametrize(
        ("step", "reply", "state", "reason"),
        [
            ("MAIL", "550 no", MailState.REFUSED, "sender_refused"),
            ("MAIL", "450 not now", MailState.UNAVAILABLE, "try_later"),
            ("MAIL", "530 5.7.0 log in first", MailState.UNAVAILABLE, "login_required"),
            ("MAIL", "999 what", MailState.UNAVAILABLE, "connection_lost"),
            ("RCPT", "553 no", MailState.REFUSED, "recipient_refused"),
            ("RCPT", "450 not now", MailState.UNAVAILABLE, "greylisted"),
            ("RCPT", "452 full", MailState.UNAVAILABLE, "try_later"),
            ("RCPT", "421 closing", MailState.UNAVAILABLE, "try_later"),
            ("DATA", "554 no", MailState.REFUSED, "message_refused"),
            ("DATA", "451 not now", MailState.UNAVAILABLE, "try_later"),
            (".", "554 spam", MailState.REFUSED, "message_refused"),
            (".", "452 full", MailState.UNAVAILABLE, "try_later"),
            (".", "nonsense", MailState.UNKNOWN, "lost_after_data"),
        ],
    )
    def test_refusal_is_read_by_its_code_and_its_step(
        self, step: str, reply: str, state: MailState, reason: str
    ) -> None:
        with Scripted({step: reply}) as server, mailer(server.url) as sending:
            answer = sending.send(mail())
            assert (answer.state, answer.reason) == (state, reason)
            # And another mail can be sent.
            server.replies.clear()
            assert sending.send(mail()) == SENT

    def test_answer_of_several_lines_becomes_one(self) -> None:
        reply = "550-5.7.1 not\r\n550 5.7.1 \x1b[31mwanted\x07"
        with Scripted({"RCPT": reply}) as server, mailer(server.url) as sending:
            assert sending.send(mail()).detail == "550 5.7.1 not 5.7.1 [31mwanted"


class TestFaults:
    def test_unreachable_server_means_nothing_was_sent(self) -> None:
        with mailer(f"smtp://127.0.0.1:{free_port()}") as sending:
            answer = sending.send(mail())
        assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "cannot_connect")
        assert "refused" in str(answer.detail)

    def test_unknown_host_name_means_nothing_was_sent(self) -> None:
        with mailer("smtp://mail.invalid:25", seconds=2) as sending:
            answer = sending.send(mail())
        assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "cannot_connect")

    @pytest.mark.parametrize("reply", ["554 no service here", "421 busy", "nonsense", None])
    def test_wrong_greeting_means_nothing_was_sent(self, reply: str | None) -> None:
        with Scripted({"greeting": reply}) as server, mailer(server.url) as sending:
            answer = sending.send(mail())
            assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "cannot_connect")

    @pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
    def test_connection_lost_before_the_mail_began_means_not_sent(self, step: str) -> None:
        with Scripted({step: None}) as server, mailer(server.url) as sending:
            answer = sending.send(mail())
            assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "connection_lost")
            server.replies.clear()
            assert sending.send(mail()) == SENT

    def test_connection_lost_after_the_mail_began_means_it_may_have_been_sent(self) -> None:
        with Scripted({".": None}) as server, mailer(server.url) as sending:
            answer = sending.send(mail())
            assert (answer.state, answer.reason) == (MailState.UNKNOWN, "lost_after_data")
            server.replies.clear()
            assert sending.send(mail()) == SENT

    @pytest.mark.parametrize(
        ("step", "state"),
        [
            ("greeting", MailState.UNAVAILABLE),
            ("EHLO", MailState.UNAVAILABLE),
            ("RCPT", MailState.UNAVAILABLE),
            (".", MailState.UNKNOWN),
        ],
    )
    @pytest.mark.parametrize("how", ["silent", "trickle", "endless"])
    def test_slow_server_is_given_up(self, step: str, state: MailState, how: str) -> None:
        with Scripted({step: how}) as server, mailer(server.url, seconds=0.2) as sending:
            assert sending.send(mail()).state == state

    def test_an_answer_without_end_is_not_kept_in_memory(self) -> None:
        # Long before its time is over.
        with Scripted({"RCPT": "endless"}) as server, mailer(server.url, seconds=30) as sending:
            answer = sending.send(mail())
            assert "does not end" in str(answer.detail)

    def test_next_mail_is_sent_when_the_server_is_back(self) -> None:
        with Mailbox(port=free_port()) as mailbox, mailer(mailbox.url) as sending:
            assert sending.send(mail()) == SENT
            mailbox.stop()
            assert sending.send(mail()).reason == "cannot_connect"
            mailbox.start()
            assert sending.send(mail()) == SENT


class TestConnections:
    def test_connection_is_reused(self, mailbox: Mailbox) -> None:
        with mailer(mailbox.url) as sending:
            assert [sending.send(mail()) for _ in range(5)] == [SENT] * 5
        assert mailbox.connections == 1

    def test_closed_connection_is_replaced_without_an_error(self, mailbox: Mailbox) -> None:
        with mailer(mailbox.url) as sending:
            assert sending.send(mail()) == SENT
            mailbox.stop()
            mailbox.start()
            assert sending.send(mail()) == SENT
        assert mailbox.connections == 2

    def test_connection_that_answers_421_is_replaced_without_an_error(self) -> None:
        with Scripted({"RSET": "421 too long idle"}) as server, mailer(server.url) as sending:
            assert sending.send(mail()) == SENT
            assert sending.send(mail()) == SENT
            assert server.connections == 2

    def test_connection_is_replaced_after_a_hundred_mails(self, mailbox: Mailbox) -> None:
        with mailer(mailbox.url) as sending:
            for _ in range(101):
                assert sending.send(mail()) == SENT
        assert mailbox.connections == 2

    def test_connection_idle_for_too_long_is_replaced(
        self, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with mailer(mailbox.url) as sending:
            sending.send(mail())
            monkeypatch.setattr(smtp, "IDLE_SECONDS", -1.0)
            sending.send(mail())
        assert mailbox.connections == 2

    def test_threads_never_share_a_connection(self, mailbox: Mailbox) -> None:
        answers: list[MailAnswer] = []
        with mailer(mailbox.url) as sending:

            def work(first: int) -> None:
                answers.extend(sending.send(mail(number=first + i)) for i in range(20))

            threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert answers == [SENT] * 160
        assert set(mailbox.message_ids.values()) == {1}
        assert len(mailbox.message_ids) == 160
        assert mailbox.connections <= 8


class TestTls:
    def test_starttls_protects_the_login(self, certificates: "Certificates") -> None:
        with (
            certificates.mailbox(starttls=True) as mailbox,
            mailer(certificates.url("smtp+starttls", mailbox)) as sending,
        ):
            assert [sending.send(mail()) for _ in range(3)] == [SENT] * 3
            assert mailbox.connections == 1

    def test_implicit_tls_protects_the_login(self, certificates: "Certificates") -> None:
        with (
            certificates.mailbox(starttls=False) as mailbox,
            mailer(certificates.url("smtps", mailbox)) as sending,
        ):
            assert [sending.send(mail()) for _ in range(3)] == [SENT] * 3
            assert mailbox.connections == 1

    @pytest.mark.parametrize("starttls", [True, False])
    def test_a_wrong_password_is_a_failed_login(
        self, certificates: "Certificates", starttls: bool
    ) -> None:
        scheme = "smtp+starttls" if starttls else "smtps"
        with certificates.mailbox(starttls=starttls) as mailbox:
            url = certificates.url(scheme, mailbox).replace(LOGIN, "someone:wrong")
            with mailer(url) as sending:
                answer = sending.send(mail())
        assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "login_failed")
        assert str(answer.detail).startswith("535 ")
        assert "wrong" not in str(answer.detail)
        assert mailbox.received == 0

    @pytest.mark.parametrize("starttls", [True, False])
    def test_untrusted_certificate_ends_the_session_before_the_login(
        self, certificates: "Certificates", starttls: bool
    ) -> None:
        scheme = "smtp+starttls" if starttls else "smtps"
        with certificates.mailbox(starttls=starttls) as mailbox:
            url = certificates.url(scheme, mailbox).partition("?")[0]
            with mailer(url) as sending:
                answer = sending.send(mail())
        assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "tls_failed")
        assert "certificate" in str(answer.detail).lower()

    def test_a_certificate_of_another_name_is_refused(self, certificates: "Certificates") -> None:
        with certificates.mailbox(starttls=False) as mailbox:
            url = certificates.url("smtps", mailbox).replace("127.0.0.1", "localhost")
            with mailer(url) as sending:
                assert sending.send(mail()).reason == "tls_failed"

    def test_a_server_without_starttls_gets_no_password(self, mailbox: Mailbox) -> None:
        url = mailbox.url.replace("smtp://", f"smtp+starttls://{LOGIN}@")
        with mailer(url) as sending:
            answer = sending.send(mail())
        assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "tls_failed")
        assert mailbox.received == 0

    def test_server_that_refuses_starttls_gets_nothing(self) -> None:
        replies: dict[str, str | None] = {
            "EHLO": "250-x\r\n250-AUTH PLAIN\r\n250 STARTTLS",
            "STARTTLS": "454 not available",
        }
        url = f"smtp+starttls://{LOGIN}@127.0.0.1"
        with Scripted(replies) as server, mailer(f"{url}:{server.port}") as sending:
            answer = sending.send(mail())
            assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "tls_failed")
            assert answer.detail == "454 not available"
            assert not any(line.startswith(("AUTH", "MAIL")) for line in server.lines)

    def test_input_injected_before_starttls_is_discarded(
        self, certificates: "Certificates"
    ) -> None:
        # Given a stranger on the line who adds an answer to the one that starts TLS.
        replies: dict[str, str | None] = {
            "EHLO": "250-x\r\n250 STARTTLS",
            "STARTTLS": "220 go\r\n250 AUTH PLAIN",
        }
        url = f"smtp+starttls://{LOGIN}@127.0.0.1"
        with Scripted(replies) as server, mailer(f"{url}:{server.port}") as sending:
            assert sending.send(mail()).reason == "tls_failed"
            assert not any("AUTH" in line for line in server.lines)

    def test_server_without_tls_is_refused_as_smtps(self, mailbox: Mailbox) -> None:
        with mailer(mailbox.url.replace("smtp:", "smtps:"), seconds=2) as sending:
            answer = sending.send(mail())
        assert answer.state == MailState.UNAVAILABLE

    def test_mail_is_retried_later_when_the_server_wants_a_login_we_lack(
        self, certificates: "Certificates"
    ) -> None:
        with certificates.mailbox(starttls=True) as mailbox:
            url = certificates.url("smtp+starttls", mailbox).replace(f"{LOGIN}@", "")
            with mailer(url) as sending:
                answer = sending.send(mail())
        assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "login_required")

    def test_a_server_that_offers_no_login_is_a_failed_login(self, mailbox: Mailbox) -> None:
        with mailer(mailbox.url.replace("//", f"//{LOGIN}@")) as sending:
            answer = sending.send(mail())
        assert (answer.state, answer.reason) == (MailState.UNAVAILABLE, "login_failed")


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("", "not one such as"),
            ("mail.example.com", "not one such as"),
            ("http://example.com", "not one such as"),
            ("smtp://", "not one such as"),
            ("smtp://example.com/path", "not one such as"),
            ("smtp://example.com:99999", "cannot be read"),
            ("smtp://user:s3cr/et@example.com", "cannot be read"),
            ("smtp://example.com?cafile", "cannot be read"),
            ("smtp://example.com?starttls=1", "one option, cafile"),
            ("smtp://example.com?cafile=x", "cafile needs"),
            ("smtps://example.com?cafile=/nowhere.pem", "No such file"),
            ("smtps://user@example.com", "only"),
            ("smtps://user:s3cr%C3%A9t@example.com", "ASCII"),
            ("smtp://user:s3cret@example.com", "in the clear"),
            ("smtp://user:s3cret@192.0.2.1", "in the clear"),
            ("smtp://user:s3cret@localhost.example.com", "in the clear"),
        ],
    )
    def test_wrong_url_is_refused_without_repeating_its_password(
        self, url: str, words: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=words) as caught:
            SmtpMailer(url, seconds=1)
        assert "s3cr" not in str(caught.value)

    def test_file_without_a_certificate_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("nothing")
        with pytest.raises(ConfigurationError, match=r"cafile .* certificate"):
            SmtpMailer(f"smtps://example.com?cafile={tmp_path / 'ca.pem'}", seconds=1)

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
    def test_password_may_be_sent_unencrypted_to_this_machine(self, host: str) -> None:
        SmtpMailer(f"smtp://{LOGIN}@{host}", seconds=1)


class Certificates:
    """Certificates for 127.0.0.1, and mailboxes that show them."""

    def __init__(self, folder: Path) -> None:
        self.cafile = folder / "certificate.pem"
        key = folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=mailbox of tests",
             "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", str(key), "-out", str(self.cafile)],
            check=True,
            capture_output=True,
            timeout=30,
        )  # fmt: skip
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(self.cafile, key)

    def mailbox(self, *, starttls: bool) -> Mailbox:
        login: dict[str, Any] = {"authenticator": self._authenticate}
        if starttls:
            return Mailbox(
                tls_context=self._context, require_starttls=True, auth_required=True, **login
            )
        # aiosmtpd does not see that such a connection is protected.
        return Mailbox(tls=self._context, auth_require_tls=False, **login)

    def url(self, scheme: str, mailbox: Mailbox) -> str:
        return f"{scheme}://{LOGIN}@127.0.0.1:{mailbox.port}?cafile={self.cafile}"

    @staticmethod
    def _authenticate(*arguments: Any) -> AuthResult:
        given = arguments[-1]
        assert isinstance(given, LoginPassword)
        right = LoginPassword(USER.encode(), PASSWORD.encode())
        return AuthResult(success=given == right, handled=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs the openssl command")
        pytest.skip("needs the openssl command")
    return Certificates(tmp_path_factory.mktemp("certificates"))


USUAL = {"greeting": "220 hello", "DATA": "354 go on", "EHLO": "250 hello"}


class Scripted:
    """A server that answers as a test says, by step; ``None`` hangs up.

    The steps are ``greeting``, the commands, and ``.`` for the end of a mail. ``silent`` says
    nothing more, ``trickle`` a letter now and then, ``endless`` lines without end.
    """

    def __init__(self, replies: dict[str, str | None]) -> None:
        self.replies = replies
        self.connections = 0
        self.lines: list[str] = []
        self._over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"smtp://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> "Scripted":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # Wake up who accepts.
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            if self._over.is_set():
                connection.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                going_on = self._answer(connection, "greeting")
                within_mail = False
                while going_on and (line := lines.readline()):
                    text = line.decode("latin-1").rstrip("\r\n")
                    self.lines.append(text)
                    if within_mail and text != ".":
                        continue
                    step = text.partition(" ")[0].upper()
                    within_mail = step == "DATA" and self.replies.get("DATA", "354") == "354"
                    going_on = step != "QUIT" and self._answer(connection, step)
            except OSError:
                pass  # the client went first

    def _answer(self, connection: socket.socket, step: str) -> bool:
        reply = self.replies.get(step, USUAL.get(step, "250 ok"))
        ways: dict[str | None, Callable[[], object]] = {
            "silent": lambda: self._over.wait(10),
            "trickle": lambda: self._repeat(connection, b"2", 0.02),
            "endless": lambda: self._repeat(connection, b"250-and\r\n" * 500, 0),
        }
        if reply is None:
            return False
        if reply in ways:
            ways[reply]()
            return False
        connection.sendall(f"{reply}\r\n".encode())
        return not reply.startswith("421")

    def _repeat(self, connection: socket.socket, what: bytes, pause: float) -> None:
        while not self._over.wait(pause):
            connection.sendall(what)


def test_scripted_server_speaks_smtp_to_other_clients() -> None:
    with Scripted({}) as server, smtplib.SMTP("127.0.0.1", server.port, "x", timeout=5) as client:
        client.send_message(mail())
    assert "." in server.lines
