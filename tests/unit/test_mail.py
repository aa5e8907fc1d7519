import re
import time
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, DataError
from schemas.fields import CURRENCY_DIGITS
from schemas.values import Money
from tests.support import sentences
from workers.reminders.mail import (
    HERE,
    LINKS,
    LOCALES,
    Item,
    Mail,
    Situation,
    compose,
    compose_link,
)

SENDER = "billing@example.com"
TEXTS = HERE / "texts"
DAY = date(2026, 12, 4)
AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

PAY = Item(
    Situation.PAY,
    name="Web Hosting",
    detail="example.org",
    last_day=DAY,
    amount=Money(4544, "EUR"),
    periods=1,
    on=None,
    links={"renew": "https://my.example.com/do/abc"},
)
MAIL = Mail(
    id=uuid.UUID("6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42"),
    to="alice@example.net",
    language="en",
    customer="alice-ovh",
    brand="Kimsufi",
    items=[PAY],
    all_services="https://my.example.com",
)


def composed(mail: Mail = MAIL, sender: str = SENDER) -> EmailMessage:
    """A composed mail, parsed again."""
    sent = compose(mail, sender, at=AT).as_bytes()
    return BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(sent)


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def of(*items: Item, language: str = "en") -> Mail:
    return replace(MAIL, items=items, language=language)


class TestHeaders:
    def test_headers_mark_a_mail_as_automatic(self) -> None:
        message = composed()
        assert message["From"] == "Kimsufi <billing@example.com>"
        assert message["To"] == "alice@example.net"
        assert message["Subject"] == "1 service to renew by 4 December 2026"
        assert message["Date"].datetime == AT
        assert message["Message-ID"] == "<6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42@example.com>"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Content-Language"] == "en"

    def test_the_same_mail_composed_again_has_the_same_message_id(self) -> None:
        assert composed()["Message-ID"] == composed()["Message-ID"]

    def test_mail_without_a_given_time_is_dated_now(self) -> None:
        dated = compose(MAIL, SENDER)["Date"].datetime
        assert abs(dated - datetime.now(UTC)) < timedelta(minutes=1)

    def test_a_sender_with_a_name_keeps_it(self) -> None:
        assert composed(sender="Billing <b@example.com>")["From"] == "Billing <b@example.com>"

    def test_a_long_domain_leaves_the_message_id_whole(self) -> None:
        domain = "a-name-of-thirty-characters-or." * 3 + "example.com"
        raw = compose(MAIL, f"b@{domain}").as_bytes()
        assert f"<{MAIL.id}@{domain}>".encode() in raw

    def test_an_international_domain_is_spelt_in_ascii(self) -> None:
        message = composed(replace(MAIL, to="jana@bücher.example"))
        assert message["To"] == "jana@xn--bcher-kva.example"

    @pytest.mark.parametrize(
        "sender",
        ["", "billing", "billing@", "@example.com", "a@x.com, b@x.com", "a@x.com\nTo: b@y"],
    )
    def test_sender_that_is_not_an_address_is_a_wrong_setting(self, sender: str) -> None:
        with pytest.raises(ConfigurationError, match="is not a sender"):
            compose(MAIL, sender)

    @pytest.mark.parametrize(
        "to", ["", "alice", "a b@example.com", "a@x.com, b@x.com", "a@x.com\r\nBcc: b@y.com",
               "a@x..com", "a@" + "x" * 64 + ".com", "Alice <a@x.com>"]
    )  # fmt: skip
    def test_recipient_that_is_not_an_address_is_a_data_error(self, to: str) -> None:
        with pytest.raises(DataError) as caught:
            compose(replace(MAIL, to=to), SENDER)
        assert caught.value.code == "address_invalid"

    def test_mail_without_items_is_refused(self) -> None:
        with pytest.raises(DataError) as caught:
            compose(of(), SENDER)
        assert caught.value.code == "mail_empty"


