import smtplib
import threading
from email.message import EmailMessage

import pytest
import urllib3

from simulator.mailbox import Mailbox
from simulator.server import Running


def mail(number: int = 1, *, to: str = "alice@example.com") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "billing@example.org"
    message["To"] = to
    message["Subject"] = f"Échéance {number}"
    message["Message-ID"] = f"<{number}@example.org>"
    message.set_content("Žluťoučký kůň\n.\nthe end\n")
    return message


def send(mailbox: Mailbox, *messages: EmailMessage) -> None:
    with smtplib.SMTP(mailbox.host, mailbox.port, "localhost", timeout=10) as client:
        for message in messages:
            client.send_message(message)


def test_a_mail_is_kept_as_it_was_sent() -> None:
    with Mailbox() as mailbox:
        send(mailbox, mail())
        (kept,) = mailbox.messages
    assert kept["Subject"] == "Échéance 1"
    assert kept["To"] == "alice@example.com"
    assert kept.get_content() == "Žluťoučký kůň\n.\nthe end\n"


def test_a_mail_that_comes_twice_is_counted_twice_under_its_id() -> None:
    with Mailbox() as mailbox:
        send(mailbox, mail(1), mail(2), mail(1))
    assert mailbox.received == 3
    assert mailbox.message_ids == {"<1@example.org>": 2, "<2@example.org>": 1}


def test_only_the_last_mails_are_kept_but_all_are_counted() -> None:
    with Mailbox(keep=2) as mailbox:
        send(mailbox, *(mail(number) for number in range(5)))
    assert [kept["Message-ID"] for kept in mailbox.messages] == [
        "<3@example.org>",
        "<4@example.org>",
    ]
    assert mailbox.received == 5


def test_a_refused_recipient_gets_nothing_and_the_next_does() -> None:
    with Mailbox() as mailbox:
        mailbox.refuse("*@nowhere.example")
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            send(mailbox, mail(to="bob@nowhere.example"))
        assert caught.value.recipients["bob@nowhere.example"][0] == 550
        send(mailbox, mail())
    assert mailbox.received == 1


def test_a_deferred_recipient_is_to_be_tried_again() -> None:
    with Mailbox() as mailbox:
        mailbox.defer("bob@*")
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            send(mailbox, mail(to="bob@example.com"))
        assert caught.value.recipients["bob@example.com"][0] == 451
    assert mailbox.received == 0


def test_many_may_send_at_once() -> None:
    with Mailbox() as mailbox:
        senders = [
            threading.Thread(target=send, args=(mailbox, *(mail(10 * i + j) for j in range(10))))
            for i in range(8)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(30)
        assert mailbox.received == len(mailbox.message_ids) == len(mailbox.messages) == 80


def test_mailbox_closes_its_connections_when_it_stops() -> None:
    mailbox = Mailbox()
    mailbox.start()
    with smtplib.SMTP(mailbox.host, mailbox.port, "localhost", timeout=10) as client:
        client.noop()
        mailbox.stop()
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
            client.noop()
    with pytest.raises(ConnectionRefusedError):
        smtplib.SMTP(mailbox.host, mailbox.port, "localhost", timeout=10)
    mailbox.stop()  # once more does nothing


def test_restarted_mailbox_keeps_its_address_and_its_mails() -> None:
    with Mailbox() as mailbox:
        url = mailbox.url
        send(mailbox, mail(1))
    with mailbox:
        assert mailbox.url == url
        send(mailbox, mail(2))
    assert mailbox.received == 2


def test_mailbox_is_started_once() -> None:
    with Mailbox() as mailbox, pytest.raises(RuntimeError, match="already"):
        mailbox.start()


def test_mailbox_prints_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Mailbox() as mailbox, smtplib.SMTP(mailbox.host, mailbox.port, "localhost") as client:
        client.docmd("NONSENSE")
        client.docmd("MAIL", "nonsense")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_simulator_shows_the_mails_of_its_mailbox_newest_first() -> None:
    with Mailbox() as mailbox, Running(mailbox=mailbox) as running:
        send(mailbox, mail(1), mail(2))
        answer = urllib3.request("GET", running.url + "/mails")

    said = answer.json()
    assert (answer.status, said["received"]) == (200, 2)
    assert [one["message_id"] for one in said["mails"]] == ["<2@example.org>", "<1@example.org>"]
    assert said["mails"][1] == {
        "from": "billing@example.org", "to": "alice@example.com", "subject": "Échéance 1",
        "date": "", "message_id": "<1@example.org>", "text": "Žluťoučký kůň\n.\nthe end\n",
    }  # fmt: skip


def test_simulator_without_a_mailbox_has_no_mails(simulator: Running) -> None:
    answer = urllib3.request("GET", simulator.url + "/mails")
    assert (answer.status, answer.json()) == (404, {"code": "no_mailbox"})