class TestBody:
    def test_body_is_text_with_an_html_alternative(self) -> None:
        message = composed()
        assert message.get_content_type() == "multipart/alternative"
        kinds = [(p.get_content_type(), p.get_content_charset()) for p in message.iter_parts()]
        assert kinds == [("text/plain", "utf-8"), ("text/html", "utf-8")]

    @pytest.mark.parametrize("kind", ["plain", "html"])
    def test_text_and_html_tell_what_when_how_much_and_where(self, kind: str) -> None:
        body = part(composed(), kind)
        for wanted in ("Web Hosting", "example.org", "4 December 2026", "€45.44",
                       "https://my.example.com/do/abc", "Kimsufi", "alice-ovh"):  # fmt: skip
            assert wanted in body

    def test_an_item_is_shown_like_this(self) -> None:
        assert (
            "\n* Web Hosting (example.org)\n"
            "  Paid for until the end of: 4 December 2026\n"
            "  Amount to pay: €45.44\n"
            "  Renew now\n"
            "  https://my.example.com/do/abc\n"
        ) in part(composed(), "plain")

    def test_item_without_a_detail_has_no_empty_parentheses(self) -> None:
        assert "* Web Hosting\n" in part(composed(of(replace(PAY, detail=""))), "plain")

    def test_what_an_operator_has_suspended_says_that_no_payment_lifts_it(self) -> None:
        suspended = replace(PAY, situation=Situation.SUSPENDED, on=DAY)
        assert "A payment does not lift that" not in part(composed(of(suspended)), "plain")
        body = part(composed(of(replace(suspended, is_held=True))), "plain")
        assert "A payment does not lift that: please contact us." in body

    def test_several_periods_are_announced_before_they_are_paid(self) -> None:
        body = part(composed(of(replace(PAY, periods=2))), "plain")
        assert "This pays for 2 periods, including the time that has already passed." in body
        assert "period" not in part(composed(), "plain")

    def test_items_are_ordered_by_urgency_then_expiry_then_name(self) -> None:
        # Given one item of each situation, in the order of the alphabet, and three to pay.
        items = [
            replace(PAY, situation=situation, name=situation.value)
            for situation in sorted(Situation)
        ]
        later = replace(PAY, name="A later", last_day=DAY + timedelta(1))
        items += [later, replace(PAY, name="b"), replace(PAY, name="a")]
        # When they are all in one mail.
        body = part(composed(of(*items)), "plain")
        # Then
        assert re.findall(r"(?m)^\* (.+?) \(", body) == [
            "suspended", "behind", "declined", "method", "accept", "dearer", "converted", "a", "b",
            "pay",
            "A later", "renews", "stops", "undelivered", "delivered",
        ]  # fmt: skip

    def test_the_subject_names_the_most_urgent_and_counts_the_others(self) -> None:
        suspended = replace(PAY, situation=Situation.SUSPENDED, on=DAY)
        assert composed(of(PAY, PAY, PAY))["Subject"] == "3 services to renew by 4 December 2026"
        assert composed(of(PAY, PAY, suspended))["Subject"] == (
            "1 suspended service will be deleted unless it is paid for by 4 December 2026"
            " (and 2 more)"
        )

    def test_the_subject_of_an_end_names_its_day_not_the_expiry(self) -> None:
        ended = {"last_day": DAY - timedelta(3), "on": DAY}
        stops = composed(of(replace(PAY, situation=Situation.STOPS, **ended)))
        assert stops["Subject"] == "1 service will end on 4 December 2026"
        accept = composed(of(replace(PAY, situation=Situation.ACCEPT, **ended)))
        assert accept["Subject"] == "1 service with a contract to accept by 4 December 2026"

    def test_the_subject_names_the_earliest_day(self) -> None:
        later = replace(PAY, last_day=DAY + timedelta(30))
        assert composed(of(later, PAY))["Subject"] == "2 services to renew by 4 December 2026"

    @pytest.mark.parametrize(
        ("situation", "on", "sentence"),
        [
            (Situation.SUSPENDED, DAY, "Kept until the end of: 4 December 2026"),
            (Situation.SUSPENDED, None, "1 service is suspended"),
            (Situation.DECLINED, DAY, "Next payment attempt: 4 December 2026"),
            (Situation.DECLINED, None, "We will not try this payment again by ourselves."),
            (Situation.METHOD, DAY, "To be paid by: 4 December 2026"),
            (Situation.RENEWS, DAY, "Will be charged on: 4 December 2026"),
            (Situation.DEARER, DAY, "Will be charged on: 4 December 2026"),
            (Situation.CONVERTED, DAY, "Will be charged on: 4 December 2026"),
            (Situation.ACCEPT, None, "Last day: 1 January 2027"),
            (Situation.ACCEPT, DAY, "Last day: 4 December 2026"),
            (Situation.STOPS, None, "Last day: 1 January 2027"),
            (Situation.STOPS, DAY, "Last day: 4 December 2026"),
        ],
    )
    def test_each_situation_says_what_will_happen(
        self, situation: Situation, on: date | None, sentence: str
    ) -> None:
        item = replace(PAY, situation=situation, on=on, last_day=date(2027, 1, 1))
        assert sentence in part(composed(of(item)), "plain")

    def test_only_known_links_are_shown(self) -> None:
        links = {"stop": "https://x.example/s", "other": "https://x.example/o"}
        body = part(composed(of(replace(PAY, links=links))), "html")
        assert re.findall(r'href="([^"]+)"', body) == ["https://x.example/s"]

    def test_the_html_loads_nothing_and_sets_no_colour(self) -> None:
        body = part(composed(), "html")
        assert '<html lang="en">' in body
        assert not re.search(r"<img|<link|<script|<style|@import|url\(|src=|http-equiv", body)
        assert not re.search(r"color:|background|#[0-9a-fA-F]{3,6}\b", body)

    def test_fifty_services_are_named_one_by_one_within_what_mail_programs_show(self) -> None:
        items = [
            replace(
                PAY,
                situation=list(Situation)[i % len(Situation)],
                detail=f"{i}.example.org",
                on=DAY,
                links=dict.fromkeys(LINKS[2:], f"https://my.example.com/do/{'x' * 400}"),
            )
            for i in range(50)
        ]
        message = composed(of(*items))
        assert len(re.findall(r"(?m)^\* ", part(message, "plain"))) == 50
        assert part(message, "html").count("<li ") == 50
        assert len(part(message, "html").encode()) < 102 * 1024

    def test_more_services_are_summed_up_by_plan_and_day_with_one_link_to_all(self) -> None:
        soon = [replace(PAY, detail=f"{i}.example.org") for i in range(4000)]
        later = [replace(item, last_day=DAY + timedelta(1)) for item in soon[:2000]]
        compose(of(PAY), SENDER)  # templates and texts are loaded once
        started = time.thread_time()
        message = composed(of(*soon, *later))
        assert time.thread_time() - started < 2
        assert message["Subject"] == "6000 services to renew by 4 December 2026"
        body = part(message, "plain")
        assert (
            "\n* Web Hosting (4000 services)\n"
            "  Paid for until the end of: 4 December 2026\n"
            "  Amount to pay: €181,760.00\n"
        ) in body
        assert "\n* Web Hosting (2000 services)\n" in body
        assert re.findall("https://.+", body) == ["https://my.example.com"]
        assert part(message, "html").count("href=") == 1

    def test_amounts_of_different_currencies_are_not_summed_up(self) -> None:
        other = replace(PAY, amount=Money(100, "CZK"))
        body = part(composed(of(*[PAY] * 50, other)), "plain")
        assert "Amount to pay: €2,272.00\n" in body
        assert "Amount to pay: CZK" in body

    def test_not_more_lines_are_shown_than_services_that_are_not_summed_up(self) -> None:
        items = [replace(PAY, last_day=DAY + timedelta(i)) for i in range(60)]
        body = part(composed(of(*items)), "plain")
        assert len(re.findall(r"(?m)^\* ", body)) == 50
        assert "And 10 more." in body


class TestLanguages:
    @pytest.mark.parametrize(
        ("language", "subject", "amount"),
        [
            ("en", "2 services to renew by 4 December 2026", "€1,234.56"),
            ("fr", "2 services à renouveler au plus tard le 4 décembre 2026", "1\u202f234,56\xa0€"),
            ("cs", "2 služby k\xa0prodloužení do 4. prosince 2026", "1\xa0234,56\xa0€"),
        ],
    )
    def test_each_language_has_its_words_dates_and_amounts(
        self, language: str, subject: str, amount: str
    ) -> None:
        item = replace(PAY, amount=Money(123456, "EUR"))
        message = composed(of(item, item, language=language))
        assert message["Subject"] == subject
        assert message["Content-Language"] == language
        assert amount in part(message, "plain")
        assert f'<html lang="{language}">' in part(message, "html")

    @pytest.mark.parametrize(
        ("asked", "written"),
        [("fr-CA", "fr"), ("FR", "fr"), ("cs_CZ", "cs"), ("de", "en"), ("", "en"), ("../fr", "en")],
    )
    def test_unknown_language_falls_back_to_english(self, asked: str, written: str) -> None:
        assert composed(replace(MAIL, language=asked))["Content-Language"] == written

    @pytest.mark.parametrize(
        ("count", "subject"),
        [
            (1, "1 služba k\xa0prodloužení"),
            (2, "2 služby k\xa0prodloužení"),
            (4, "4 služby k\xa0prodloužení"),
            (5, "5 služeb k\xa0prodloužení"),
            (22, "22 služeb k\xa0prodloužení"),
        ],
    )
    def test_czech_uses_its_plural_forms(self, count: int, subject: str) -> None:
        message = composed(of(*[PAY] * count, language="cs"))
        assert message["Subject"].startswith(f"{subject} do ")

    def test_the_first_of_a_month_is_premier_in_french(self) -> None:
        items = [replace(PAY, last_day=date(2026, 5, day)) for day in (1, 11, 21)]
        body = part(composed(of(*items, language="fr")), "plain")
        assert re.findall(r"Payé jusqu.au (.+) inclus", body) == [
            "1er mai 2026", "11 mai 2026", "21 mai 2026"
        ]  # fmt: skip

    @pytest.mark.parametrize("currency", CURRENCY_DIGITS)
    def test_an_amount_has_the_digits_of_its_currency(self, currency: str) -> None:
        item = replace(PAY, amount=Money(1234567, currency))
        body = part(composed(of(item)), "plain")
        (line,) = re.findall(r"Amount to pay: (.+)", body)
        assert re.sub(r"[^0-9]", "", line) == "1234567"

    @pytest.mark.parametrize("language", LOCALES)
    @pytest.mark.parametrize("situation", Situation)
    @pytest.mark.parametrize("on", [DAY, None])
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_every_situation_of_a_notice_has_a_text(
        self, language: str, situation: Situation, on: date | None, count: int
    ) -> None:
        links = {link: f"https://my.example.com/do/{link}" for link in LINKS}
        item = replace(PAY, situation=situation, on=on, links=links, periods=count)
        other = replace(PAY, situation=Situation.STOPS)
        message = composed(of(*[item] * count, other, language=language))
        assert not re.search(r"[{}]", message["Subject"] + part(message, "plain"))


class TestTexts:
    """Finds translations that are missing or do not fit."""

    def test_every_file_is_a_language(self) -> None:
        sentences.check_languages(TEXTS)

    @pytest.mark.parametrize("language", LOCALES)
    def test_every_language_has_the_same_sentences(self, language: str) -> None:
        sentences.check_same_sentences(TEXTS, language)

    @pytest.mark.parametrize("language", LOCALES)
    def test_every_situation_and_link_has_its_sentences(self, language: str) -> None:
        found = sentences.texts(TEXTS, language)
        assert set(found["explanation"]) == set(Situation)
        assert set(found["headline"]) == {*Situation, "suspended_undated"}
        assert set(found["link"]) == set(LINKS)

    @pytest.mark.parametrize("language", LOCALES)
    def test_every_plural_form_is_there_where_a_number_is_shown(self, language: str) -> None:
        sentences.check_plural_forms(TEXTS, language)

    @pytest.mark.parametrize("language", LOCALES)
    def test_every_translation_has_the_same_placeholders(self, language: str) -> None:
        sentences.check_gaps(TEXTS, language, count=True)

    def test_french_has_a_no_break_space_before_double_punctuation(self) -> None:
        sentences.check_french_spaces(TEXTS)

    def test_no_czech_line_ends_with_a_preposition_of_one_letter(self) -> None:
        sentences.check_czech_prepositions(TEXTS)


class Outline(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.hrefs: list[str | None] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.hrefs += [value for name, value in attributes if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


NASTY = [
    "\r\nBcc: eve@example.com",
    "\r\n\r\n<script>alert(1)</script>",
    '"><a href="https://evil.example">',
    "{{ 7 * 7 }}{% raw %}",
    "{count}{0}{}",
    "=?utf-8?q?x?= , <eve@example.com>",
    'Žlutý "kůň", s.r.o.; (pobočka) <x>',
    "\u202egnp.exe",
    "\ud800",
    "",
    "ž" * 500,
    "a, " * 50,
    ".\r\n.",
]
texts = st.text(max_size=80) | st.sampled_from(NASTY) | st.text(st.characters(), max_size=40)


class TestHostileTexts:
    @given(texts, texts, texts, texts, st.sampled_from(sorted(LOCALES)), st.sampled_from(Situation))
    def test_no_text_breaks_a_header_or_the_page(
        self, name: str, detail: str, brand: str, customer: str, language: str, kind: Situation
    ) -> None:
        tame = replace(PAY, situation=kind, name="a", detail="b")
        item = replace(tame, name=name, detail=detail)
        mail = replace(of(item, language=language), brand=brand, customer=customer)

        raw = compose(mail, SENDER, at=AT).as_bytes()
        message = composed(mail)

        # One of each header, to whom it was meant for, from whom it says.
        wanted = compose(of(tame, language=language), SENDER, at=AT)
        assert message.keys() == wanted.keys()
        assert [a.addr_spec for a in message["To"].addresses] == ["alice@example.net"]
        assert [a.addr_spec for a in message["From"].addresses] == [SENDER]
        assert message["Subject"] == wanted["Subject"]
        assert not message.defects
        assert not any(message[header].defects for header in ("From", "To", "Subject"))
        # Lines as short as SMTP wants them, in ASCII.
        assert raw.isascii()
        assert max(map(len, raw.split(b"\r\n"))) <= 998
        assert b"\n" not in raw.replace(b"\r\n", b"")
        # The page has the elements it always has; what was put in is in its text.
        page = Outline(part(message, "html"))
        pattern = Outline(part(composed(of(replace(tame, detail=detail and "b"))), "html"))
        assert page.hrefs == pattern.hrefs
        shown = " ".join("".join(c if c.isprintable() else " " for c in name).split())
        assert len(shown) > 200 or shown in page.text
        assert len([e for e in page.elements if e[0] != "span"]) == len(
            [e for e in pattern.elements if e[0] != "span"]
        )

    def test_a_name_of_several_lines_is_one_line(self) -> None:
        item = replace(PAY, name="Web\r\n\r\n* Free\u2028forever", detail="a\tb")
        assert "* Web * Free forever (a b)\n" in part(composed(of(item)), "plain")

    def test_markup_in_a_name_is_escaped(self) -> None:
        body = part(composed(of(replace(PAY, name="<b>&amp;"))), "html")
        assert "&lt;b&gt;&amp;amp;" in body

    def test_a_brand_with_a_comma_is_one_sender(self) -> None:
        brand = "Žlutý kůň, spol. s r. o., <eve@example.com>, pobočka v Praze"
        (sender,) = composed(replace(MAIL, brand=brand))["From"].addresses
        assert sender.addr_spec == SENDER
        # Python's reader, unlike RFC 2047, sees a space between two encoded words.
        assert sender.display_name.replace(" ", "") == brand.replace(" ", "")


class TestNewLink:
    MAIL = replace(MAIL, items=(), all_services="https://my.example.com/do/abc")

    @pytest.mark.parametrize("language", LOCALES)
    def test_mail_with_a_new_link_has_one_link_and_says_what_it_is_worth(
        self, language: str
    ) -> None:
        message = compose_link(replace(self.MAIL, language=language), SENDER, at=AT)
        sent = BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(
            message.as_bytes()
        )
        found = sentences.texts(TEXTS, language)
        assert sent["Subject"] == found["new_link"]["heading"]
        assert Outline(part(sent, "html")).hrefs == ["https://my.example.com/do/abc"]
        plain = " ".join(part(sent, "plain").split())
        assert found["new_link"]["explanation"].replace("\xa0", " ") in plain.replace("\xa0", " ")
        assert "https://my.example.com/do/abc" in plain

    def test_no_mail_can_be_unsubscribed_from(self) -> None:
        for message in (composed(), compose_link(self.MAIL, SENDER, at=AT)):
            assert message["List-Unsubscribe"] is None
            assert message["List-Unsubscribe-Post"] is None
